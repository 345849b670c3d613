/**
 * Keeps the past hour and tells those who look at it what comes next. One sample a second costs some
 * microseconds; texts are made only for somebody who waits for them.
 */

import type { PageMoment, PageSource } from "../contracts.ts";
import { createHistory, SERIES, tidy } from "./history.ts";
import { type MomentDeps, momentOf } from "./moment.ts";
import type { Problems } from "./problems.ts";
import { createSampler, type SamplerDeps } from "./sampler.ts";
import { sentenceOf } from "./sentence.ts";

export interface RecorderDeps extends MomentDeps, SamplerDeps {
  readonly problems: Problems;
  /** Asked for by each who opens the page. */
  readonly about: () => About;
}

/** Of the settings, what the page shows. */
export interface About {
  readonly group: string;
  readonly id: string;
  readonly version: string;
  readonly runtime: string;
  /** The table behind `POST /events`. */
  readonly table: string;
  /** Names and globs behind `POST /events/TABLE`. */
  readonly tables: readonly string[];
  readonly backlog: number;
  readonly backlogBytes: number;
  readonly spoolMaxBytes: number;
}

export interface Recorder extends PageSource {
  /** Takes a sample. To be called about once a second. */
  sample(): void;
}

export function createRecorder(deps: RecorderDeps): Recorder {
  const { clock, problems } = deps;
  const history = createHistory();
  const take = createSampler(deps);
  let last: (number | null)[] = [clock.nowMs() / 1000, ...SERIES.map(() => null)];
  let tellNext = (_moment: PageMoment) => {};
  let next: Promise<PageMoment> | null = null;

  const moment = (): PageMoment => ({
    now: JSON.stringify(momentOf(deps, last)),
    problems: JSON.stringify(
      problems.list().map(({ fields, message, ...problem }) => ({
        ...problem,
        ...(typeof fields.table === "string" ? { table: fields.table } : {}),
        ...(typeof fields.batch === "string" ? { batch: fields.batch } : {}),
        text: sentenceOf({ message, fields }),
      })),
    ),
  });

  return {
    sample() {
      const nowMs = clock.nowMs();
      const values = take();
      history.add(nowMs, values);
      last = [Math.round(nowMs) / 1000, ...SERIES.map((name) => tidy(values[name]))];
      if (next === null) return;
      next = null;
      tellNext(moment());
    },

    // deno-lint-ignore require-await
    async first() {
      return {
        about: JSON.stringify(told(deps.about())),
        past: JSON.stringify({ series: SERIES, columns: history.columns() }),
        ...moment(),
      };
    },

    next() {
      return next ??= new Promise((resolve) => tellNext = resolve);
    },
  };
}

/** These and no others: there are secrets among the settings. */
function told(about: About): About {
  const { group, id, version, runtime, table, tables, backlog, backlogBytes, spoolMaxBytes } =
    about;
  return { group, id, version, runtime, table, tables, backlog, backlogBytes, spoolMaxBytes };
}

/**
 * From the acknowledgement to a SELECT: single probes among 5,000 rows/s, and a ClickHouse that is asked
 * again and again which of them it has. Told is the moment when the answer was read, so the figures
 * hold the question's own time.
 */
import { pause } from "../kit/wait.ts";
import { openLoop } from "./open_loop.ts";
import type { Ack } from "./options.ts";
import type { Sink } from "./sinks.ts";
import type { Stage } from "./stage.ts";
import { startCollector } from "./subjects.ts";

export interface VisibleSample {
  readonly probes: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly problems: readonly string[];
}

/** Not a divisor of the flush interval, so that probes fall on every phase of it. */
const PROBE_EVERY_MS = 47;
const ASK_EVERY_MS = 20;
const VISIBLE_WITHIN_MS = 30_000;
/** They must not be the first rows: the events' table is made, and the code is warm. */
const SETTLE_MS = 500;

export async function measureVisible(
  clickhouse: Sink,
  ack: Ack,
  load: { readonly body: string; readonly seconds: number },
  stage: Stage,
): Promise<VisibleSample> {
  await clickhouse.reset();
  const collector = await startCollector(clickhouse, ack, stage);
  const background = openLoop({
    url: `${collector.url}/events`,
    body: load.body,
    rows: 100,
    seconds: load.seconds + 2,
    warmupSeconds: 0,
  });
  // Its failure is heard below; until then it must not be an unhandled rejection.
  background.catch(() => {});
  await pause(SETTLE_MS);

  const acknowledgedMs = new Map<string, number>();
  const delaysMs: number[] = [];
  const problems: string[] = [];
  const lastMs = performance.now() + load.seconds * 1000;
  let probing = true;
  const probe = async () => {
    const posts: Promise<void>[] = [];
    for (let n = 0; performance.now() < lastMs; n++) {
      posts.push(
        collector.shishi.post({ eventType: "probe", userId: `p${n}` }).then(({ status, text }) => {
          if (status === 200 || status === 202) acknowledgedMs.set(`p${n}`, performance.now());
          else problems.push(`a probe was answered with ${status} ${text}`);
        }, (problem) => void problems.push(`a probe got no answer: ${problem}`)),
      );
      await pause(PROBE_EVERY_MS);
    }
    await Promise.all(posts);
    probing = false;
  };
  const look = async () => {
    const seen = new Set<string>();
    const deadlineMs = lastMs + VISIBLE_WITHIN_MS;
    while ((probing || seen.size < acknowledgedMs.size) && performance.now() < deadlineMs) {
      const there = await clickhouse.query(
        "SELECT user_id FROM analytics_events WHERE event_type = 'probe'",
      );
      const nowMs = performance.now();
      for (const id of there.split("\n")) {
        const sinceMs = acknowledgedMs.get(id);
        // With ack=clickhouse a row is there before its answer has been read.
        if (id === "" || sinceMs === undefined || seen.has(id)) continue;
        seen.add(id);
        delaysMs.push(nowMs - sinceMs);
      }
      await pause(ASK_EVERY_MS);
    }
    if (seen.size < acknowledgedMs.size) {
      problems.push(`${acknowledgedMs.size - seen.size} probes did not become visible`);
    }
  };
  await Promise.all([probe(), look()]);
  await background;
  await collector.settle();
  await collector.close();
  if (delaysMs.length === 0) problems.push("no probe became visible");
  delaysMs.sort((a, b) => a - b);
  const quantile = (share: number) =>
    delaysMs[Math.min(delaysMs.length - 1, Math.floor(delaysMs.length * share))] ?? NaN;
  return {
    probes: delaysMs.length,
    p50Ms: quantile(0.5),
    p99Ms: quantile(0.99),
    maxMs: quantile(1),
    problems,
  };
}

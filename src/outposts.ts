/**
 * The collector's outposts: the mirror in InfluxDB and remote control over NATS. They are loaded when
 * they are first wanted, since their libraries would cost the first answer 10 of 45 ms, and can be sent
 * elsewhere while the collector runs.
 */

import process from "node:process";
import { nodeUtil } from "./kernel/builtins.ts";
import type { Clock, Control, Holdings, Ledger, Log } from "./contracts.ts";
import type { Mirror } from "./meter/mirror.ts";
import type { Remote } from "./remote/remote.ts";
import { createFetch } from "./runtime/fetch.ts";
import type { Settings } from "./settings/settings.ts";

/** How long a `flush` over NATS may take before it is answered as failed. */
const FLUSH_TIMEOUT_MS = 60_000;
/** After the drain: for the last write to InfluxDB. */
const LAST_WRITE_MS = 2_000;

export interface OutpostDeps {
  readonly control: Control;
  /** Has its listener called after each change of the state that somebody made, until the answer is. */
  readonly watch: (listener: () => void) => () => void;
  readonly ledger: Ledger;
  readonly holdings: Holdings;
  readonly clock: Clock;
  readonly log: Log;
  /** Resolves when another collector of our name has gone; null where there is none. */
  readonly other?: Promise<void> | null;
  /** This process unless given. */
  readonly rssBytes?: () => number;
}

export interface Outposts {
  /**
   * Resolves when both do as `settings` say; a NATS that hangs is not waited for long. One after the
   * other; after the last counts nothing comes any more. While another collector has our name nothing
   * is done: two of one name cannot be told apart, neither in InfluxDB nor on NATS.
   */
  adopt(settings: Settings): Promise<void>;
  /** The last counts go where `settings` say, if InfluxDB takes them in time. */
  writeLast(settings: Settings): Promise<void>;
  close(): Promise<void>;
}

/** None is there before `adopt`. */
export function createOutposts(deps: OutpostDeps): Outposts {
  const { control, ledger, clock, log } = deps;
  const { rssBytes = () => process.memoryUsage.rss() } = deps;
  let mirror: Mirror | null = null;
  let remote: Remote | null = null;
  let nats: Settings["nats"] = null;
  let ending = false;
  let alone = !deps.other;
  let last: Settings | null = null;
  let busy: Promise<void> = Promise.resolve();

  async function adoptMirror(settings: Settings): Promise<void> {
    const { influx, influxIntervalMs: intervalMs, group, id } = settings;
    const to = influx === null ? null : { endpoint: influx, intervalMs };
    if (mirror !== null || to === null) return mirror?.adopt(to);
    const { createMirror } = await import("./meter/mirror.ts");
    const fetch = createFetch({ pooled: true });
    const { holdings } = deps;
    mirror = createMirror({ ...to, ledger, holdings, group, id, clock, log, rssBytes, fetch });
    mirror.start();
  }

  async function adoptRemote({ nats: wanted, group, id }: Settings): Promise<void> {
    if (nodeUtil().isDeepStrictEqual(nats, wanted)) return;
    nats = wanted;
    await remote?.close();
    remote = null;
    if (wanted === null) return;
    const { startRemote } = await import("./remote/remote.ts");
    if (ending) return;
    const flushTimeoutMs = FLUSH_TIMEOUT_MS;
    const { watch } = deps;
    remote = startRemote({
      ...wanted,
      group,
      id,
      control,
      watch,
      ledger,
      clock,
      log,
      flushTimeoutMs,
    });
  }

  function adopt(settings: Settings): Promise<void> {
    last = settings;
    const adopted = busy.then(async () => {
      if (ending || !alone) return;
      await adoptMirror(settings);
      await adoptRemote(settings);
    });
    busy = adopted.catch(() => {});
    return adopted;
  }

  void deps.other?.then(() => {
    alone = true;
    if (last !== null) return adopt(last);
  });
  return {
    adopt,
    async writeLast(settings) {
      ending = true;
      await busy;
      await adoptMirror(settings);
      await mirror?.writeLast(LAST_WRITE_MS);
    },
    close: async () => await remote?.close(),
  };
}

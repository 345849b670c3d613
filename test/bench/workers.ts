/**
 * What more processes bring: the same load with `--workers 1`, 2, …, as many as there are cores. Nothing
 * is pinned, for each worker shall have a core if there is one; so load, sink and workers share all of
 * them, and more than one worker on two cores can only show that it costs nothing.
 */
import { wrk } from "./closed_loop.ts";
import { problemsOf } from "./landed.ts";
import type { Ack } from "./options.ts";
import type { Scenario } from "./scenarios.ts";
import type { Sink } from "./sinks.ts";
import type { Stage } from "./stage.ts";
import { startCollector } from "./subjects.ts";

export interface WorkersSample {
  readonly rowsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly problems: readonly string[];
}

export async function measureWorkers(
  sink: Sink,
  who: { readonly ack: Ack; readonly workers: number },
  load: { readonly scenario: Scenario; readonly body: string; readonly seconds: number },
  stage: Stage,
): Promise<WorkersSample> {
  await sink.reset();
  const flags = ["--workers", String(who.workers)];
  const collector = await startCollector(sink, who.ack, stage, flags, "all");
  const { scenario } = load;
  const told = await wrk(collector.url, scenario, load.body, load.seconds, "all");
  const settled = await collector.settle();
  const counted = {
    acceptedRows: (told.requests - told.refused) * scenario.rows,
    unansweredRows: scenario.connections * scenario.rows,
    sinkRows: await sink.rows(),
    settled,
  };
  await collector.close();
  return {
    rowsPerSecond: counted.acceptedRows / (told.durationUs / 1e6),
    p50Ms: told.p50Us / 1000,
    p99Ms: told.p99Us / 1000,
    problems: problemsOf(counted),
  };
}

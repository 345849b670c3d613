/** What the runs say together: medians of the rounds, ratios to the reference that ran before. */
import type { Sample } from "./closed_loop.ts";
import { nameOf, type Results, type SharedBy, type Who } from "./results.ts";
import type { SharedSample } from "./share_port.ts";
import type { SourceSample } from "./sources.ts";
import { type Scenario, targetOf } from "./scenarios.ts";

export type Figures = Omit<Sample, "problems" | "landedRows" | "acceptedRows">;

export interface ClosedSummary {
  readonly scenario: Scenario;
  readonly who: Who;
  readonly figures: Figures;
  /** rows/s, of the scenario's last reference; null for references and where none was measured. */
  readonly ratio: number | null;
  readonly target: number | null;
  /** rows/s, of the other build in the run after it; null where none was measured. */
  readonly ofOther: number | null;
  /** Whether every accepted row is there; null for a reference. */
  readonly landed: boolean | null;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1
    ? sorted[Math.floor(middle)]!
    : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** One entry for each who of each scenario, in the order in which they ran. */
export function summarise(closed: Results["closed"]): ClosedSummary[] {
  const groups = new Map<string, Results["closed"]>();
  for (const run of closed) {
    const key = `${run.scenario.what} ${nameOf(run.who)}`;
    groups.set(key, [...groups.get(key) ?? [], run]);
  }
  return [...groups.values()].map((runs) => {
    const { scenario, who } = runs[0]!;
    const of = (key: keyof Figures) => median(runs.map(({ sample }) => sample[key]));
    const ratios = runs.flatMap((run) => {
      const reference = closed.slice(0, closed.indexOf(run)).findLast(({ scenario, who }) =>
        scenario === run.scenario && "reference" in who &&
        who.reference === scenario.references.at(-1)
      );
      if (reference === undefined) return [];
      return [run.sample.rowsPerSecond / reference.sample.rowsPerSecond];
    });
    const others = runs.flatMap((run) => {
      const after = closed[closed.indexOf(run) + 1];
      const isOther = after?.scenario === run.scenario && "ack" in after.who &&
        after.who.build === "other" && !("build" in run.who);
      return isOther ? [run.sample.rowsPerSecond / after.sample.rowsPerSecond] : [];
    });
    const isReference = "reference" in who;
    return {
      scenario,
      who,
      figures: {
        rowsPerSecond: of("rowsPerSecond"),
        requestsPerSecond: of("requestsPerSecond"),
        p50Ms: of("p50Ms"),
        p99Ms: of("p99Ms"),
        p999Ms: of("p999Ms"),
        // The promise is about every run.
        peakRssBytes: Math.max(...runs.map(({ sample }) => sample.peakRssBytes)),
        cpuSecondsPerMillionRows: of("cpuSecondsPerMillionRows"),
        writtenRatio: of("writtenRatio"),
        refused: of("refused"),
        serverBusy: of("serverBusy"),
        loadCoreBusy: of("loadCoreBusy"),
      },
      ratio: isReference || ratios.length === 0 ? null : median(ratios),
      ofOther: others.length === 0 ? null : median(others),
      target: isReference ? null : targetOf(scenario, who),
      landed: isReference ? null : runs.every(({ sample }) => sample.problems.length === 0),
    };
  });
}

export interface SourceSummary extends Omit<SourceSample, "problems"> {
  readonly broker: string;
  readonly bytes: number;
  readonly landed: boolean;
}

/** The median of all rounds of each broker and size. */
export function summariseSources(runs: Results["sources"]): SourceSummary[] {
  const kinds = Map.groupBy(runs, ({ broker, load }) => `${broker} ${load.bytes}`);
  return [...kinds.values()].map((same) => {
    const of = (key: keyof Omit<SourceSample, "problems">) =>
      median(same.map(({ sample }) => sample[key]));
    return {
      broker: same[0]!.broker,
      bytes: same[0]!.load.bytes,
      messagesPerSecond: of("messagesPerSecond"),
      plainPerSecond: of("plainPerSecond"),
      ratio: of("ratio"),
      cpuSecondsPerMillion: of("cpuSecondsPerMillion"),
      plainCpuSecondsPerMillion: of("plainCpuSecondsPerMillion"),
      cpuRatio: of("cpuRatio"),
      peakRssBytes: of("peakRssBytes"),
      landed: same.every(({ sample }) => sample.problems.length === 0),
    };
  });
}

export interface SharedSummary {
  readonly by: SharedBy;
  readonly collectors: number;
  readonly rowsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly cpuSecondsPerMillionRows: number;
  /** NaN of what counts no rows. */
  readonly leastShare: number;
  /** rows/s, of one collector in the same round. */
  readonly ofOne: number;
  /** CPU seconds per million rows, of one collector in the same round. */
  readonly costOfOne: number;
  readonly landed: boolean;
}

export function summariseShared(runs: Results["shared"]): SharedSummary[] {
  const whos = new Map(
    runs.map(({ by, collectors }) => [`${by} ${collectors}`, { by, collectors }]),
  );
  const ran = (by: SharedBy, collectors: number) =>
    runs.filter((run) => run.by === by && run.collectors === collectors)
      .map(({ sample }) => sample);
  return [...whos.values()].map(({ by, collectors }) => {
    const samples = ran(by, collectors), ones = ran(by, 1);
    const of = (key: keyof Omit<SharedSample, "problems">) =>
      median(samples.map((sample) => sample[key]));
    const ofOne = (key: "rowsPerSecond" | "cpuSecondsPerMillionRows") =>
      median(samples.flatMap((sample, at) => {
        const one = ones[at];
        return one === undefined ? [] : [sample[key] / one[key]];
      }));
    return {
      ...{ by, collectors, rowsPerSecond: of("rowsPerSecond") },
      ...{ p50Ms: of("p50Ms"), p99Ms: of("p99Ms"), leastShare: of("leastShare") },
      cpuSecondsPerMillionRows: of("cpuSecondsPerMillionRows"),
      ofOne: ofOne("rowsPerSecond"),
      costOfOne: ofOne("cpuSecondsPerMillionRows"),
      landed: samples.every(({ problems }) => problems.length === 0),
    };
  });
}

/** What was wrong, a sentence each with the run that it is about; none = every run was sound. */
export function broken(results: Results): string[] {
  const say = (run: string) => (problem: string) => `${run}: ${problem}`;
  return [
    ...results.failed,
    ...results.closed.flatMap(({ scenario, who, sample }) =>
      sample.problems.map(say(`${scenario.name} ${nameOf(who)}`))
    ),
    ...results.open.flatMap(({ ack, sink, sample }) =>
      sample.problems.map(say(`S4 ack=${ack} → ${sink}`))
    ),
    ...results.visible.flatMap(({ ack, sample }) => sample.problems.map(say(`visible ack=${ack}`))),
    ...results.shared.flatMap(({ by, collectors, sample }) =>
      sample.problems.map(say(`share-port ${collectors} ${by}`))
    ),
    ...results.sources.flatMap(({ broker, load, sample }) =>
      sample.problems.map(say(`sources ${broker}, ${load.bytes} B`))
    ),
  ];
}

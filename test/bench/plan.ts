/** All runs that were asked for, in their order. */
import { measureCollector, measureReference } from "./closed_loop.ts";
import { measureOpen } from "./open_loop.ts";
import type { Ack, Options, SinkName } from "./options.ts";
import { nameOf, type Results, type Who } from "./results.ts";
import { bodyFile, type Scenario, SCENARIOS, targetOf, warmupOf } from "./scenarios.ts";
import { measureShared, SHARED } from "./share_port.ts";
import type { Sink } from "./sinks.ts";
import type { Stage } from "./stage.ts";
import { type BenchBroker, BROKERS, measureSource } from "./sources.ts";
import { measureStart } from "./start_up.ts";
import { measureVisible } from "./visible.ts";

export interface Job {
  readonly label: string;
  /** About how long it takes. */
  readonly seconds: number;
  /** `stage` is ended after it, whatever happens. */
  run(stage: Stage): Promise<void>;
}

export interface Place {
  readonly options: Options;
  readonly sinks: (name: SinkName) => Promise<Sink>;
  /** For bodies of requests. */
  readonly dir: string;
  /** What lasts for all runs ends with it. */
  readonly stage: Stage;
}

/** Starting, waiting for a flush, draining and stopping of one run. */
const AROUND_S = 2.5;

export function plan(place: Place): { readonly jobs: readonly Job[]; readonly results: Results } {
  const { options, sinks, dir } = place;
  const { parts, acks, seconds, warmupSeconds, openSeconds, quick } = options;
  const results: Results = {
    start: null,
    closed: [],
    open: [],
    visible: [],
    shared: [],
    sources: [],
    failed: [],
  };
  const jobs: Job[] = [];

  if (parts.includes("start")) {
    const starts = quick ? 3 : 20;
    const idleMs = quick ? 300 : 3_000;
    jobs.push({
      label: "start",
      seconds: 0.2 * starts + idleMs / 1000,
      run: async (stage) => {
        results.start = await measureStart(
          await sinks("swallow"),
          { starts, idleMs },
          stage,
          options.against,
        );
      },
    });
  }

  for (const scenario of SCENARIOS.filter(({ name }) => parts.includes(name))) {
    const load = { scenario, body: bodyFile(dir, scenario), options };
    for (let round = 1; round <= options.rounds; round++) {
      for (const who of withOther(participants(scenario, options), options)) {
        jobs.push({
          label: `${scenario.what}: ${nameOf(who)}, round ${round} of ${options.rounds}`,
          seconds: warmupOf(scenario, warmupSeconds) + seconds + AROUND_S,
          run: async (stage) => {
            const sample = "reference" in who
              ? await measureReference(who.reference, load, stage)
              : await measureCollector(
                await sinks(who.sink),
                who.ack,
                load,
                stage,
                who.build === "other" ? options.against! : undefined,
              );
            results.closed.push({ scenario, who, round, sample });
          },
        });
      }
    }
  }

  if (parts.includes("S4")) {
    const bodies = (rows: number) => bodyFile(dir, { rows, encoding: null });
    for (const { ack, sink } of collectors(options)) {
      jobs.push({
        label: `S4 ack=${ack} → ${sink}`,
        seconds: warmupSeconds + openSeconds + AROUND_S,
        run: async (stage) => {
          const load = { bodies, seconds: openSeconds, warmupSeconds };
          const sample = await measureOpen(await sinks(sink), ack, load, stage);
          results.open.push({ ack, sink, sample });
        },
      });
    }
  }

  if (parts.includes("visible") && options.sinks.includes("clickhouse")) {
    for (const ack of quick ? [usual(acks)] : acks.filter((ack) => ack !== "clickhouse")) {
      const load = { body: bodyFile(dir, { rows: 100, encoding: null }), seconds: 2 * seconds };
      jobs.push({
        label: `visible ack=${ack}`,
        seconds: load.seconds + AROUND_S + 2,
        run: async (stage) => {
          const sample = await measureVisible(await sinks("clickhouse"), ack, load, stage);
          results.visible.push({ ack, sample });
        },
      });
    }
  }

  if (parts.includes("share-port")) {
    const load = { body: bodyFile(dir, SHARED), seconds, warmupSeconds };
    for (let round = 1; round <= options.rounds; round++) {
      const told = acks.filter((ack) => quick ? ack === usual(acks) : ack !== "clickhouse");
      for (const by of [...told, ...(quick ? [] : ["parse" as const])]) {
        for (const collectors of [1, 2]) {
          jobs.push({
            label: `share-port ${collectors} ${by}, round ${round} of ${options.rounds}`,
            seconds: warmupSeconds + seconds + 2 * AROUND_S,
            run: async (stage) => {
              const sink = await sinks("swallow");
              const sample = await measureShared(sink, { by, collectors }, load, stage);
              results.shared.push({ by, collectors, sample });
            },
          });
        }
      }
    }
  }

  if (parts.includes("sources")) {
    for (const broker of options.brokers) {
      const start = BROKERS[broker];
      let started: Promise<BenchBroker> | null = null;
      for (const bytes of [100, 1000]) {
        const load = { bytes, messages: (quick ? 20 : 300) * (bytes === 100 ? 1000 : 300) };
        for (let round = 1; round <= options.rounds; round++) {
          for (const binary of options.against === null ? [null] : [null, options.against]) {
            const who = binary === null ? broker : `${broker}, other build`;
            jobs.push({
              label: `sources ${who}, ${bytes} B, round ${round} of ${options.rounds}`,
              seconds: 2 * AROUND_S + load.messages / 20_000,
              run: async (stage) => {
                started ??= start(place.stage);
                const sink = await sinks("swallow");
                const at = await started;
                const sample = await measureSource(at, sink, load, stage, binary ?? undefined);
                results.sources.push({ broker: who, load, sample });
              },
            });
          }
        }
      }
    }
  }
  return { jobs, results };
}

/** The references, and before each run that has a target its own again: A B A B, also in one round. */
function participants(scenario: Scenario, options: Options): Who[] {
  if (scenario.name === "slow") {
    const acks = options.acks.filter((ack) => ack !== "clickhouse");
    return (options.quick ? acks.slice(-1) : acks).map((ack) => ({ ack, sink: "swallow" }));
  }
  if (scenario.name === "tables") {
    const acks = options.acks.filter((ack) => ack !== "clickhouse");
    return acks.map((ack) => ({ ack, sink: "swallow" }));
  }
  const references = scenario.references.map((reference) => ({ reference }));
  return [
    ...references.slice(0, -1),
    ...collectors(options).flatMap((who, at) => {
      const isCompared = targetOf(scenario, who) !== null || at === 0;
      return isCompared ? [...references.slice(-1), who] : [who];
    }),
  ];
}

/** After each run of a collector the same by the other build, where there is one. */
function withOther(whos: readonly Who[], { against }: Options): Who[] {
  return whos.flatMap((who): Who[] =>
    against === null || "reference" in who ? [who] : [who, { ...who, build: "other" }]
  );
}

/** The collector's default, where it was asked for. */
function usual(acks: readonly Ack[]): Ack {
  return acks.includes("disk") ? "disk" : acks[0]!;
}

/** Every ack into every sink; the quick form takes one ack into ClickHouse. */
function collectors({ acks, sinks, quick }: Options): { ack: Ack; sink: SinkName }[] {
  return sinks.flatMap((sink) =>
    acks
      .filter((ack) => !quick || sink === "swallow" || ack === usual(acks))
      .map((ack) => ({ ack, sink }))
  );
}

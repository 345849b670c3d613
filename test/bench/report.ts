/** The figures as text for people and as JSON for programs. */
import type { Conditions } from "./conditions.ts";
import { nameOf, type Results } from "./results.ts";
import type { Scenario } from "./scenarios.ts";
import {
  broken,
  type ClosedSummary,
  type SharedSummary,
  summarise,
  summariseShared,
  summariseSources,
} from "./summary.ts";

const PEAK_RSS_MB = 200;
const IDLE_RSS_MB = 60;
const FIRST_ANSWER_MS = 40;
const OPEN_P99_MS = 5;
const VISIBLE_P99_MS = 1_500;
/** CPU seconds per million rows of two collectors on one port, of one's. */
const SHARED_COST = 1.1;

export function asJson(conditions: Conditions, results: Results): string {
  const { start, closed, open, visible, shared, sources } = results;
  const whoOf = (who: ClosedSummary["who"]) => "reference" in who ? who : { ...who };
  return JSON.stringify(
    {
      conditions,
      start,
      closed: summarise(closed).map((
        { scenario, who, figures, ratio, target, ofOther, landed },
      ) => ({
        scenario: scenario.name,
        connections: scenario.connections,
        ...whoOf(who),
        ...figures,
        ...("reference" in who
          ? {}
          : { ratio, ratioOf: scenario.references.at(-1) ?? null, target, ofOther, landed }),
        rounds: closed
          .filter((run) => run.scenario === scenario && nameOf(run.who) === nameOf(who))
          .map(({ sample }) => sample),
      })),
      open: open.map(({ sample, ...who }) => ({ ...who, ...sample })),
      visible: visible.map(({ sample, ...who }) => ({ ...who, ...sample })),
      shared: shared.map(({ sample, ...who }) => ({ ...who, ...sample })),
      sources: sources.map(({ sample, broker, load }) => ({ broker, ...load, ...sample })),
      broken: broken(results),
    },
    null,
    2,
  );
}

export function asText(conditions: Conditions, results: Results): string {
  const wide = Math.max(...Object.keys(conditions).map((key) => key.length));
  const lines = Object.entries(conditions).map(([key, value]) => `${key.padEnd(wide)}  ${value}`);
  lines.push(...startLines(results), ...closedLines(results), ...openLines(results));
  lines.push(...visibleLines(results), ...sharedLines(results), ...sourceLines(results));
  const problems = broken(results);
  if (problems.length > 0) lines.push("", ...problems.map((problem) => `BROKEN ${problem}`));
  return lines.join("\n");
}

function startLines({ start }: Results): string[] {
  if (start === null) return [];
  const median = start.firstAnswerMedianMs;
  const idleMb = start.idleRssBytes / 1e6;
  return [
    "",
    `first answer after exec  min ${number(start.firstAnswerMinMs)}, median ${number(median)} ms ` +
    `of ${start.starts} ${against(median <= FIRST_ANSWER_MS, `≤ ${FIRST_ANSWER_MS} ms`)}` +
    (start.otherMedianMs === null ? "" : `, the other build ${number(start.otherMedianMs)}`),
    `idle memory              ${number(idleMb)} MB ${
      against(idleMb <= IDLE_RSS_MB, `≤ ${IDLE_RSS_MB} MB`)
    }`,
    `size of the binary       ${number(start.binaryBytes / 1e6)} MB`,
  ];
}

function closedLines({ closed }: Results): string[] {
  const all = summarise(closed);
  return [...new Set(all.map(({ scenario }) => scenario))].flatMap((scenario) => [
    "",
    `${scenario.name}: ${scenario.what}`,
    ...grid([
      [
        "",
        ...[
          "rows/s",
          "req/s",
          "p50 ms",
          "p99 ms",
          "p99.9 ms",
          "peak MB",
          "CPU s/M rows",
          "written",
          "429",
        ],
        ...[
          "server CPU",
          "load core",
          "landed",
          ratioOf(scenario),
          all.some(({ ofOther }) => ofOther !== null) ? "of other build" : "",
        ],
      ],
      ...all.filter((one) => one.scenario === scenario).map(closedRow),
    ]),
  ]);
}

function ratioOf(scenario: Scenario): string {
  const reference = scenario.references.at(-1);
  return reference === undefined ? "" : `of ${reference}`;
}

function closedRow({ who, figures, ratio, target, ofOther, landed }: ClosedSummary): string[] {
  const peakMb = figures.peakRssBytes / 1e6;
  const tooLarge = landed !== null && peakMb > PEAK_RSS_MB ? " ✗" : "";
  return [
    nameOf(who),
    whole(figures.rowsPerSecond),
    whole(figures.requestsPerSecond),
    number(figures.p50Ms),
    number(figures.p99Ms),
    number(figures.p999Ms),
    `${whole(peakMb)}${tooLarge}`,
    figures.cpuSecondsPerMillionRows.toFixed(2),
    figures.writtenRatio > 0 ? figures.writtenRatio.toFixed(2) : "",
    whole(figures.refused),
    `${Math.round(figures.serverBusy * 100)} %`,
    `${Math.round(figures.loadCoreBusy * 100)} %`,
    landed === null ? "" : landed ? "all" : "NO",
    ratio === null
      ? ""
      : `${ratio.toFixed(2)}${
        target === null ? "" : ` ${against(ratio >= target, `≥ ${target.toFixed(2)}`)}`
      }`,
    ofOther === null ? "" : ofOther.toFixed(2),
  ];
}

function openLines({ open }: Results): string[] {
  if (open.length === 0) return [];
  return [
    "",
    "S4: 5,000 rows/s by the clock, latency from the planned time; late = of it, the client's own",
    ...grid([
      [
        ...["", "rows/request", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "late p50", "late p99"],
        ...["peak MB", "CPU s/M rows", "429", "landed", "p99"],
      ],
      ...open.map(({ ack, sink, sample }) => [
        nameOf({ ack, sink }),
        whole(sample.rowsPerRequest),
        number(sample.p50Ms),
        number(sample.p99Ms),
        number(sample.p999Ms),
        number(sample.maxMs),
        number(sample.lateP50Ms),
        number(sample.lateP99Ms),
        whole(sample.peakRssBytes / 1e6),
        sample.cpuSecondsPerMillionRows.toFixed(2),
        whole(sample.statuses["429"] ?? 0),
        sample.problems.length === 0 ? "all" : "NO",
        ack === "clickhouse" ? "" : against(sample.p99Ms <= OPEN_P99_MS, `≤ ${OPEN_P99_MS} ms`),
      ]),
    ]),
  ];
}

function visibleLines({ visible }: Results): string[] {
  return visible.flatMap(({ ack, sample }, at) => [
    ...(at === 0 ? [""] : []),
    `visible in ClickHouse after the acknowledgement, ack=${ack}: p50 ${whole(sample.p50Ms)}, ` +
    `p99 ${whole(sample.p99Ms)}, max ${whole(sample.maxMs)} ms of ${sample.probes} ` +
    against(sample.p99Ms <= VISIBLE_P99_MS, `p99 ≤ ${VISIBLE_P99_MS} ms`),
  ]);
}

function sourceLines(results: Results): string[] {
  const all = summariseSources(results.sources);
  if (all.length === 0) return [];
  return [
    "",
    "sources: messages that wait at a broker, ack=disk, into a sink that swallows",
    ...grid([
      [
        ...["", "messages/s", "client alone", "ratio"],
        ...["CPU s/M", "client alone", "ratio", "peak MB", "landed"],
      ],
      ...all.map((one) => [
        `${one.broker}, ${one.bytes} B`,
        whole(one.messagesPerSecond),
        whole(one.plainPerSecond),
        one.ratio.toFixed(2),
        one.cpuSecondsPerMillion.toFixed(2),
        one.plainCpuSecondsPerMillion.toFixed(2),
        one.cpuRatio.toFixed(2),
        whole(one.peakRssBytes / 1e6),
        one.landed ? "all" : "NO",
      ]),
    ]),
  ];
}

/** Two collectors may cost as much more than one as two servers do that only parse, and a tenth. */
function sharedAgainst({ by, costOfOne }: SharedSummary, all: readonly SharedSummary[]): string {
  if (by === "parse") return "";
  const floor = all.find((one) => one.by === "parse" && one.collectors === 2)?.costOfOne ?? 1;
  const most = Math.max(floor, 1) * SHARED_COST;
  return against(costOfOne <= most, `≤ ${most.toFixed(2)}`);
}

function sharedLines(results: Results): string[] {
  const all = summariseShared(results.shared);
  if (all.length === 0) return [];
  return [
    "",
    "share-port: 1,000 events a request, 16 connections each; load, sink and collectors on all cores",
    ...grid([
      [
        "",
        "rows/s",
        "p50 ms",
        "p99 ms",
        "CPU s/M rows",
        "least",
        "landed",
        "of one",
        "cost of one",
      ],
      ...all.map((one) => [
        `${one.by === "parse" ? "bare parse" : `ack=${one.by}`}, ${one.collectors}`,
        whole(one.rowsPerSecond),
        number(one.p50Ms),
        number(one.p99Ms),
        one.cpuSecondsPerMillionRows.toFixed(2),
        one.collectors === 1 || one.by === "parse" ? "" : `${Math.round(one.leastShare * 100)} %`,
        one.landed ? "all" : "NO",
        one.collectors === 1 ? "" : one.ofOne.toFixed(2),
        one.collectors === 1
          ? ""
          : `${one.costOfOne.toFixed(2)} ${sharedAgainst(one, all)}`.trimEnd(),
      ]),
    ]),
  ];
}

function against(reached: boolean, target: string): string {
  return `(${target} ${reached ? "✓" : "✗"})`;
}

/** The first column to the left, figures to the right. */
function grid(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, at) => Math.max(...rows.map((row) => row[at]!.length)));
  return rows.map((row) =>
    row.map((cell, at) => at === 0 ? cell.padEnd(widths[at]!) : cell.padStart(widths[at]!))
      .join("  ").trimEnd()
  );
}

function whole(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

function number(value: number): string {
  return value >= 100 ? whole(value) : value.toFixed(value >= 10 ? 1 : 2);
}

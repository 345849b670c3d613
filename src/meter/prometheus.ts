/**
 * `GET /metrics`: the ledger and the holdings in Prometheus' text format.
 *
 * Promises: one scrape is one moment. Every value is read synchronously when `text` is called, so
 * received + recovered = rejected + stored + dead + held + lost holds within a scrape, whatever
 * happens while it is rendered. `shishi_rows_held` is measured where the rows are, not computed from
 * the counts: the equation can fail, and when it does an error is logged.
 *
 * prom-client renders; it keeps no counts of its own, so that nothing is counted twice or missed. Its
 * default metrics report wrong values where they rely on Node's internals, so the three figures of the
 * process that every exporter has are read here, and so is what lies around it: its disk, its certificate.
 */

import { statfs } from "node:fs/promises";
import process from "node:process";
import { Counter, Gauge, type Metric, Registry } from "prom-client";
import type { Clock, Holdings, Log, SourceStatus } from "../contracts.ts";
import { nodeCrypto } from "../kernel/builtins.ts";
import { within } from "../kernel/time.ts";
import { balance, type Histogram, type MeteredLedger } from "./ledger.ts";

export interface Prometheus {
  /** The whole scrape, in format 0.0.4. */
  text(): Promise<string>;
}

export interface PrometheusDeps {
  readonly ledger: MeteredLedger;
  readonly holdings: Holdings;
  readonly log: Log;
  readonly group: string;
  readonly id: string;
  readonly version: string;
  /** E.g. `name 1.2.3`. */
  readonly runtime: string;
  /** Resident memory of this process. */
  readonly rssBytes: () => number;
  /** As the settings say at the moment. */
  readonly limits: () => { readonly backlog: number; readonly spoolMaxBytes: number };
  /** Absent: there are none. */
  readonly sources?: () => readonly SourceStatus[];
  /** As they were seen last. */
  readonly surroundings: Pick<Surroundings, "room" | "certificateEndS">;
}

type Labels = Record<string, string>;
type Sample = readonly [labels: Labels, value: number];

export function createPrometheus(deps: PrometheusDeps): Prometheus {
  const { ledger, holdings, log, surroundings, sources = () => [] } = deps;
  const registry = new Registry();
  const { counter, gauge, histogram, one, perhaps } = registrar(registry);
  const startSeconds = Date.now() / 1000 - process.uptime();

  const byTable = (field: "received" | "stored" | "dead") => () =>
    [...ledger.tableTotals()].map(([table, totals]): Sample => [{ table }, totals[field]]);

  counter(
    "analytics_events_total",
    "Events accepted.",
    ["event_type"],
    () => [...ledger.eventTotals()].map(([event_type, rows]) => [{ event_type }, rows]),
  );
  histogram(
    "analytics_processing_duration_seconds",
    "From the first byte of a request to its acknowledgement.",
    ledger.requestSeconds,
  );

  counter("shishi_rows_received_total", "Rows received.", ["table"], byTable("received"));
  counter(
    "shishi_rows_rejected_total",
    "Rows refused for their content.",
    ["table", "reason"],
    () => [...ledger.rejections()].map(({ table, reason, rows }) => [{ table, reason }, rows]),
  );
  counter("shishi_rows_stored_total", "Rows that ClickHouse took.", ["table"], byTable("stored"));
  counter("shishi_rows_dead_total", "Rows that ended as dead letters.", ["table"], byTable("dead"));
  gauge("shishi_rows_held", "Rows in memory and on disk.", ["table"], () => heldByTable(deps));
  counter("shishi_rows_lost_total", "Rows given up.", [], one(() => ledger.totals().lost));
  counter(
    "shishi_rows_recovered_total",
    "Rows found in the spool at start.",
    [],
    one(() => ledger.totals().recovered),
  );

  histogram("shishi_insert_duration_seconds", "Of one successful INSERT.", ledger.insertSeconds);
  histogram("shishi_insert_rows", "Rows of one successful INSERT.", ledger.insertRows);
  counter("shishi_insert_errors_total", "INSERTs that failed, by ClickHouse's code.", [
    "table",
    "code",
  ], () => [...ledger.insertErrors()].map(({ table, code, count }) => [{ table, code }, count]));
  gauge(
    "shishi_insert_timeout_seconds",
    "That INSERTs into a table get, where it is more than insert-timeout.",
    ["table"],
    () => [...ledger.insertTimeouts()].map(({ table, ms }) => [{ table }, ms / 1000]),
  );

  gauge("shishi_spool_bytes", "Rows on disk.", [], one(() => holdings.spoolBytes()));
  gauge("shishi_memory_bytes", "Rows in memory.", [], one(() => holdings.memoryBytes()));
  gauge("shishi_backlog_limit_rows", "The setting backlog.", [], one(() => deps.limits().backlog));
  gauge(
    "shishi_spool_limit_bytes",
    "The setting spool-max-bytes.",
    [],
    one(() => deps.limits().spoolMaxBytes),
  );
  const ofDisk = (field: keyof DiskRoom) => perhaps(() => surroundings.room()?.[field] ?? null);
  gauge(
    "shishi_disk_free_bytes",
    "What may still be written to the disk of data-dir.",
    [],
    ofDisk("freeBytes"),
  );
  gauge("shishi_disk_size_bytes", "Of the disk of data-dir.", [], ofDisk("sizeBytes"));
  gauge(
    "shishi_certificate_end_timestamp_seconds",
    "When the certificate of tls-cert ends, epoch.",
    [],
    perhaps(() => surroundings.certificateEndS()),
  );
  gauge(
    "shishi_oldest_row_seconds",
    "Age of the oldest row not yet delivered.",
    [],
    one(() => holdings.oldestMs() / 1000),
  );

  counter(
    "shishi_http_requests_total",
    "Requests answered.",
    ["status"],
    () => [...ledger.httpStatuses()].map(({ status, count }) => [{ status }, count]),
  );
  counter(
    "shishi_mirror_errors_total",
    "Writes to InfluxDB that failed.",
    [],
    one(() => ledger.mirrorErrors()),
  );
  counter(
    "shishi_control_commands_total",
    "Commands received.",
    ["command", "ok"],
    () =>
      [...ledger.controls()].map(({ command, ok, count }) => [{ command, ok: String(ok) }, count]),
  );

  counter(
    "shishi_certificate_requests_total",
    "Requests of clients that have shown a certificate, by its subject.",
    ["subject"],
    () => [...ledger.subjects()].map(([subject, count]) => [{ subject }, count]),
  );
  const byToken = (field: "rows" | "bytes") => () =>
    [...ledger.tokenTotals()].map(([token, totals]): Sample => [{ token }, totals[field]]);
  counter(
    "shishi_token_rows_total",
    "Rows taken with a write token, by its label.",
    ["token"],
    byToken("rows"),
  );
  counter(
    "shishi_token_bytes_total",
    "Bytes of the unpacked bodies of those rows.",
    ["token"],
    byToken("bytes"),
  );
  counter(
    "shishi_token_refused_total",
    "Requests refused to a write token: for want of a right, or for a quota.",
    ["token", "reason"],
    () =>
      [...ledger.tokenTotals()].flatMap(([token, { refused }]) =>
        Object.entries(refused).map(([reason, count]): Sample => [{ token, reason }, count])
      ),
  );

  counter(
    "shishi_table_changes_total",
    "Statements that made a table, added columns or widened one.",
    ["what"],
    () => Object.entries(ledger.tableChanges()).map(([what, count]): Sample => [{ what }, count]),
  );

  counter(
    "shishi_source_messages_total",
    "Messages: rows, empty, dead (letters), repeated (taken before), dropped (no room, and the broker keeps none).",
    ["source", "result"],
    () =>
      [...ledger.sourceTotals()].flatMap(([source, { messages, empty, dead, repeated, dropped }]) =>
        Object.entries({ rows: messages, empty, dead, repeated, dropped })
          .map(([result, count]): Sample => [{ source, result }, count])
      ),
  );
  const bySource = (field: "rows" | "reconnects") => () =>
    [...ledger.sourceTotals()].map(([source, totals]): Sample => [{ source }, totals[field]]);
  counter("shishi_source_rows_total", "Rows of messages.", ["source"], bySource("rows"));
  counter(
    "shishi_source_reconnects_total",
    "Connections to a broker that failed or were lost.",
    ["source"],
    bySource("reconnects"),
  );
  gauge(
    "shishi_source_unacked",
    "Messages that were read and are not acknowledged.",
    ["source"],
    () => sources().map(({ name: source, unacked }) => [{ source }, unacked]),
  );
  gauge(
    "shishi_source_lag",
    "Messages that wait at the broker, where it tells.",
    ["source"],
    () =>
      sources().flatMap(({ name: source, lag }): Sample[] =>
        lag === null ? [] : [[{ source }, lag]]
      ),
  );
  gauge(
    "shishi_source_state",
    "1 for the state that a source is in.",
    ["source", "state"],
    () => sources().map(({ name: source, state }) => [{ source, state }, 1]),
  );

  gauge("shishi_build_info", "Always 1.", ["version", "runtime"], () => [
    [{ version: deps.version, runtime: deps.runtime }, 1],
  ]);
  gauge("shishi_collector_info", "Always 1.", ["group", "id"], () => [
    [{ group: deps.group, id: deps.id }, 1],
  ]);
  gauge("process_resident_memory_bytes", "Resident memory.", [], one(deps.rssBytes));
  counter("process_cpu_seconds_total", "User and system time.", [], one(cpuSeconds));
  gauge(
    "process_start_time_seconds",
    "Start of the process, epoch.",
    [],
    one(() => startSeconds),
  );

  let knownDifference = 0;
  const checkBooks = () => {
    const totals = ledger.totals();
    const difference = balance({ ...totals, held: holdings.rows() });
    if (difference === knownDifference) return;
    knownDifference = difference;
    if (difference === 0) log.info("the books balance again");
    else {log.error("the books do not balance", {
        difference,
        held_found: holdings.rows(),
        ...totals,
      });}
  };

  return {
    text() {
      checkBooks();
      return registry.metrics();
    },
  };
}

/** User and system time that this process has used so far. */
function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** Every table of the ledger, zeros included; tables beyond its bound are summed as it does. */
function heldByTable({ ledger, holdings }: PrometheusDeps): Sample[] {
  const held = new Map([...ledger.tableTotals().keys()].map((table) => [table, 0]));
  for (const [name, rows] of holdings.byTable()) {
    const table = ledger.tableLabel(name);
    held.set(table, (held.get(table) ?? 0) + rows);
  }
  return [...held].map(([table, rows]) => [{ table }, rows]);
}

/** Metrics that are read when they are scraped. */
function registrar(registry: Registry) {
  const registers = [registry];
  return {
    counter(name: string, help: string, labelNames: string[], read: () => Sample[]) {
      new Counter({
        name,
        help,
        labelNames,
        registers,
        collect() {
          this.reset();
          for (const [labels, value] of read()) this.inc(labels, value);
        },
      });
    },
    gauge(name: string, help: string, labelNames: string[], read: () => Sample[]) {
      new Gauge({
        name,
        help,
        labelNames,
        registers,
        collect() {
          this.reset();
          // One without labels begins at 0, which is wrong of what cannot be told.
          if (labelNames.length === 0) this.remove();
          for (const [labels, value] of read()) this.set(labels, value);
        },
      });
    },
    histogram(name: string, help: string, source: Histogram) {
      registry.registerMetric(rendered(name, help, source) as unknown as Metric<string>);
    },
    /** A metric without labels. */
    one: (read: () => number) => (): Sample[] => [[{}, read()]],
    /** One that is not there at times: null. */
    perhaps: (read: () => number | null) => (): Sample[] => {
      const value = read();
      return value === null ? [] : [[{}, value]];
    },
  };
}

/** What the registry asks of a metric, answered from the ledger's buckets. */
function rendered(name: string, help: string, source: Histogram) {
  return {
    name,
    help,
    type: "histogram",
    get() {
      let below = 0;
      const buckets = [...source.counts].map((count, at) => {
        below += count;
        const le = source.bounds[at] ?? "+Inf";
        return { metricName: `${name}_bucket`, labels: { le }, value: below };
      });
      const sum = { metricName: `${name}_sum`, labels: {}, value: source.sum };
      const total = { metricName: `${name}_count`, labels: {}, value: source.count };
      return { name, help, type: "histogram", values: [...buckets, sum, total] };
    },
  };
}

// ── The surroundings, which a collector cannot count but depends on: the room on the disk of its data folder,
// and the time at which its certificate ends. Looked at when metrics are asked for, never on the path of a row.

export interface DiskRoom {
  /** That this user may still fill. */
  readonly freeBytes: number;
  readonly sizeBytes: number;
}

interface Surroundings {
  /** Looks at the disk; a disk that hangs is not waited for, and keeps what was seen last. Never rejects. */
  look(): Promise<void>;
  /** As seen last; null: it could not be told. */
  room(): DiskRoom | null;
  /** Epoch seconds; null: there is no certificate, or none that can be read. */
  certificateEndS(): number | null;
}

/** A scrape is given up after 10 s, usually. */
const LOOK_MS = 1000;

/**
 * @param certificate PEM, its own first, as it is served at the moment; null: plain HTTP.
 * @param measure of tests; the system's unless given.
 */
export function createSurroundings(
  { dataDir, certificate, clock, measure = roomOf }: {
    readonly dataDir: string;
    readonly certificate: () => string | null;
    readonly clock: Pick<Clock, "after">;
    readonly measure?: (folder: string) => Promise<DiskRoom>;
  },
): Surroundings {
  let room: DiskRoom | null = null;
  /** One at a time: each that hangs holds a thread. */
  let looking: Promise<void> | null = null;
  let known: { readonly pem: string; readonly endS: number | null } | null = null;

  return {
    async look() {
      looking ??= measure(dataDir)
        .then((found) => void (room = found), () => void (room = null))
        .finally(() => looking = null);
      await within(clock, LOOK_MS, looking, undefined);
    },
    room: () => room,
    certificateEndS() {
      const pem = certificate();
      if (pem === null) return null;
      if (known?.pem !== pem) known = { pem, endS: endOf(pem) };
      return known.endS;
    },
  };
}

async function roomOf(folder: string): Promise<DiskRoom> {
  const { bavail, blocks, bsize } = await statfs(folder);
  return { freeBytes: bavail * bsize, sizeBytes: blocks * bsize };
}

/** `validTo` is written as `Jan 31 12:00:00 2027 GMT`. */
function endOf(pem: string): number | null {
  try {
    const endMs = Date.parse(new (nodeCrypto().X509Certificate)(pem).validTo);
    return Number.isNaN(endMs) ? null : endMs / 1000;
  } catch {
    return null;
  }
}

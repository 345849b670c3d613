/**
 * The room put together: endpoints in, one `Sink` and one `Tables` out. Between them lie, from the
 * outside in: isolation of bad rows, counting, failover, one attempt at one server. The servers, from
 * failover inwards, can be replaced while all above goes on: how far a batch has got is kept there.
 */

import { nodeUtil } from "../kernel/builtins.ts";
import type {
  Answered,
  Ask,
  Clock,
  Endpoint,
  Inserter,
  InsertSetting,
  JudgeRows,
  KeyRule,
  Ledger,
  Log,
  Sink,
  TableMaker,
  Tables,
} from "../contracts.ts";
import { createInserter } from "./clickhouse.ts";
import { createFailover, type Node } from "./failover.ts";
import type { FittingTools } from "./fitting.ts";
import { createPost, type Fetch } from "../kernel/http.ts";
import { done } from "../kernel/result.ts";
import { createPins } from "./pins.ts";
import { createQuery, type Query, tooOld } from "./query.ts";
import { createSink, type Largest } from "./sink.ts";
import { createMaker, type TableChange } from "./maker.ts";
import { createTables } from "./plan.ts";
import { isTooOld } from "./verdict.ts";

export interface DeliverSettings {
  /** At least one, in order of preference; all with the same database. */
  readonly endpoints: readonly Endpoint[];
  readonly eventsTable: string;
  /** Create the table of events when an INSERT misses it. */
  readonly createTable: boolean;
  /** Of one attempt, body and answer included. */
  readonly insertTimeoutMs: number;
  /** `auto`: unless the server is on this host. */
  readonly compress: "auto" | "gzip" | "none";
  /** What INSERTs carry besides what they rely on. */
  readonly insertSettings: readonly InsertSetting[];
  /** As of `MakerSettings`. */
  readonly createTables?: readonly string[];
  readonly unknownKeys?: readonly KeyRule[];
  readonly maxNewColumns?: number;
  readonly widen?: boolean;
  readonly cluster?: string | null;
}

export interface Deliver {
  readonly sink: Sink;
  readonly tables: Tables;
  readonly maker: TableMaker;
  /** For questions of the program itself (`check`, reading events). */
  readonly query: Query;
  /** Questions about stored events. */
  readonly ask: Ask;
  /** The raw INSERT, without isolation. */
  readonly inserter: Inserter;
  /** Creates the table of events where that is wanted; never rejects. */
  prepare(): Promise<Answered<null>>;
  /**
   * From the next INSERT and question on; what is under way ends where it began.
   * @returns false where nothing differs.
   */
  adopt(settings: DeliverSettings): boolean;
  /** Stops pings and look-ups; INSERTs under way are ended by their own signal. */
  close(): Promise<void>;
}

const MAX_NEW_COLUMNS = 100;
/** Of DDL and look-ups. */
const QUERY_TIMEOUT_MS = 5_000;
/** Of a ping; also the bound of how long `check` waits for a dead host. */
const PING_TIMEOUT_MS = 2_000;
/** Of a question; its own signal ends it sooner. */
const ASK_TIMEOUT_MS = 15_000;

/** `fetch` must not pool connections where that means sending a POST twice. */
export function createDeliver(
  settings: DeliverSettings,
  tools: {
    readonly fetch: Fetch;
    readonly clock: Clock;
    readonly log: Log;
    /** Counts every INSERT; an attempt at several servers is one. */
    readonly ledger?:
      & Pick<Ledger, "insert" | "insertError">
      & Partial<Pick<Ledger, "insertTimeout">>;
    /** A table has been made, or has been given columns. */
    readonly onTableChange?: (change: TableChange) => void;
    /** What one INSERT may have at most; of whatever is held. No bounds unless given. */
    readonly largest?: () => Largest;
    /** Holds rows against columns that they were not checked against; null or absent: ClickHouse does. */
    readonly judge?: () => JudgeRows | null;
    /** As of `FittingTools`. */
    readonly eventTypes?: FittingTools["eventTypes"];
  },
): Deliver {
  const { clock, log } = tools;
  const post = createPost({ fetch: tools.fetch, clock });

  /** Tables whose INSERTs get longer than `insertTimeoutMs`. */
  const patient = new Set<string>();

  function connect(settings: DeliverSettings) {
    const { insertTimeoutMs, eventsTable, compress, insertSettings } = settings;
    const nodes = settings.endpoints.map((endpoint): Node => {
      const pins = createPins({ endpoint, post, clock });
      const query = createQuery({ endpoint, post, clock, pins, timeoutMs: QUERY_TIMEOUT_MS });
      const pinger = createQuery({ endpoint, post, clock, pins, timeoutMs: PING_TIMEOUT_MS });
      return {
        label: endpoint.label,
        query: { ...query, ping: pinger.ping },
        ask: createQuery({ endpoint, post, clock, pins, timeoutMs: ASK_TIMEOUT_MS }).ask,
        inserter: createInserter({
          ...{ endpoint, post, pins, clock, log },
          ...{ insertTimeoutMs, compress, insertSettings },
          query: { ...query, ping: pinger.ping },
          onTimeout(table, ms) {
            if (ms === null) patient.delete(table);
            else patient.add(table);
            tools.ledger?.insertTimeout?.(table, ms);
          },
        }),
      };
    });
    const first = settings.endpoints[0];
    if (first === undefined) throw new Error("no ClickHouse endpoint");
    const failover = createFailover({ nodes, clock, log });
    // A table that one replica lacks may be on another.
    const query = { ...failover.query, rows: failover.found };
    const tables = createTables({ query, database: first.database, eventsTable, clock, log });
    const maker = createMaker({
      query,
      ask: failover.ask,
      plans: tables,
      endpoint: first,
      clock,
      log,
      createTables: settings.createTables ?? [],
      unknownKeys: settings.unknownKeys ?? [],
      maxNewColumns: settings.maxNewColumns ?? MAX_NEW_COLUMNS,
      widen: settings.widen ?? false,
      cluster: settings.cluster ?? null,
      ...(tools.onTableChange ? { onChange: tools.onTableChange } : {}),
    });
    return { settings, failover, tables, maker };
  }

  let servers = connect(settings);
  const inserter: Inserter = {
    insert: (request, signal) => servers.failover.inserter.insert(request, signal),
    sieve: (request, signal) => servers.failover.inserter.sieve(request, signal),
    judgeOf: (table, view, code, signal) =>
      servers.failover.inserter.judgeOf!(table, view, code, signal),
  };
  const query: Query = {
    rows: (sql, signal) => servers.failover.query.rows(sql, signal),
    word: (sql, signal) => servers.failover.query.word(sql, signal),
    command: (sql, signal) => servers.failover.query.command(sql, signal),
    ping: (signal) => servers.failover.query.ping(signal),
  };
  const tables: Tables = {
    columns: (table) => servers.tables.columns(table),
    lookUp: (table, waitMs) => servers.tables.lookUp(table, waitMs),
    refresh: (table, rights) => servers.tables.refresh(table, rights),
    doubt: (table) => servers.tables.doubt(table),
  };
  const maker: TableMaker = {
    makes: (table) => servers.maker.makes(table),
    unknownKeys: (table) => servers.maker.unknownKeys(table),
    make: (table, rows) => servers.maker.make(table, rows),
    extend: (table, keys, rows) => servers.maker.extend(table, keys, rows),
    propose: (table, keys, rows) => servers.maker.propose(table, keys, rows),
    foresee: (...asked) => servers.maker.foresee!(...asked),
    get widens() {
      return servers.maker.widens;
    },
    widen: (table, misfits) => servers.maker.widen(table, misfits),
  };

  async function prepare(): Promise<Answered<null>> {
    const { createTable, eventsTable } = servers.settings;
    if (!createTable) return done(null);
    const prepared = await servers.tables.prepare();
    if (!prepared.ok) log.warn(prepared.problem, { table: eventsTable, code: prepared.code });
    return prepared;
  }

  const sink = createSink({
    inserter: tools.ledger ? metered(inserter, tools.ledger, clock) : inserter,
    tables,
    maker,
    log,
    createEventsTable: async () => servers.settings.createTable && (await prepare()).ok,
    ...(tools.largest && { largest: tools.largest }),
    ...(tools.judge && {
      fitting: {
        judge: tools.judge,
        clock,
        eventTypes: tools.eventTypes ?? (() => null),
        current: (table, withinMs) => servers.tables.current(table, withinMs),
        earlier: (table, fingerprint) => servers.tables.earlier(table, fingerprint),
      },
    }),
  });

  const ask: Ask = async (select, signal) => {
    const { failover, settings: { eventsTable } } = servers;
    const answer = await failover.ask(select, signal);
    if (answer.ok) return answer;
    // 115: it knows no bound values, which it takes for settings.
    if (!isTooOld(answer.code) && answer.code !== 115) return answer;
    return { ...answer, problem: await tooOld(failover.query, eventsTable, signal) };
  };

  return {
    sink,
    tables,
    maker,
    query,
    ask,
    inserter,
    prepare,
    adopt(settings) {
      if (nodeUtil().isDeepStrictEqual(settings, servers.settings)) return false;
      // Look-ups of the tables that are under way may still be answered there.
      servers.failover.close();
      for (const table of patient) tools.ledger?.insertTimeout?.(table, null);
      patient.clear();
      servers = connect(settings);
      void prepare();
      return true;
    },
    async close() {
      servers.failover.close();
      servers.maker.close();
      await servers.tables.close();
    },
  };
}

/** The same, and the ledger counts every INSERT: how long it took, or why it failed. */
function metered(
  inserter: Inserter,
  ledger: Pick<Ledger, "insert" | "insertError">,
  clock: Clock,
): Inserter {
  return {
    async insert(request, signal) {
      const startedMs = clock.monotonicMs();
      const verdict = await inserter.insert(request, signal);
      if (verdict.kind === "stored") {
        if (request.rows === 0) return verdict;
        ledger.insert(request.table, request.rows, clock.monotonicMs() - startedMs);
      } else ledger.insertError(request.table, verdict.code);
      return verdict;
    },
    sieve: (request, signal) => inserter.sieve(request, signal),
    judgeOf: (...asked) => inserter.judgeOf?.(...asked) ?? Promise.resolve(null),
  };
}

/**
 * What is wrong with one ClickHouse: is it there, does it know the user, does its clock agree with this
 * host's, and can its tables take what will be sent? Nothing is written: the INSERTs that try the
 * rights carry no row, and columns of other types than a new table would have are tried by converting a
 * sample.
 */

import type { Clock, Endpoint, InsertSetting, KeyRule, Verdict } from "../contracts.ts";
import { about, type Finding } from "../kernel/finding.ts";
import { createPost, type Fetch } from "../kernel/http.ts";
import { compileGlobs, isTableName, placeOf } from "../kernel/names.ts";
import { createInserter } from "./clickhouse.ts";
import { policyOf } from "./maker.ts";
import { createPins, credentials, type Pins } from "./pins.ts";
import { createTables, namedColumns, type Plans } from "./plan.ts";
import { createQuery, type Query, tooOld } from "./query.ts";
import { describeColumns, quoteName, quoteString, SYNCED } from "./sql.ts";

/** What a collector would send there. */
export interface Wanted {
  /** The table of events, and whether it is made when it is missing. */
  readonly table: string;
  readonly createTable: boolean;
  /** Names or globs of other tables. */
  readonly tables: readonly string[];
  readonly insertSettings: readonly InsertSetting[];
  /** As of `MakerSettings`; absent: no table is changed. */
  readonly createTables?: readonly string[];
  readonly unknownKeys?: readonly KeyRule[];
}

/** Never rejects. */
export async function inspectClickHouse(
  endpoint: Endpoint,
  wanted: Wanted,
  tools: { readonly fetch: Fetch; readonly clock: Clock },
): Promise<Finding[]> {
  const server = connect(endpoint, { ...tools, insertSettings: wanted.insertSettings });
  const { query } = server;
  const { label, database } = endpoint;
  const is = about(`clickhouse ${label}`);
  const answer = await query.rows("SELECT version() AS version");
  if (!answer.ok) return [is.wrong(answer.problem, remedy(answer.code, endpoint))];
  const version = is.ok(String(answer.value[0]?.["version"]));
  if (!await databaseIsThere(server)) {
    const what = `database ${database} on ${label}`;
    return [version, about(what).wrong("not there, or this user may not see it", "create it")];
  }
  const trouble = await server.pins.check();
  // Every INSERT meets it, whatever its table.
  if (trouble !== null) {
    return [
      version,
      ...await inspectClock(server),
      is.wrong(trouble.message, todoAbout(trouble.code)),
    ];
  }
  const [clock, events, others, made] = await Promise.all([
    inspectClock(server),
    inspectEventsTable(server, wanted),
    inspectOtherTables(server, wanted),
    inspectMaking(server, wanted),
  ]);
  return [version, ...clock, ...events, ...others, ...made];
}

/** Of one question. */
const TIMEOUT_MS = 5_000;

/** A ClickHouse to be asked. */
interface Server {
  readonly clock: Clock;
  readonly endpoint: Endpoint;
  readonly query: Query;
  readonly pins: Pins;
  /** What the collector would know of its tables. */
  readonly tables: Pick<Plans, "refresh">;
  /** Sends the very INSERT that the collector sends, without a row: what it needs is tried, nothing stored. */
  tryInsert(
    table: string,
    shape: "event" | "row",
    columns: readonly string[] | null,
  ): Promise<Verdict>;
  /** The answer to a statement that takes no FORMAT, or null where there is none. */
  word(sql: string): Promise<string | null>;
}

function connect(
  endpoint: Endpoint,
  { fetch, clock, insertSettings }: {
    readonly fetch: Fetch;
    readonly clock: Clock;
    readonly insertSettings: readonly InsertSetting[];
  },
): Server {
  const post = createPost({ fetch, clock });
  const pins = createPins({ endpoint, post, clock });
  const query = createQuery({ endpoint, post, clock, pins, timeoutMs: TIMEOUT_MS });
  const inserter = createInserter({
    endpoint,
    post,
    query,
    pins,
    clock,
    insertTimeoutMs: TIMEOUT_MS,
    compress: "none",
    insertSettings,
  });
  const tables = createTables({
    query,
    database: endpoint.database,
    eventsTable: "",
    clock,
    log: { debug() {}, info() {}, warn() {}, error() {} },
  });
  return {
    clock,
    endpoint,
    query,
    pins,
    tables,
    tryInsert: (table, shape, columns) =>
      inserter.insert(
        { table, shape, columns, body: [], rows: 0, token: `check-${crypto.randomUUID()}` },
        new AbortController().signal,
      ),
    async word(sql) {
      const answer = await post({
        method: "POST",
        url: endpoint.url,
        headers: credentials(endpoint),
        body: sql,
        timeoutMs: TIMEOUT_MS,
      });
      const fine = answer.ok && answer.value.status === 200;
      return fine ? new TextDecoder().decode(answer.value.body).trim() : null;
    },
  };
}

async function databaseIsThere({ query, endpoint }: Server): Promise<boolean> {
  const name = quoteString(endpoint.database);
  const found = await query.rows(`SELECT count() AS n FROM system.databases WHERE name = ${name}`);
  return !found.ok || Number(found.value[0]?.["n"]) > 0;
}

const TOLERATED_MS = 1_000;

/**
 * How far a server's clock is from this host's. The collector stamps events that bring no time with its
 * own, and a question for the last minute's events goes by the server's. Nothing where they agree, or
 * cannot be compared.
 */
async function inspectClock(server: Server): Promise<Finding[]> {
  const found = await aheadMs(server, "toUnixTimestamp64Milli(now64(3))", 0) ??
    // A server that knows whole seconds only.
    await aheadMs(server, "toUnixTimestamp(now()) * 1000", 1_000);
  if (found === null) return [];
  const { least, most } = found;
  if (least <= TOLERATED_MS && most >= -TOLERATED_MS) return [];
  const [off, way] = least > 0 ? [least, "ahead of"] : [-most, "behind"];
  return [
    about(`clickhouse ${server.endpoint.label}`).warning(
      `its clock is ${(off / 1000).toFixed(1)} s ${way} this host's`,
      "let both be set by NTP (chronyd, systemd-timesyncd)",
    ),
  ];
}

/** Bounds of how far the server is ahead: its answer was given at some moment between question and answer. */
async function aheadMs(
  { query, clock }: Server,
  expression: string,
  grainMs: number,
): Promise<{ readonly least: number; readonly most: number } | null> {
  const askedMs = clock.nowMs();
  const answer = await query.rows(`SELECT toString(${expression}) AS now_ms`);
  const answeredMs = clock.nowMs();
  const nowMs = answer.ok ? Number(answer.value[0]?.["now_ms"]) : NaN;
  if (!Number.isFinite(nowMs)) return null;
  return { least: nowMs - answeredMs, most: nowMs + grainMs - askedMs };
}

interface Column {
  readonly name: string;
  /** As in the table that the collector makes. */
  readonly type: string;
  /** Of the same use; nothing is lost. */
  readonly alike: RegExp;
  /** A value as an INSERT sends it. */
  readonly sample: string;
}

const STRING = /^(?:LowCardinality\()?(?:Nullable\()?(?:String|FixedString\(\d+\))\)*$/;

const COLUMNS: readonly Column[] = [
  {
    name: "id",
    type: "UUID",
    alike: /^(?:Nullable\()?UUID\)?$|String/,
    sample: "toUUID('0192f0c1-0000-7000-8000-000000000000')",
  },
  {
    name: "timestamp",
    type: "DateTime64(3, 'UTC')",
    alike: /^(?:Nullable\()?DateTime64\([3-9]\b/,
    sample: "toDateTime64('2026-01-01 00:00:00.123', 3, 'UTC')",
  },
  { name: "event_type", type: "LowCardinality(String)", alike: STRING, sample: "'click'" },
  { name: "user_id", type: "String", alike: STRING, sample: "'u1'" },
  {
    name: "properties",
    type: "Map(LowCardinality(String), String)",
    alike: /^Map\((?:LowCardinality\(String\)|String), (?:LowCardinality\(String\)|String)\)$/,
    sample: "map('key', 'value')",
  },
];

/** Is the table behind POST /events there or can be made, and does it hold the columns of an event? */
async function inspectEventsTable(
  server: Server,
  { table, createTable }: Wanted,
): Promise<Finding[]> {
  const { query, endpoint } = server;
  const is = about(`table ${table} on ${endpoint.label}`);
  if (!isTableName(table)) return [is.wrong("no name for a table")];
  const described = await query.rows(describeColumns(endpoint.database, table));
  if (!described.ok) {
    return [is.wrong(described.problem, remedy(described.code, endpoint))];
  }
  const maps = await query.rows(
    "SELECT count() AS n FROM system.data_type_families WHERE name = 'Map'",
  );
  if (maps.ok && Number(maps.value[0]?.["n"]) === 0) {
    return [is.wrong(await tooOld(query, table), "upgrade it, or set tables and post to those")];
  }
  if (described.value.length === 0) return [await missing(server, table, createTable)];

  const columns = new Map(described.value.map((row) => [String(row["name"]), row]));
  const lacking = COLUMNS.filter(({ name }) => !columns.has(name));
  if (lacking.length > 0) {
    const add = lacking.map(({ name, type }) => `ADD COLUMN ${name} ${type}`).join(", ");
    const names = lacking.map(({ name }) => name).join(", ");
    return [is.wrong(`lacks ${names}`, `ALTER TABLE ${named(server, table)} ${add}`)];
  }
  const unfit = await Promise.all(COLUMNS.map((column) => {
    const row = columns.get(column.name)!;
    return judge(server, table, column, String(row["type"]), String(row["default_kind"]));
  }));
  return [...unfit.flat(), ...await insertable(server, table, "event")];
}

async function missing(server: Server, table: string, create: boolean): Promise<Finding> {
  const is = about(`table ${table} on ${server.endpoint.label}`);
  if (!create) return is.wrong("not there", "create it, or set create-table");
  const rights = ["CREATE TABLE", "INSERT"];
  const may = await Promise.all(rights.map((right) => mayI(server, right, table)));
  const none = rights.filter((_, at) => may[at] === false);
  if (none.length > 0) {
    return is.wrong(
      `not there, and this user has no right to ${none.join(" and ")}`,
      grant(server, none.join(", "), table),
    );
  }
  return is.ok(
    `not there; will be created${may.includes(null) ? ", if this user has the right to" : ""}`,
  );
}

/** What is wrong with a column that is there; nothing where it takes what is sent. */
async function judge(
  server: Server,
  table: string,
  { name, type, alike, sample }: Column,
  found: string,
  kind: string,
): Promise<Finding[]> {
  const is = about(`table ${table} on ${server.endpoint.label}`);
  const modify = `ALTER TABLE ${named(server, table)} MODIFY COLUMN ${name} ${type}`;
  if (kind === "MATERIALIZED" || kind === "ALIAS") {
    return [is.wrong(`${name} is ${kind}: no INSERT may give it`, modify)];
  }
  if (alike.test(found)) return [];
  const cast = await server.query.rows(
    `SELECT toString(CAST(${sample}, ${quoteString(found)})) AS kept`,
  );
  const what = `${name} is ${found}, not ${type}`;
  if (!cast.ok) {
    // A text may fit all the same: a number for a number, a known word for an Enum.
    return sample.startsWith("'")
      ? [is.warning(`${what}: rows whose text does not fit become dead letters`, modify)]
      : [is.wrong(`${what}: ${cast.problem}`, modify)];
  }
  return name === "timestamp" && !String(cast.value[0]?.["kept"]).includes(".123")
    ? [is.warning(`${what}: milliseconds are lost`, modify)]
    : [];
}

/** Tables that are looked at; a glob may match any number. */
const MOST = 20;

/** Each table of a source or behind POST /events/TABLE that is named must be there, each that is there take rows. */
async function inspectOtherTables(
  server: Server,
  { table: eventsTable, tables: globs, createTables = [], unknownKeys = [] }: Wanted,
): Promise<Finding[]> {
  if (globs.length === 0) return [];
  const { query, endpoint } = server;
  const listed = await query.rows(
    `SELECT database, name FROM system.tables WHERE ${
      globs.some((glob) => placeOf(glob).database !== null)
        ? "1"
        : `database = ${quoteString(endpoint.database)}`
    }`,
  );
  if (!listed.ok) {
    return [about(`tables on ${endpoint.label}`).wrong(listed.problem)];
  }
  const names = listed.value.map(({ database, name }) =>
    database === endpoint.database ? String(name) : `${database}.${name}`
  ).sort();
  const allows = compileGlobs(globs);
  const found = names.filter((name) => allows(name) && name !== eventsTable);
  const findings: Finding[] = [];
  const making = compileGlobs(createTables);
  const makes = (glob: string) => createTables.includes(glob) || making(glob);
  for (const glob of globs) {
    const matches = compileGlobs([glob]);
    if (names.some(matches) || glob === eventsTable || makes(glob)) continue;
    findings.push(
      /[*?]/.test(glob)
        ? about(`tables ${glob} on ${endpoint.label}`).warning("no table matches")
        : about(`table ${glob} on ${endpoint.label}`).wrong(
          "not there, or this user may not see it",
          "create it: only the table of events is made by itself",
        ),
    );
  }
  const looked = await Promise.all(
    found.slice(0, MOST).map((name) => insertable(server, name, "row")),
  );
  findings.push(...looked.flat());
  const policy = policyOf(unknownKeys);
  const widened = found.slice(0, MOST).filter((name) => /column|keep/.test(policy(name)));
  findings.push(...(await Promise.all(widened.map((name) => extensible(server, name)))).flat());
  if (found.length > MOST) {
    findings.push(
      about(`tables on ${endpoint.label}`).ok(`${found.length - MOST} more were not looked at`),
    );
  }
  return findings;
}

/** Whether a table may be given columns for unknown keys. */
async function extensible(server: Server, table: string): Promise<Finding[]> {
  const right = "ALTER ADD COLUMN";
  if (await mayI(server, right, table) !== false) return [];
  return [
    about(`unknown-keys of ${table} on ${server.endpoint.label}`).wrong(
      "the user may not add columns",
      grant(server, right, table),
    ),
  ];
}

/** Whether tables can be made of their first rows: types found in them, and the right to create. */
async function inspectMaking(
  server: Server,
  { createTables = [], unknownKeys = [] }: Wanted,
): Promise<Finding[]> {
  const widens = unknownKeys.some(({ policy }) => policy === "column");
  if (createTables.length === 0 && !widens) return [];
  const { query, endpoint } = server;
  const what = createTables.length > 0 ? "create-tables" : "unknown-keys";
  const is = about(`${what} on ${endpoint.label}`);
  const sample = quoteString('{"a":1}');
  const found = await query.rows(`DESCRIBE TABLE format(JSONEachRow, ${sample})`);
  if (!found.ok) {
    return [is.wrong(`this server finds no types in rows: ${found.problem}`, "use 22.10 or newer")];
  }
  const databases = new Set(
    createTables.map((glob) => placeOf(glob).database ?? endpoint.database),
  );
  const findings = await Promise.all([...databases].map(async (database): Promise<Finding> => {
    const place = `${plainOrQuoted(database)}.*`;
    return await server.word(`CHECK GRANT CREATE TABLE ON ${place}`) === "0"
      ? is.wrong(
        `the user may not create tables in ${database}`,
        `GRANT CREATE TABLE ON ${place} TO ${userOf(server)}`,
      )
      : is.ok(`tables can be made in ${database}`);
  }));
  return findings;
}

const TWICE = "a retry can store a batch twice";
const WINDOW = 1000;

/**
 * May the user insert into a table that is there, and does a retry store a batch twice? One line for what
 * works, one for each thing that does not.
 */
async function insertable(
  server: Server,
  table: string,
  shape: "event" | "row",
): Promise<Finding[]> {
  const { endpoint } = server;
  const is = about(`table ${table} on ${endpoint.label}`);
  const plan = await server.tables.refresh(table);
  const known = typeof plan === "string" ? null : plan;
  if (known !== null && known.takesNone !== null) {
    const { why, reason } = known.takesNone;
    return [is.wrong(reason, why === "right" ? rightTo(server, table, known.engine) : undefined)];
  }
  const columns = known === null || shape === "event" ? null : namedColumns(known, known.names);
  const verdict = await server.tryInsert(table, shape, columns);
  if (verdict.kind !== "stored") {
    const todo = verdict.message.startsWith("insert-settings: ")
      ? "correct insert-settings"
      : verdict.code === 497 && /INSERT/.test(verdict.message)
      ? grant(server, "INSERT", table)
      : remedy(verdict.code, endpoint);
    return [is.wrong(`an INSERT is refused: ${verdict.message}`, todo)];
  }
  const lacking = [...known?.closed.values() ?? []].some(({ why }) => why === "right");
  const takes = shape === "event"
    ? "takes events"
    : lacking
    ? `takes rows with ${columns?.join(", ")} alone: there is no right to the others`
    : "takes rows";
  const { rows, trouble, todo } = await windowOf(server, table);
  const window = trouble === undefined
    ? [is.ok(`${takes}; deduplication window ${rows}`)]
    : [is.ok(takes), is.warning(`${trouble}: ${TWICE}`, todo)];
  return await isSynced(server, table) ? window : [
    ...window,
    is.warning(
      "fsync_after_insert is 0: a power cut on its host can take rows that are stored",
      `ALTER TABLE ${named(server, table)} MODIFY SETTING ${SYNCED}`,
    ),
  ];
}

/** False for a table that could sync what it stores and does not. Of a replicated one others have the rows. */
async function isSynced(server: Server, name: string): Promise<boolean> {
  const { database = null, table } = placeOf(name);
  const { query, endpoint } = server;
  const described = await query.rows(
    `SELECT engine, engine_full FROM system.tables WHERE database = ${
      quoteString(database ?? endpoint.database)
    } AND name = ${quoteString(table)}`,
  );
  const { engine = "", engine_full = "" } = described.ok ? described.value[0] ?? {} : {};
  if (!/^(?!Replicated|Shared)\w*MergeTree$/.test(String(engine))) return true;
  const own = /\bfsync_after_insert = '?(\d+|true|false)/.exec(String(engine_full))?.[1];
  const synced = own ?? await defaultOf(server, "fsync_after_insert");
  return synced === null || synced === "unseen" || !["0", "false"].includes(String(synced));
}

interface Window {
  readonly rows: number;
  readonly trouble?: string;
  readonly todo?: string;
}

/** How many INSERTs the table remembers. */
async function windowOf(server: Server, table: string): Promise<Window> {
  const place = placeOf(table);
  const { query, endpoint } = server;
  const described = await query.rows(
    `SELECT * FROM system.tables WHERE database = ${
      quoteString(place.database ?? endpoint.database)
    } AND name = ${quoteString(place.table)}`,
  );
  if (!described.ok) return { rows: 0, trouble: `it cannot be seen (${described.problem})` };
  const { engine = "", engine_full = "" } = described.value[0] ?? {};
  if (!String(engine).endsWith("MergeTree")) {
    return { rows: 0, trouble: `engine ${engine} has no deduplication window of its own` };
  }
  const replicated = /^(?:Replicated|Shared)/.test(String(engine));
  const setting = `${replicated ? "" : "non_"}replicated_deduplication_window`;
  const own = new RegExp(`\\b(?<!non_)${setting} = '?(\\d+)`).exec(String(engine_full))?.[1];
  const rows = own === undefined ? await defaultOf(server, setting) : Number(own);
  if (rows === "unseen") {
    return {
      rows: 0,
      trouble: "how many INSERTs it remembers cannot be seen",
      todo: `GRANT SELECT ON system.merge_tree_settings TO ${userOf(server)}`,
    };
  }
  if (rows === null) {
    // Servers from before that setting remember INSERTs into replicated tables, and of those alone.
    return replicated ? { rows: 100 } : {
      rows: 0,
      trouble: "this server remembers no INSERTs into a table that is not replicated",
    };
  }
  if (rows > 0) return { rows };
  return {
    rows,
    trouble: `${setting} is 0`,
    todo: `ALTER TABLE ${named(server, table)} MODIFY SETTING ${setting} = ${WINDOW}`,
  };
}

/** Null: this server has no such setting. `unseen`: the user may not ask. */
async function defaultOf(
  { query }: Server,
  setting: string,
): Promise<number | null | "unseen"> {
  const answer = await query.rows(
    `SELECT value FROM system.merge_tree_settings WHERE name = ${quoteString(setting)}`,
  );
  if (!answer.ok) return "unseen";
  const value = answer.value[0]?.["value"];
  return value === undefined ? null : Number(value);
}

/** `db`.`table` for a statement that a person is told to run; quoted only where it must be. */
function named({ endpoint }: Server, name: string): string {
  const { database, table } = placeOf(name);
  return `${plainOrQuoted(database ?? endpoint.database)}.${plainOrQuoted(table)}`;
}

function plainOrQuoted(name: string): string {
  return /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) ? name : quoteName(name);
}

/** Whether this user may do it; null where the server does not tell. */
async function mayI(server: Server, right: string, table: string): Promise<boolean | null> {
  const answer = await server.word(`CHECK GRANT ${right} ON ${named(server, table)}`);
  return answer === "1" ? true : answer === "0" ? false : null;
}

/** What lets rows in that the user may not write. @param engine null: not known, since it may only read. */
function rightTo(server: Server, table: string, engine: string | null): string | undefined {
  return engine === null ? remedy(164, server.endpoint) : grant(server, "INSERT", table);
}

/** The statement that gives the right. */
function grant(server: Server, right: string, table: string): string {
  return `GRANT ${right} ON ${named(server, table)} TO ${userOf(server)}`;
}

function userOf({ endpoint }: Server): string {
  return plainOrQuoted(endpoint.user || "default");
}

/** What to do about settings that do not arrive, or must not be set. */
function todoAbout(code: number): string {
  return code === 452
    ? "give this user a profile without that constraint"
    : "let the proxy pass on every parameter, or set clickhouse-url to ClickHouse itself";
}

/** What to do about a refusal that has nothing to do with a table; undefined where its words say it. */
function remedy(code: number, { user }: Endpoint): string | undefined {
  if ([192, 193, 194, 516].includes(code)) {
    return `correct user (${user || "default"}) and password in clickhouse-url`;
  }
  if (code === 164) return "give this user a profile that may write (readonly = 0)";
  if (code === 0) return "start it, or correct clickhouse-url (the HTTP port, 8123 or 8443)";
  return undefined;
}

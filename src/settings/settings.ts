/**
 * The settings as the rest of the program sees them, and the one function that makes them. What it
 * answers is either complete and frozen, or every problem at once; it has no other effect than reading
 * the files that the settings name.
 */

import { hostname } from "node:os";
import type {
  Endpoint,
  ExitAddress,
  InsertSetting,
  KeyRule,
  SourceAddress,
  WriteToken,
} from "../contracts.ts";
import type { Network } from "../kernel/address.ts";
import type { Rate } from "../kernel/rate.ts";
import { failed, type Result } from "../kernel/result.ts";
import { crossProblems, type TlsFiles, warningsAbout } from "./checks.ts";
import type { ListenAddress, ListenPath } from "./kinds.ts";
import { type Outside, readSettings, readText } from "./load.ts";
import { filesOf } from "./source_urls.ts";
import { quote, type SettingSpec, type ValuesOf } from "./spec.ts";
import { type SettingName, TABLE } from "./table.ts";

type Values = ValuesOf<typeof TABLE>;

/** One way to authenticate with NATS. */
export type NatsAuth =
  | { readonly kind: "none" }
  /** `creds` is the text of the file. */
  | { readonly kind: "creds"; readonly file: string; readonly creds: string }
  | { readonly kind: "nkey"; readonly seed: string }
  | { readonly kind: "user"; readonly user: string; readonly password: string }
  | { readonly kind: "token"; readonly token: string };

/** Deep frozen. Holds secrets: never log it whole. */
export interface Settings {
  /** At least one. */
  readonly listen: readonly (ListenAddress | ListenPath)[];
  /** Empty = everything is served where events are taken. */
  readonly adminListen: readonly (ListenAddress | ListenPath)[];
  /** Empty = no token is asked for. */
  readonly authTokens: readonly string[];
  /** That may only append; hashed. */
  readonly writeTokens: readonly WriteToken[];
  readonly tls: TlsFiles | null;
  /** The text of `ca-file`. */
  readonly authorities: string | null;
  /** Lower case, without a path; `*` = any. */
  readonly corsOrigins: readonly string[];
  /** Events may stand in an address: `GET /events?eventType=…`. */
  readonly pixel: boolean;
  /** `null` = off. */
  readonly rateLimit: Rate | null;
  /** `unix`: every client of a socket in the file system. */
  readonly trustedProxies: readonly (Network | "unix")[];
  readonly maxBodyBytes: number;
  readonly idleTimeoutMs: number;
  /** Other collectors may listen on the same address. */
  readonly sharePort: boolean;
  /** At least one. */
  readonly clickhouse: readonly Endpoint[];
  readonly table: string;
  readonly createTable: boolean;
  /** Names or globs with `*` and `?`; those of `createTables` are among them. */
  readonly tables: readonly string[];
  readonly createTables: readonly string[];
  readonly unknownKeys: readonly KeyRule[];
  /** Of one table. */
  readonly maxNewColumns: number;
  readonly widen: boolean;
  readonly cluster: string | null;
  readonly typeCheck: Values["type-check"];
  /** Times of events that are taken; null: any. */
  readonly eventWindow: { readonly maxAgeMs: number | null; readonly maxSkewMs: number | null };
  readonly concurrency: number;
  readonly insertTimeoutMs: number;
  readonly compress: "auto" | "gzip" | "none";
  readonly insertSettings: readonly InsertSetting[];
  /** Rows; at most `backlog`. */
  readonly maxBlockSize: number;
  /** At most `backlogBytes`. */
  readonly maxBlockBytes: number;
  readonly flushIntervalMs: number;
  /** `null` = off. */
  readonly idleIntervalMs: number | null;
  readonly ack: Values["ack"];
  /** Rows. */
  readonly backlog: number;
  readonly backlogBytes: number;
  /** From 0 to 1. */
  readonly tableShare: number;
  readonly shutdownTimeoutMs: number;
  readonly drainDelayMs: number;
  /** How long a key of a write is remembered. */
  readonly idempotencyWindowMs: number;
  /** As given: may be relative to the current folder. */
  readonly dataDir: string;
  readonly spoolMaxBytes: number;
  /** Of all tables together. */
  readonly deadMaxBytes: number;
  /** Each has a name of its own. */
  readonly sources: readonly SourceAddress[];
  readonly exits: readonly ExitAddress[];
  /** What is in the files that sources and exits name, by path. Read again where it is used. */
  readonly sourceFiles: Readonly<Record<string, string>>;
  /** `null` = no mirror. An empty user = no authentication. */
  readonly influx: Endpoint | null;
  readonly influxIntervalMs: number;
  /** `null` = no remote control. */
  readonly nats: {
    readonly servers: readonly string[];
    readonly subject: string;
    readonly auth: NatsAuth;
  } | null;
  /** Of commands over NATS and of exits; `null` = they need no signature. */
  readonly controlSecret: string | null;
  readonly group: string;
  readonly id: string;
  readonly logLevel: Values["log-level"];
  readonly logFormat: Values["log-format"];
}

/** All that settings were made of; what a reload compares with. Holds secrets. */
export interface Snapshot {
  readonly values: Values;
  /** The same as text for people, `***` for a secret. */
  readonly shown: ReadonlyMap<string, string>;
  /** What is in the files that settings name, by setting. */
  readonly texts: ReadonlyMap<string, string>;
}

export interface LoadOptions<E extends readonly SettingSpec[] = readonly []>
  extends Omit<Outside, "hostname"> {
  /** Default for `id`; the host's own name unless given. */
  readonly hostname?: () => string;
  /**
   * The settings that this command takes (`config` always is one); all unless given. The rest
   * keep their defaults: a flag of theirs is refused, a variable or key of theirs is passed over.
   */
  readonly only?: readonly SettingName[];
  /** Flags of this command alone, without variable or key. */
  readonly extra?: E;
}

export type Loaded<E extends readonly SettingSpec[] = readonly []> =
  | {
    readonly ok: true;
    readonly settings: Settings;
    readonly snapshot: Snapshot;
    /** The values of `LoadOptions.extra`, by name. */
    readonly extra: ValuesOf<E>;
    /** One line each, without secrets. */
    readonly warnings: readonly string[];
  }
  | {
    readonly ok: false;
    /** One line each, without secrets: where it came from, what was found, what was wanted. */
    readonly problems: readonly string[];
  };

/** Reads the settings from flags, environment and file. Never throws for anything that was given. */
export function loadSettings<const E extends readonly SettingSpec[] = readonly []>(
  options: LoadOptions<E>,
): Loaded<E> {
  const outside: Outside = { ...options, hostname: options.hostname ?? hostname };
  const only = options.only;
  const used = TABLE.filter(({ name }) => !only || name === "config" || only.includes(name));
  const extra = options.extra ?? [];
  const read = readSettings(used, extra, TABLE, outside);
  const values = Object.fromEntries(
    TABLE.map(({ name }) => [name, read.values.get(name)]),
  ) as Values;
  const problems = [...read.problems, ...crossProblems(values, read)];

  const texts = new Map<string, string>();
  for (const name of FILES) {
    const label = read.labels.get(name);
    if (label === undefined) continue;
    const content = readFileOf(name, values, outside);
    if (content.ok) texts.set(name, content.value);
    else problems.push(`${label}: ${content.problem}`);
  }
  for (const name of URLS) {
    const files = readFilesOf(values[name] ?? [], outside);
    const label = read.labels.get(name) ?? name;
    problems.push(...files.problems.map((problem) => `${label}: ${problem}`));
    if (files.texts !== "{}") texts.set(name, files.texts);
  }
  if (problems.length > 0) return { ok: false, problems };

  const snapshot = { values, shown: read.shown, texts };
  const extras = Object.fromEntries(extra.map(({ name }) => [name, read.values.get(name)]));
  return {
    ok: true,
    settings: settingsOf(snapshot),
    snapshot,
    extra: deepFreeze(extras) as ValuesOf<E>,
    warnings: warningsAbout(values, read),
  };
}

const FILES = ["tls-cert", "tls-key", "tls-client-ca", "ca-file", "nats-creds"] as const;
/** Settings whose URLs name files. */
const URLS = ["sources", "exits"] as const;
const FILE_MARKS = {
  "tls-cert": ["-----BEGIN CERTIFICATE", "a PEM file with a certificate"],
  "tls-client-ca": ["-----BEGIN CERTIFICATE", "a PEM file with certificates"],
  "ca-file": ["-----BEGIN CERTIFICATE", "a PEM file with certificates"],
  "tls-key": ["PRIVATE KEY-----", "a PEM file with a private key"],
  "nats-creds": ["-----BEGIN", "a NATS .creds file"],
} as const;

/** Read at once, so that a wrong path is reported with the other problems and not at the first use. */
function readFileOf(
  name: keyof typeof FILE_MARKS,
  values: Values,
  outside: Outside,
): Result<string> {
  const path = values[name] ?? "";
  const content = readText(path, outside);
  const [mark, wanted] = FILE_MARKS[name];
  if (content.ok && content.value.includes(mark)) return content;
  const why = content.ok ? "with something else in it" : `(${content.problem})`;
  return failed(`expected ${wanted}, got ${quote(path)} ${why}`);
}

/** As above, of what URLs name; `texts` is JSON, by path. */
function readFilesOf(addresses: readonly (SourceAddress | ExitAddress)[], outside: Outside) {
  const texts: Record<string, string> = {};
  const problems: string[] = [];
  for (const address of addresses) {
    for (const [parameter, path] of filesOf(address)) {
      const content = readText(path, outside);
      if (content.ok) texts[path] = content.value;
      else {
        const found = `${quote(path)} (${content.problem})`;
        problems.push(`${address.name}: ${parameter}: expected a readable file, got ${found}`);
      }
    }
  }
  return { texts: JSON.stringify(texts), problems };
}

/** Deep frozen. */
export function settingsOf({ values, texts }: Snapshot): Settings {
  return deepFreeze(assemble(values, texts));
}

function assemble(values: Values, texts: ReadonlyMap<string, string>): Settings {
  const servers = values["nats-url"];
  return {
    listen: values.listen,
    adminListen: values["admin-listen"] ?? [],
    authTokens: values["auth-tokens"] ?? [],
    writeTokens: values["write-tokens"] ?? [],
    tls: tlsFiles(values, texts),
    authorities: texts.get("ca-file") ?? null,
    corsOrigins: values["cors-origins"] ?? [],
    pixel: values["pixel"],
    rateLimit: values["rate-limit"],
    trustedProxies: values["trusted-proxies"] ?? [],
    maxBodyBytes: values["max-body-bytes"],
    idleTimeoutMs: values["idle-timeout"],
    sharePort: values["share-port"],
    clickhouse: endpointsOf(values),
    table: values.table,
    createTable: values["create-table"],
    tables: [...new Set([...values.tables ?? [], ...values["create-tables"] ?? []])],
    createTables: values["create-tables"] ?? [],
    unknownKeys: values["unknown-keys"],
    maxNewColumns: values["max-new-columns"],
    widen: values.widen,
    cluster: values.cluster,
    typeCheck: values["type-check"],
    eventWindow: { maxAgeMs: values["max-event-age"], maxSkewMs: values["max-event-skew"] },
    concurrency: values.concurrency,
    insertTimeoutMs: values["insert-timeout"],
    compress: values["compress"],
    insertSettings: values["insert-settings"] ?? [],
    // A small backlog alone is a sound wish: the default block gives way to it.
    maxBlockSize: Math.min(values["max-block-size"], values.backlog),
    maxBlockBytes: Math.min(values["max-block-bytes"], values["backlog-bytes"]),
    flushIntervalMs: values["flush-interval"],
    idleIntervalMs: values["idle-interval"],
    ack: values.ack,
    backlog: values.backlog,
    backlogBytes: values["backlog-bytes"],
    tableShare: values["table-share"],
    shutdownTimeoutMs: values["shutdown-timeout"],
    drainDelayMs: values["drain-delay"],
    idempotencyWindowMs: values["idempotency-window"],
    dataDir: values["data-dir"],
    spoolMaxBytes: values["spool-max-bytes"],
    deadMaxBytes: values["dead-max-bytes"],
    sources: values.sources ?? [],
    exits: values.exits ?? [],
    sourceFiles: Object.assign({}, ...URLS.map((name) => JSON.parse(texts.get(name) ?? "{}"))),
    influx: values["influx-url"],
    influxIntervalMs: values["influx-interval"],
    nats: servers && {
      servers,
      subject: values["nats-subject"],
      auth: natsAuth(values, texts.get("nats-creds") ?? ""),
    },
    controlSecret: values["control-secret"],
    group: values.group,
    id: values.id,
    logLevel: values["log-level"],
    logFormat: values["log-format"],
  };
}

function endpointsOf(values: Values): readonly Endpoint[] {
  const given = values["clickhouse-headers"];
  if (given === null) return values["clickhouse-url"];
  const headers = Object.fromEntries(given);
  return values["clickhouse-url"].map((endpoint) => ({ ...endpoint, headers }));
}

function tlsFiles(values: Values, texts: ReadonlyMap<string, string>): TlsFiles | null {
  const certFile = values["tls-cert"];
  const keyFile = values["tls-key"];
  if (certFile === null || keyFile === null) return null;
  const caFile = values["tls-client-ca"];
  const auth = values["tls-client-auth"];
  return {
    certFile,
    keyFile,
    cert: texts.get("tls-cert") ?? "",
    key: texts.get("tls-key") ?? "",
    clients: auth === "off" || caFile === null
      ? null
      : { caFile, ca: texts.get("tls-client-ca") ?? "", required: auth === "required" },
  };
}

function natsAuth(values: Values, creds: string): NatsAuth {
  const file = values["nats-creds"];
  const seed = values["nats-nkey"];
  const user = values["nats-user"];
  const token = values["nats-token"];
  if (file !== null) return { kind: "creds", file, creds };
  if (seed !== null) return { kind: "nkey", seed };
  if (user !== null) return { kind: "user", user, password: values["nats-password"] ?? "" };
  if (token !== null) return { kind: "token", token };
  return { kind: "none" };
}

function deepFreeze<T>(value: T): T {
  if (typeof value !== "object" || value === null) return value;
  for (const part of Object.values(value)) deepFreeze(part);
  return Object.freeze(value);
}

export type { Endpoint, ListenAddress, ListenPath, SettingName, SettingSpec, ValuesOf };

/**
 * The URLs of `sources` and `exits`: one table of schemes and one of parameters, from which a plain object
 * is read, or everything that is wrong with a URL at once.
 *
 * A URL is the one that the broker's own tools take; what is read of it stands in the query, since the path
 * is taken: in AMQP it is the vhost, in Redis the number of a database. Kafka has neither, so there it may
 * be the topic.
 *
 * A URL may hold a password, and a wrong one may hold it anywhere: a message shows only what has been taken
 * apart with certainty, by its parameters' names, and values where they are of parameters that have no secret.
 */

import type {
  BrokerAddress,
  BrokerHost,
  BrokerKind,
  ExitAddress,
  ExitKind,
  MetaColumn,
  NatsLogin,
  Secret,
  SourceAddress,
  SourceOptions,
} from "../contracts.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { hint } from "../kernel/text.ts";
import { boolean, count, duration, linesOf, matching, oneOf, tableName, text } from "./kinds.ts";
import { type Checked, type Kind, type Parsed, quote, wrong } from "./spec.ts";

// ── The table.

/** A scheme: whose URL it is, whether it asks for TLS, and the port where none is given. */
interface Scheme {
  readonly broker: BrokerKind;
  readonly tls: boolean;
  readonly port: number;
}

const SCHEMES: Readonly<Record<string, Scheme>> = {
  "kafka": { broker: "kafka", tls: false, port: 9092 },
  "kafkas": { broker: "kafka", tls: true, port: 9093 },
  "kafka+ssl": { broker: "kafka", tls: true, port: 9093 },
  "nats": { broker: "nats", tls: false, port: 4222 },
  "tls": { broker: "nats", tls: true, port: 4222 },
  "ws": { broker: "nats", tls: false, port: 80 },
  "wss": { broker: "nats", tls: true, port: 443 },
  "amqp": { broker: "amqp", tls: false, port: 5672 },
  "amqps": { broker: "amqp", tls: true, port: 5671 },
  "redis": { broker: "redis", tls: false, port: 6379 },
  "rediss": { broker: "redis", tls: true, port: 6379 },
  "postgres": { broker: "outbox", tls: false, port: 5432 },
  "postgresql": { broker: "outbox", tls: false, port: 5432 },
  "mysql": { broker: "outbox", tls: false, port: 3306 },
  "mariadb": { broker: "outbox", tls: false, port: 3306 },
  "sqlite": { broker: "outbox", tls: false, port: 0 },
};

/** One parameter of a query. */
export interface Parameter<T = unknown, D extends string | null = string | null> {
  readonly kind: Kind<T>;
  /** Null: none; what stands in for it is said in `meaning`. */
  readonly default: D;
  /** One sentence without a full stop, for docs/sources.md. */
  readonly meaning: string;
}

function parameter<T, const D extends string | null>(
  kind: Kind<T>,
  initial: D,
  meaning: string,
): Parameter<T, D> {
  return { kind, default: initial, meaning };
}

type Parameters = Readonly<Record<string, Parameter>>;
type ValuesOf<P extends Parameters> = {
  readonly [N in keyof P]: P[N] extends Parameter<infer T, infer D> ? D extends null ? T | null : T
    : never;
};

const HOUR_MS = 3_600_000;
const word = text("NAME", "a name without control characters");
const path = text("FILE", "the path of a file");
const column = matching(
  "COLUMN",
  "the name of a column: letters, digits and _, 64 at most",
  /^[A-Za-z_][A-Za-z0-9_]{0,63}$/,
);
const sasl = oneOf(["plain", "scram-sha-256", "scram-sha-512", "oauthbearer"]);
const subject = matching(
  "SUBJECT",
  "a NATS subject, * and > allowed",
  /^[^\s.\p{Cc}]+(?:\.[^\s.\p{Cc}]+)*$/u,
);
/** To which can be published. */
const oneSubject = matching(
  "SUBJECT",
  "a NATS subject without * and >",
  /^[^\s.*>\p{Cc}]+(?:\.[^\s.*>\p{Cc}]+)*$/u,
);
/** A stream's or consumer's name ends up in subjects. */
const durable = matching(
  "NAME",
  "a name without spaces, dots, *, > and slashes",
  /^[^\s.*>/\\\p{Cc}]{1,255}$/u,
);

const topics: Kind<readonly string[]> = {
  placeholder: "TOPIC[,TOPIC]",
  wanted: "names of topics, separated by commas: letters, digits, ., _ and -, 249 at most",
  parse(given) {
    const names = given.split(",").map((name) => name.trim());
    const sound = names.every((name) =>
      /^[A-Za-z0-9._-]{1,249}$/.test(name) && !/^\.\.?$/.test(name)
    );
    return sound ? { ok: true, value: [...new Set(names)] } : { ok: false };
  },
};

/** `_topic,_offset:kafka_offset`; which names there are depends on the broker. */
const metaColumns: Kind<readonly MetaColumn[]> = {
  placeholder: "NAME[:COLUMN][,…]",
  wanted: "names such as _offset or _offset:column, separated by commas, each column once",
  parse(given) {
    const columns: MetaColumn[] = [];
    for (const item of given.split(",")) {
      const [, name = "", named] = /^\s*(_[a-z_]{1,31})(?::([A-Za-z_][A-Za-z0-9_.]{0,127}))?\s*$/
        .exec(item) ?? [];
      const target = named ?? name;
      if (name === "" || columns.some(({ column }) => column === target)) return { ok: false };
      columns.push({ name, column: target });
    }
    return { ok: true, value: columns };
  },
};

/** How every broker is logged in at. */
const LOGIN = {
  "user": parameter(word, null, "the user, instead of the one before the @"),
  "password-file": parameter(
    path,
    null,
    "a file with the password; it is read at every connection, so a renewed one counts",
  ),
  "ca": parameter(path, null, "PEM file with authorities to trust besides those of ca-file"),
  "cert": parameter(path, null, "PEM file with the certificate that is shown to the server"),
  "key": parameter(path, null, "PEM file with the key of cert"),
};

/** What every source has. */
const COMMON = {
  ...LOGIN,
  "name": parameter(
    matching("NAME", "a name of letters, digits, -, _, . and :, 128 at most", /^[\w.:-]{1,128}$/),
    null,
    "its name in metrics, logs and the status; broker and what is read unless given",
  ),
  "table": parameter(
    tableName,
    null,
    "the table of its rows; the one of the setting table, which takes events, unless given",
  ),
  "prefetch": parameter(
    count({ min: 1, max: 100_000 }),
    "1000",
    "messages that are read and not yet acknowledged, at most",
  ),
  "meta": parameter(
    metaColumns,
    null,
    "what is known of a message becomes columns of its rows, properties of its events; a row " +
      "that has such a key keeps its own",
  ),
  "on-error": parameter(
    oneOf(["dead", "stop"]),
    "dead",
    "what a message does that can never become rows: dead = it becomes a dead letter and the " +
      "next one follows, stop = the source stops before it",
  ),
};

const NATS_LOGIN = {
  "creds": parameter(path, null, "a .creds file"),
  "nkey-file": parameter(path, null, "a file with an NKey seed"),
  "token-file": parameter(path, null, "a file with a token"),
};

const KAFKA_LOGIN = {
  "topic": parameter(topics, null, "topics, where the path has none"),
  "sasl": parameter(
    sasl,
    null,
    "how to log in; scram-sha-512 where a user is given, oauthbearer where a token-file is",
  ),
  "token-file": parameter(path, null, "a file with an OAuth token, for oauthbearer"),
};

const heartbeat = parameter(
  duration({ min: 1000, max: 600_000 }),
  "10s",
  "how often each side shows that it lives",
);

/** The parameters of each broker's sources, besides those that all have. */
const OWN = {
  kafka: {
    ...KAFKA_LOGIN,
    "group": parameter(word, "shishi", "the consumer group"),
    "from": parameter(
      oneOf(["earliest", "latest"]),
      "earliest",
      "where a group begins that has no offsets yet",
    ),
    "member": parameter(
      matching("NAME", "a name of letters, digits, -, _ and ., or off", /^[\w.-]{1,249}$/),
      null,
      "the static member of the group (group.instance.id), GROUP.ID of the collector and the " +
        "source's name unless given; off = none",
    ),
    "protocol": parameter(
      oneOf(["classic", "consumer"]),
      "classic",
      "how the group shares partitions; consumer is Kafka 4's (KIP-848)",
    ),
    "session": parameter(
      duration({ min: 1000, max: 30 * 60_000 }),
      "30s",
      "a member that is silent for so long loses its partitions",
    ),
  },
  nats: {
    ...NATS_LOGIN,
    "subject": parameter(subject, null, "core NATS: the subject, at most once"),
    "queue": parameter(durable, "shishi", "core NATS: the queue group"),
    "stream": parameter(durable, null, "JetStream: the stream, which must be there"),
    "consumer": parameter(durable, "shishi", "JetStream: the durable consumer"),
    "create": parameter(boolean, "true", "JetStream: make the consumer when it is missing"),
    "filter": parameter(subject, null, "JetStream: subjects of the stream that are read"),
    "from": parameter(
      oneOf(["first", "new"]),
      "first",
      "JetStream: where a consumer begins that is made",
    ),
    "ack-wait": parameter(
      duration({ min: 1000, max: HOUR_MS }),
      "30s",
      "JetStream: what is not acknowledged in this time comes again, for a consumer that is made",
    ),
  },
  amqp: {
    "queue": parameter(word, null, "the queue, which must be there"),
    "heartbeat": heartbeat,
  },
  redis: {
    "list": parameter(word, null, "the key of a list"),
    "processing": parameter(
      word,
      null,
      "the list that holds what is not yet acknowledged, of this collector alone; {KEY}:shishi:GROUP.ID.FOLDER unless given",
    ),
    "pop": parameter(
      oneOf(["right", "left"]),
      "right",
      "the end of a list where messages are taken: right where they are pushed with LPUSH, left " +
        "where with RPUSH",
    ),
    "stream": parameter(word, null, "the key of a stream"),
    "group": parameter(word, "shishi", "the stream's consumer group, made when it is missing"),
    "field": parameter(
      word,
      "data",
      "the field of a stream's entry that has the message; an entry without it is a row of its fields",
    ),
    "claim": parameter(
      duration({ min: 1000, max: 24 * HOUR_MS }),
      "60s",
      "what another consumer of the group left unacknowledged for so long is taken over",
    ),
    "from": parameter(oneOf(["first", "new"]), "first", "where a group begins that is made"),
    "trim": parameter(boolean, "false", "delete a stream's entries once they are acknowledged"),
    "channel": parameter(word, null, "a channel (pub/sub): at most once"),
  },
  outbox: {
    "outbox": parameter(
      matching(
        "TABLE",
        "the name of a table or schema.table: letters, digits and _",
        /^[A-Za-z_][A-Za-z0-9_]{0,63}(?:\.[A-Za-z_][A-Za-z0-9_]{0,63})?$/,
      ),
      null,
      "the table that is read; shishi outbox ddl writes one",
    ),
    "id": parameter(column, "id", "its column that orders rows: it grows, and is of one row alone"),
    "payload": parameter(column, "payload", "its column that has the message"),
    "table-column": parameter(
      column,
      null,
      "its column that names the table of a row; all are of table unless given",
    ),
    "done": parameter(
      matching("delete|COLUMN", "delete, or the name of a column", /^[A-Za-z_][A-Za-z0-9_]{0,63}$/),
      "delete",
      "what becomes of a row that is safe: it is deleted, or this column of it gets the time",
    ),
    "poll": parameter(
      duration({ min: 10, max: HOUR_MS }),
      "1s",
      "how often new rows are looked for while there are none",
    ),
    "tls": parameter(boolean, null, "connect with TLS; on where ca or cert is given"),
  },
} satisfies Readonly<Record<BrokerKind, Parameters>>;

/** The parameters of each broker's exits, besides those of the login. */
const OWN_OF_EXITS = {
  kafka: KAFKA_LOGIN,
  nats: { ...NATS_LOGIN, "subject": parameter(oneSubject, null, "the subject") },
  amqp: {
    "exchange": parameter(word, null, "the exchange, which must be there"),
    "routing-key": parameter(word, "#", "the key that the queue is bound with"),
    "heartbeat": heartbeat,
  },
  redis: { "channel": parameter(word, null, "the channel") },
} satisfies Readonly<Record<ExitKind, Parameters>>;

/** What `meta=` may name. */
const METAS: Readonly<Record<BrokerKind, readonly string[]>> = {
  kafka: ["_topic", "_partition", "_offset", "_key", "_timestamp", "_headers"],
  nats: ["_subject", "_stream", "_sequence", "_timestamp", "_headers"],
  amqp: ["_exchange", "_routing_key", "_message_id", "_redelivered", "_timestamp", "_headers"],
  redis: ["_key", "_id"],
  outbox: ["_table", "_id"],
};

const OUTBOX_KINDS: Readonly<Record<string, "postgres" | "mysql" | "sqlite">> = {
  postgres: "postgres",
  postgresql: "postgres",
  mysql: "mysql",
  mariadb: "mysql",
  sqlite: "sqlite",
};

/** All of it, for docs/sources.md. */
export const SOURCE_PARAMETERS = { common: COMMON, own: OWN, exits: OWN_OF_EXITS, metas: METAS };

/** The files that an address names, each with the parameter that does. */
export function filesOf(
  address: SourceAddress | ExitAddress,
): readonly (readonly [parameter: string, path: string])[] {
  const { ca, cert, key, password } = address;
  const files: Record<string, string | null> = { ca, cert, key, "password-file": fileOf(password) };
  if (address.broker === "nats") {
    files["creds"] = address.creds;
    files["nkey-file"] = address.nkey;
  }
  if (address.broker === "nats" || address.broker === "kafka") {
    files["token-file"] = fileOf(address.token);
  }
  return Object.entries(files).flatMap(([name, path]) => path === null ? [] : [[name, path]]);
}

function fileOf(secret: Secret | null): string | null {
  return secret !== null && "file" in secret ? secret.file : null;
}

// ── The kinds.

/** Where the next URL begins: one inside a broker list has no scheme, and one alone no comma before it. */
const NEXT = /,\s*(?=(?:[a-z][a-z0-9+.-]*:\/\/|sqlite:))/i;

/** `sources`: one URL or several, by lines or by commas before a scheme. */
export const sourceUrls: Kind<readonly SourceAddress[]> = urls(
  "source",
  "URLs such as kafka://host:9092/topic?table=flights",
  readSource,
);

/** `exits`: as `sources`. */
export const exitUrls: Kind<readonly ExitAddress[]> = urls(
  "exit",
  "URLs such as redis://host?channel=exitCh",
  readExit,
);

function urls<A extends { readonly name: string }>(
  noun: string,
  wanted: string,
  read: (url: Parts) => Checked<A>,
): Kind<readonly A[]> {
  return {
    placeholder: "URL[,URL]",
    wanted: `${wanted}, several separated by commas or lines`,
    file: "list",
    joint: "\n",
    show: () => "***",
    parse(given): Parsed<readonly A[]> {
      const items = linesOf(given).flatMap((line) => line.split(NEXT));
      if (items.length === 0) return { ok: false, found: "nothing but comments" };
      const addresses: A[] = [];
      const problems: string[] = [];
      const all = items.map((item) => takeApart(item.trim()));
      // Any other "@" means that something in a password may have cut one URL into two, or into a comment.
      const logins = all.filter((url) => url.ok && url.value.login).length;
      const certain = all.every(({ ok }) => ok) && given.split("@").length - 1 === logins;
      for (const [index, item] of items.entries()) {
        const which = items.length === 1 ? noun : `${noun} ${index + 1}`;
        const url = all[index]!;
        const made = url.ok ? read(url.value) : wrong(url.problem);
        const shown = url.ok && certain ? url.value.label : hidden(item.trim());
        if (!made.ok) problems.push(...made.problems.map((what) => `${which} (${shown}): ${what}`));
        else {
          const { name } = made.value;
          if (addresses.some((other) => other.name === name)) {
            problems.push(
              `${which} (${shown}): expected a name of its own (&name=), got ${name}, which ` +
                `another ${noun} has`,
            );
          }
          addresses.push(made.value);
        }
      }
      return problems.length === 0 ? { ok: true, value: addresses } : { ok: false, problems };
    },
  };
}

// ── A URL in its parts.

interface Parts {
  readonly name: string;
  readonly scheme: Scheme;
  readonly label: string;
  readonly hosts: readonly BrokerHost[];
  /** Whether there is an "@". */
  readonly login: boolean;
  readonly user: string | null;
  readonly password: string | null;
  /** Without the first slash, decoded. */
  readonly path: string;
  readonly query: URLSearchParams;
}

const SHAPE = /^([a-z][a-z0-9+.-]*):\/\/(?:([^@/?#]*)@)?([^/?#@]*)(\/[^?#@]*)?(?:\?([^#@]*))?$/i;
const SQLITE = /^sqlite:(?:\/\/)?([^?#]+)(?:\?([^#]*))?$/i;
const HOST = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})))?(?::(\d{1,5}))?$/;
const ENCODED = "special characters percent-encoded (@ is %40, / is %2F, ? is %3F, # is %23)";

/** Nothing but the scheme is shown of what cannot be taken apart. */
function hidden(item: string): string {
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(item)?.[1]?.toLowerCase() ?? "";
  return scheme in SCHEMES ? `${scheme}://***` : "***";
}

function takeApart(item: string): Result<Parts> {
  if (/^sqlite:/i.test(item)) return takeApartSqlite(item);
  const [, given = "", login, hosts = "", path = "", query = ""] = SHAPE.exec(item) ?? [];
  const name = given.toLowerCase();
  const scheme = SCHEMES[name];
  if (scheme === undefined) {
    const known = /^([a-z][a-z0-9+.-]*):\/\//i.exec(item)?.[1]?.toLowerCase() ?? "";
    return known in SCHEMES
      ? failed(`expected a URL with ${ENCODED}`)
      : failed(`expected a URL with one of the schemes ${Object.keys(SCHEMES).join(", ")}`);
  }
  const read = hosts.split(",").map((host) => readHost(host, scheme.port));
  const places = read.filter((host) => host !== null);
  if (hosts === "" || places.length < read.length || /[\s\p{Cc}]/u.test(item)) {
    return failed(`expected ${name}://host:port with ${ENCODED}`);
  }
  const [user = "", ...rest] = login?.split(":") ?? [];
  const parts = [user, rest.join(":"), path.slice(1)].map(decode);
  if (parts.includes(null) || decode(query.replaceAll("+", " ")) === null) {
    return failed('expected a URL with "%" written as %25');
  }
  return done({
    name,
    scheme,
    label: `${name}://${places.map(writeHost).join(",")}${path === "/" ? "" : path}`,
    hosts: places,
    login: login !== undefined,
    user: parts[0] || null,
    password: rest.length === 0 ? null : parts[1]!,
    path: parts[2]!,
    query: new URLSearchParams(query.replaceAll("+", "%2B")),
  });
}

/** A file: `sqlite:/var/lib/app.db?…`, `sqlite:///var/lib/app.db?…`, `sqlite:app.db?…`. */
function takeApartSqlite(item: string): Result<Parts> {
  const [, file = "", query = ""] = SQLITE.exec(item) ?? [];
  const path = decode(file);
  if (path === null || path === "" || /\p{Cc}/u.test(path) || decode(query) === null) {
    return failed('expected sqlite:PATH?outbox=TABLE, with "?", "#" and "%" in it percent-encoded');
  }
  return done({
    name: "sqlite",
    scheme: SCHEMES["sqlite"]!,
    label: `sqlite:${path}`,
    hosts: [],
    login: false,
    user: null,
    password: null,
    path,
    query: new URLSearchParams(query.replaceAll("+", "%2B")),
  });
}

function readHost(text: string, port: number): BrokerHost | null {
  const match = HOST.exec(text);
  const host = match?.[1] ?? match?.[2] ?? "";
  const given = match?.[3] === undefined ? port : Number(match[3]);
  return host === "" || given < 1 || given > 65535 ? null : { host, port: given };
}

function writeHost({ host, port }: BrokerHost): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function decode(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

// ── Its parameters.

/** Reads the parameters of a URL, and gathers what is wrong with it. */
class Reader {
  readonly problems: string[] = [];

  constructor(readonly url: Parts) {}

  wrong(name: string, wanted: string, found: string): void {
    this.problems.push(`${name}: expected ${wanted}, got ${found}`);
  }

  /** The values of parameters, or their defaults; where one is wrong, a problem and a default. */
  values<P extends Parameters>(parameters: P): ValuesOf<P> {
    const { query } = this.url;
    this.#refuseOthers(parameters);
    const values = Object.entries(parameters).map(([name, { kind, default: initial }]) => {
      const given = query.getAll(name);
      if (given.length > 1) this.wrong(name, "it once", `it ${given.length} times`);
      const text = (given[0] ?? "").trim();
      if (given.length > 0 && text === "") this.wrong(name, kind.wanted, "nothing");
      const parsed = text === "" ? null : kind.parse(text);
      if (parsed?.ok) return [name, parsed.value];
      if (parsed !== null) {
        this.wrong(name, parsed.wanted ?? kind.wanted, parsed.found ?? show(text));
      }
      const usual = initial === null ? null : kind.parse(initial);
      return [name, usual?.ok ? usual.value : null];
    });
    return Object.fromEntries(values) as ValuesOf<P>;
  }

  #refuseOthers(parameters: Parameters): void {
    const others = [...new Set(this.url.query.keys())].filter((name) => !(name in parameters));
    // What follows may be pieces of it.
    const secret = others.find((name) => /^(?:pass\w*|pwd|token|secret|auth\w*)$/i.test(name));
    if (secret !== undefined) {
      return void this.problems.push(
        "a secret is no parameter: a password stands before the @, or in a password-file",
      );
    }
    for (const name of others) {
      const plain = /^[A-Za-z][A-Za-z_-]{0,31}$/.test(name) ? name : "***";
      this.problems.push(
        `${plain}: unknown parameter${hint(name, Object.keys(parameters), (known) => known)}`,
      );
    }
  }

  /** One of these is given, and no other. */
  one<N extends string>(values: Readonly<Record<N, unknown>>, names: readonly N[]): N {
    const given = names.filter((name) => values[name] !== null);
    const all = names.length === 1 ? `${names[0]}=` : `one of ${names.join("=, ")}=`;
    const got = given.length === 0 ? "none" : given.join(" and ");
    if (
      given.length !== 1 && !names.some((name) => this.url.query.has(name) && given.length === 0)
    ) {
      this.problems.push(`expected ${all}, got ${got}`);
    }
    return given[0] ?? names[0]!;
  }

  /** A parameter that is about something else is one that was meant otherwise. */
  about(what: string, names: readonly string[]): void {
    for (const name of names) {
      if (this.url.query.has(name)) this.problems.push(`${name}: has no effect with ${what}=`);
    }
  }

  noPath(wanted: string): void {
    if (this.url.path !== "") this.problems.push(`expected no path (${wanted}), got one`);
  }

  login(values: ValuesOf<typeof LOGIN>): BrokerAddress {
    const { url } = this;
    const user = values.user ?? url.user;
    const file = values["password-file"];
    if (file !== null && url.password !== null) {
      this.wrong("password-file", "one way to give the password", "one in the URL too");
    }
    if (values.user !== null && url.user !== null) {
      this.wrong("user", "one way to give the user", "one in the URL too");
    }
    const { ca, cert, key } = values;
    if ((cert === null) !== (key === null)) {
      this.wrong(
        cert === null ? "key" : "cert",
        `${cert === null ? "cert" : "key"} too`,
        "it alone",
      );
    }
    const tls = url.scheme.tls;
    if (!tls && url.scheme.broker !== "outbox") {
      for (const name of ["ca", "cert", "key"] as const) {
        if (values[name] !== null) this.problems.push(`${name}: has no effect without TLS`);
      }
    }
    const password = file !== null
      ? { file }
      : url.password === null
      ? null
      : { text: url.password };
    return {
      scheme: url.name,
      label: url.label,
      hosts: url.hosts,
      tls,
      user,
      password,
      ca,
      cert,
      key,
    };
  }

  options(values: ValuesOf<typeof COMMON>, what: string): SourceOptions {
    const { broker } = this.url.scheme;
    const known = METAS[broker];
    for (const { name } of values.meta ?? []) {
      if (!known.includes(name)) this.wrong("meta", `names among ${known.join(", ")}`, quote(name));
    }
    return {
      ...this.login(values),
      name: values.name ?? nameOf(this.url.name, broker, what),
      table: values.table,
      prefetch: values.prefetch,
      meta: values.meta ?? [],
      onError: values["on-error"],
    };
  }

  end<A>(address: A): Checked<A> {
    return this.problems.length === 0 ? done(address) : { ok: false, problems: this.problems };
  }
}

/** Values are shown that look like ones: a piece of a password is likely to have other signs. */
function show(text: string): string {
  return /^[\w.,:*-]{1,40}$/.test(text) ? quote(text) : "something else";
}

function nameOf(scheme: string, broker: BrokerKind, what: string): string {
  const plain = what.replace(/[^\w.:-]/g, "-").slice(0, 100);
  return `${broker === "outbox" ? OUTBOX_KINDS[scheme] : broker}:${plain}`;
}

function secretOf(file: string | null): Secret | null {
  return file === null ? null : { file };
}

// ── The brokers.

function readSource(url: Parts): Checked<SourceAddress> {
  const reader = new Reader(url);
  return SOURCES[url.scheme.broker](reader);
}

const SOURCES: Readonly<
  Record<BrokerKind, (reader: Reader) => Checked<SourceAddress>>
> = {
  kafka(reader) {
    const values = reader.values({ ...COMMON, ...OWN.kafka });
    const kafka = readKafka(reader, values);
    return reader.end({
      ...reader.options(values, kafka.topics.join(",")),
      ...kafka,
      broker: "kafka",
      group: values.group,
      from: values.from,
      member: values.member,
      protocol: values.protocol,
      sessionMs: values.session,
    });
  },

  nats(reader) {
    const values = reader.values({ ...COMMON, ...OWN.nats });
    const what = reader.one(values, ["subject", "stream"]);
    if (what === "subject") {
      reader.about(what, ["consumer", "create", "filter", "from", "ack-wait"]);
    } else reader.about(what, ["queue"]);
    return reader.end({
      ...reader.options(values, values[what] ?? ""),
      ...readNats(reader, values),
      broker: "nats",
      read: what === "subject" ? { what, subject: values.subject ?? "", queue: values.queue } : {
        what,
        stream: values.stream ?? "",
        consumer: values.consumer,
        create: values.create,
        filter: values.filter,
        from: values.from,
        ackWaitMs: values["ack-wait"],
      },
    });
  },

  amqp(reader) {
    const values = reader.values({ ...COMMON, ...OWN.amqp });
    reader.one(values, ["queue"]);
    return reader.end({
      ...reader.options(values, values.queue ?? ""),
      broker: "amqp",
      vhost: reader.url.path || "/",
      queue: values.queue ?? "",
      heartbeatMs: values.heartbeat,
    });
  },

  redis(reader) {
    const values = reader.values({ ...COMMON, ...OWN.redis });
    const what = reader.one(values, ["list", "stream", "channel"]);
    const key = values[what] ?? "";
    if (what !== "list") reader.about(what, ["processing", "pop"]);
    if (what !== "stream") reader.about(what, ["group", "field", "claim", "from", "trim"]);
    return reader.end({
      ...reader.options(values, key),
      broker: "redis",
      database: readDatabase(reader),
      read: what === "list"
        ? { what, key, processing: values.processing, pop: values.pop }
        : what === "channel"
        ? { what, channel: key }
        : {
          what,
          key,
          group: values.group,
          field: values.field,
          claimMs: values.claim,
          from: values.from,
          trim: values.trim,
        },
    });
  },

  outbox(reader) {
    const values = reader.values({ ...COMMON, ...OWN.outbox });
    reader.one(values, ["outbox"]);
    const { name, path } = reader.url;
    const kind = OUTBOX_KINDS[name]!;
    if (path === "") reader.problems.push(`expected ${name}://host/DATABASE, got no database`);
    const options = reader.options(values, values.outbox ?? "");
    return reader.end({
      ...options,
      tls: values.tls ?? (options.ca !== null || options.cert !== null),
      broker: "outbox",
      kind,
      database: path,
      outbox: values.outbox ?? "",
      id: values.id,
      payload: values.payload,
      tableColumn: values["table-column"],
      done: values.done === "delete" ? null : values.done,
      pollMs: values.poll,
    });
  },
};

function readExit(url: Parts): Checked<ExitAddress> {
  const reader = new Reader(url);
  const { broker } = url.scheme;
  return broker === "outbox" ? wrong("a database has no exit channel") : EXITS[broker](reader);
}

const EXITS: Readonly<
  Record<ExitKind, (reader: Reader) => Checked<ExitAddress>>
> = {
  kafka(reader) {
    const values = reader.values({ ...LOGIN, ...OWN_OF_EXITS.kafka });
    const { topics: [topic = "", ...more], sasl, token } = readKafka(reader, values);
    if (more.length > 0) reader.problems.push("expected one topic, got several");
    const name = nameOf("kafka", "kafka", topic);
    return reader.end({ ...reader.login(values), name, broker: "kafka", topic, sasl, token });
  },

  nats(reader) {
    const values = reader.values({ ...LOGIN, ...OWN_OF_EXITS.nats });
    reader.one(values, ["subject"]);
    const subject = values.subject ?? "";
    const login = { ...reader.login(values), ...readNats(reader, values) };
    return reader.end({ ...login, name: nameOf("nats", "nats", subject), broker: "nats", subject });
  },

  amqp(reader) {
    const values = reader.values({ ...LOGIN, ...OWN_OF_EXITS.amqp });
    reader.one(values, ["exchange"]);
    const exchange = values.exchange ?? "";
    return reader.end({
      ...reader.login(values),
      name: nameOf("amqp", "amqp", exchange),
      broker: "amqp",
      vhost: reader.url.path || "/",
      exchange,
      routingKey: values["routing-key"],
      heartbeatMs: values.heartbeat,
    });
  },

  redis(reader) {
    const values = reader.values({ ...LOGIN, ...OWN_OF_EXITS.redis });
    reader.one(values, ["channel"]);
    const channel = values.channel ?? "";
    return reader.end({
      ...reader.login(values),
      name: nameOf("redis", "redis", channel),
      broker: "redis",
      database: readDatabase(reader),
      channel,
    });
  },
};

function readKafka(reader: Reader, values: ValuesOf<typeof LOGIN & typeof KAFKA_LOGIN>) {
  const { path } = reader.url;
  const named = path === "" ? null : topics.parse(path);
  if (named !== null && !named.ok) {
    reader.problems.push(`expected as the path ${topics.wanted}, got another one`);
  } else if (named === null && values.topic === null && !reader.url.query.has("topic")) {
    reader.problems.push("expected a topic, as the path or as topic=, got none");
  } else if (named !== null && values.topic !== null) {
    reader.wrong("topic", "one way to give the topic", "one as the path too");
  }
  const token = values["token-file"];
  const user = values.user ?? reader.url.user;
  const usual = token !== null ? "oauthbearer" : user !== null ? "scram-sha-512" : null;
  const sasl = values.sasl ?? usual;
  if (sasl === "oauthbearer" ? token === null : token !== null) {
    reader.problems.push("expected token-file= together with sasl=oauthbearer, got one of them");
  } else if (sasl !== null && sasl !== "oauthbearer" && user === null) {
    reader.wrong("sasl", "a user too", "it alone");
  }
  return {
    topics: (named?.ok ? named.value : values.topic) ?? [],
    sasl,
    token: secretOf(token),
  };
}

function readNats(reader: Reader, values: ValuesOf<typeof LOGIN & typeof NATS_LOGIN>): NatsLogin {
  const user = values.user ?? reader.url.user;
  const ways = [user, values.creds, values["nkey-file"], values["token-file"]]
    .filter((way) => way !== null);
  if (ways.length > 1) {
    reader.problems.push(
      `expected one of user, creds, nkey-file and token-file, got ${ways.length} of them`,
    );
  }
  const { name, path } = reader.url;
  if (!name.startsWith("ws")) reader.noPath("what is read stands in the query");
  return {
    path: path === "" ? "" : `/${encodeURI(path)}`,
    creds: values.creds,
    nkey: values["nkey-file"],
    token: secretOf(values["token-file"]),
  };
}

function readDatabase(reader: Reader): number {
  const { path } = reader.url;
  const sound = /^\d{0,6}$/.test(path);
  if (!sound) {
    reader.problems.push("expected the number of a database as the path, got another one");
  }
  return sound ? Number(path) : 0;
}

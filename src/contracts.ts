/**
 * Every interface between the rooms: a room imports this file, `kernel/` and itself.
 *
 * The alphabet is the flow: admit → batch → deliver. A request's good rows travel as one `Chunk`;
 * chunks gather in a `Batch`; a batch is delivered and comes back as a `Delivery`. What happened is
 * counted by the `Ledger`. Outcomes are values; an exception is a bug.
 *
 * In this order, each under a line that begins with `// ──`: rows on their way (`Chunk`, `Batch`) · admit → batch
 * (`Intake`, `Ticket`) · sources (`Broker`, `Feed`, `Message`) · batch → spool (`Spool`) · batch → deliver (`Sink`,
 * `Delivery`) · deliver → admit (`Tables`, `TableMaker`, `JudgeRows`) · batch → dead (`DeadLetters`) · the books
 * (`Ledger`, `Holdings`) · the collector (`Control`, `Status`) · questions (`Queries`) · the page · the disk
 * (`Files`) · the log.
 */

import type { Finding } from "./kernel/finding.ts";
import type { Quota } from "./kernel/rate.ts";
import type { Failed, Result } from "./kernel/result.ts";
import type { Clock } from "./kernel/time.ts";

export type { Clock };
export { LONGEST_TYPE_BYTES, OTHER_TYPE } from "./kernel/ndjson.ts";

// ── Rows on their way. A request's good rows travel as one `Chunk`; chunks gather in a `Batch`;
// both hold the rows as the INSERT sends them, so that a row is written once and only pointed at
// after.

/** `event`: the five documented fields, mapped by the INSERT. `row`: keys are the table's columns. */
export type Shape = "event" | "row";

/** Row counts by event type; empty for tables of shape `row`. */
export type TypeCounts = ReadonlyMap<string, number>;

/**
 * The good rows of one request. `body` is NDJSON, each row one line that ends in `\n`; it is never
 * changed, so it may be shared and cut without a copy.
 */
export interface Chunk {
  readonly table: string;
  readonly shape: Shape;
  readonly rows: number;
  readonly body: Uint8Array;
  /** `body` changes once the intake has answered: what is kept of it is copied. */
  readonly lent?: boolean;
  readonly types: TypeCounts;
  /** Of rows of a table: the keys that they have. Null or absent: not known. */
  readonly keys?: ReadonlySet<string> | null;
  /** The columns that the rows were checked against (`Columns.fingerprint`), null while unknown. */
  readonly fingerprint: string | null;
  /** Dead letters that are sent again: a batch of their own with this id, taken once. */
  readonly replay?: string;
  /** A chunk that may be given again under this key is taken once. */
  readonly key?: ChunkKey;
  /** Its rows are those of messages of a broker. Such a chunk is never cut, as one with a key is not. */
  readonly messages?: Messages;
}

/** Messages of a broker whose rows a chunk has: one that comes again must not become rows again. */
export interface Messages {
  /**
   * What reads them: positions and ids are known of this source alone. A source of the same name that reads
   * another broker is another source.
   */
  readonly source: string;
  /** One a partition at most; empty where the broker has no positions. */
  readonly marks: readonly Mark[];
  /** What their senders call them, none twice; any text. Empty where they have no names. */
  readonly ids: readonly string[];
}

/** Everything of a source's partition up to a position is in the chunk, or was taken before. */
export interface Mark {
  /** Of which messages come in order: `flights/3`. */
  readonly partition: string;
  /** Decimal numbers joined by `-`, compared number by number: `17`, `1764400000000-3`. */
  readonly position: string;
}

/** What is known of a chunk that may be given more than once. */
export interface ChunkKey extends Named {
  /** Rows that came with it and were refused for their content: what is said of it again has them too. */
  readonly rejected: number;
}

/** What a sender calls a request or message, and what was in it. */
export interface Named {
  /** 1 to 128 visible ASCII characters; of one table. */
  readonly key: string;
  /** Of the bytes that came under it. */
  readonly hash: string;
}

/** What was taken of a partition. */
export interface TakenMark {
  /** Up to here. */
  readonly position: string;
  /** Of all rows up to there whose fate is not known yet; `kept` is null. */
  readonly ticket: Ticket;
}

/** What is remembered of rows for longer than they are held: under which key or as what they came. */
export type Memo = KnownKey | KnownMark | KnownIds;

interface OfRows {
  readonly table: string;
  /** Batches that the rows are in, or were; empty once they have left for certain. */
  readonly batches: readonly string[];
  /** It is remembered no longer, and the disk need not keep it. Looked at whenever a file is wanted. */
  readonly gone: boolean;
}

/** A key with which rows were taken. */
export interface KnownKey extends ChunkKey, OfRows {
  /** Rows that were taken with it. */
  readonly accepted: number;
  /** When, epoch milliseconds. */
  readonly sinceMs: number;
}

/** A mark with which rows were taken, until the broker has it that it is reached. */
export interface KnownMark extends Mark, OfRows {
  readonly source: string;
}

/** Ids of the messages whose rows were taken together. */
export interface KnownIds extends OfRows {
  readonly source: string;
  /** A JSON array of texts: as one text they take a fifth of the memory. Of what is `gone` there may be none. */
  readonly ids: string;
  /** How many. */
  readonly count: number;
  /** When, epoch milliseconds. */
  readonly sinceMs: number;
}

/** A sealed batch: it never changes again. `id` (UUIDv7) is the `insert_deduplication_token`. */
export interface Batch {
  readonly id: string;
  readonly table: string;
  readonly shape: Shape;
  readonly rows: number;
  /** Of `body`. */
  readonly bytes: number;
  readonly types: TypeCounts;
  /** When its oldest row was taken, epoch milliseconds. */
  readonly oldestMs: number;
  /** NDJSON, the very rows of the INSERT; pieces in order, to be joined. */
  readonly body: readonly Uint8Array[];
  /** Of its chunks; a chunk with another one begins a batch of its own. */
  readonly fingerprint: string | null;
  /** Of all of its rows, as in a chunk; not known of what an earlier process took. */
  readonly keys?: ReadonlySet<string> | null;
}

// ── admit → batch: how rows are given to the pipe, and what is said of them at once and later.

/** How far a write got before it is answered, weakest first. */
export type Ack = "memory" | "disk" | "clickhouse";

/** `Retry-After` of a 503: until a stopping or paused collector is worth another try. */
export const UNAVAILABLE_RETRY_S = 5;

/** What the intake says at once. `refused`: nothing of the chunk was taken. */
export type Taken =
  | {
    readonly kind: "taken";
    readonly ticket: Ticket;
    /** The rows came before, under the same key: how many were taken then, and how many not. */
    readonly before?: { readonly accepted: number; readonly rejected: number };
  }
  | Refused;

export interface Refused {
  readonly kind: "refused";
  /** `full`: 429. `closed`: 503, stopping or paused. `key`: 422, it came with something else before. */
  readonly why: "full" | "closed" | "key";
  readonly reason: string;
  readonly retryAfterS: number;
}

/** Follows a taken chunk. One per request, never one per row. */
export interface Ticket {
  /** What is true once `kept` has said so. */
  readonly reached: Ack;
  /**
   * Null: it is true already. Else it resolves when the disk has the rows, with null, or with why it
   * would not take them: then the chunk is refused after all. One promise serves many requests.
   */
  readonly kept: Promise<Refused | null> | null;
  /**
   * Resolves once every row's fate is known, with how many ended as dead letters; `null` when
   * `waitMs` passed first, or the rows were given up.
   */
  settled(waitMs: number): Promise<{ readonly dead: number } | null>;
}

/** What every source of rows gives its chunks to. */
export interface Intake {
  take(chunk: Chunk): Taken;
  /**
   * Why the rows of a plain body of so many bytes would be refused, as far as that is known before it is
   * read: to read and parse what cannot be taken would cost as much as to take it.
   */
  refusal(bytes: number): Refused | null;
  /** Room for a body that is about to be read, to be given back with `release`; false: answer 429. */
  reserve(bytes: number): boolean;
  release(bytes: number): void;
  /** The ticket of a replay that was taken before; null where it is not known. */
  replayed(table: string, id: string): Ticket | null;
  /**
   * What `take` would say of a chunk of this key, if that is known before its rows are: it was taken
   * before, or must not be taken. A promise while what an earlier process took is not known.
   */
  known(table: string, named: Named): Taken | null | Promise<Taken | null>;
  /**
   * Up to where the partitions of a source were taken, by name, as far as it is not `committed`. Resolves when it
   * is known what earlier processes took, however long that takes, and when each chunk of the source that was
   * given before is kept or refused. To be asked by a source before it reads, each time that it connects:
   * what is at or below a mark is acknowledged as its ticket says, and not taken again.
   */
  marks(source: string): Promise<ReadonlyMap<string, TakenMark>>;
  /**
   * Of these messages of a source, those that were taken before, by id, within `idempotency-window`.
   * Resolves as `marks` does; `kept` of a ticket is null.
   */
  taken(source: string, ids: readonly string[]): Promise<ReadonlyMap<string, Ticket>>;
  /** The broker has it for certain that a partition is acknowledged up to here: this is not remembered. */
  committed(source: string, mark: Mark): void;
  /** Why writes are refused before their body is read, or null when they are taken. */
  closed(): "stopping" | "paused" | null;
}

// ── sources: messages of brokers and rows of an outbox, and when they are acknowledged. A broker's file
// knows its library and nothing of rows; the loop (`sources/source.ts`) knows rows and no library.

/** What a message says of itself beside its body. Of a record (headers) every value is text. */
export type MetaValue = string | number | null | Readonly<Record<string, string>>;

/** A message as a broker gave it: one row, several, or none. */
export interface Message {
  /** Never changed after. */
  readonly body: Uint8Array;
  /** As HTTP's Content-Encoding; absent: plain. */
  readonly encoding?: string;
  /** The table that its sender names (a column of an outbox); absent: the source's. */
  readonly table?: string;
  /**
   * Messages of a partition (of a topic, a stream, a list, an AMQP channel) come in order: to acknowledge one
   * acknowledges those before it that came over the same connection. What is made anew under an old
   * name, and counts from the beginning again, is another partition where the broker tells (Kafka's topic
   * id): a mark of the old one must not hide a message of the new one.
   */
  readonly partition: string;
  /**
   * Grows within its partition, and is the same when the message comes again: Kafka's offset `17`; decimal
   * numbers joined by `-`, compared number by number. Given only where one reader of the partition
   * gets all of its messages, in order: what is at or below a position that was taken is a repeat. Absent where
   * several readers share a stream or queue (JetStream, a Redis group, AMQP): there another reader's old
   * message may come after a newer one; `id` tells it.
   */
  readonly position?: string;
  /**
   * Of this message alone within its source: the broker's own (a stream's sequence, a Redis id), else what its
   * sender calls it (AMQP message-id). Looked at only where there is no position; with the body, for
   * senders repeat names.
   */
  readonly id?: string;
  /**
   * The id is the broker's own, short, and counts up: only what was deleted and made anew can have it again, so
   * a checksum of the body will do beside it. Absent: a client may send the same id again, so it takes a hash.
   */
  readonly counted?: true;
  /** False: the broker has never given it before, so its id need not be looked up. Absent: not known. */
  readonly again?: boolean;
  /** Where it came from, for people and dead letters: `kafka:flights/3@17`. */
  readonly address: string;
  /** @param name one of `SourceAddress.meta`; null where the message has none such. */
  meta(name: string): MetaValue;
}

/**
 * One connection that reads. Nothing of it is called after a rejection, but `close`. `next` and
 * `acknowledge` may be under way together, each at most once.
 *
 * That `next` is not called *is* the pause: what a feed fetches ahead is bounded by `prefetch`, and what
 * keeps a session (heartbeats, in-progress answers) goes on inside of it.
 */
export interface Feed {
  /**
   * At least one message; waits for it. Rejects with an error whose message is a sentence for people when
   * the connection is lost, which 10 s without a sign of life mean too, and when `close` is called. Never
   * holds more than `prefetch` messages that are not acknowledged.
   */
  next(): Promise<readonly Message[]>;
  /**
   * These, and all before them in their partitions, are safe: the newest of each partition, each was given by this
   * feed. Resolves when the broker has taken it (Kafka commits once a second at most). What is the
   * collector's no more (a partition that moved) is left out. Rejects as `next` does.
   */
  acknowledge(newest: readonly Message[]): Promise<void>;
  /** How many messages wait at the broker; null: not known. */
  lag(): number | null;
  /**
   * How many messages came over this connection while there was no room, of a broker that gives each once and
   * keeps none. Absent: there are none such.
   */
  dropped?(): number;
  /**
   * Leaves, within 2 s; what was given to `acknowledge` is committed first. Never rejects.
   * @param untaken what was given and is certainly not taken: a broker that keeps it for a while for a member
   * that is silent may give it to another one at once.
   */
  close(untaken?: readonly Message[]): Promise<void>;
}

/** One place to read from. */
export interface Broker {
  /**
   * A fresh connection and a fresh consumer, every time: one that lives on does not always consume. Rejects
   * with a sentence that names what is wrong (certificate, login, topic …), or when `signal` is aborted.
   */
  connect(signal: AbortSignal): Promise<Feed>;
  /** For `shishi check`: TLS and login first, then what is read, then what will hurt later. Changes nothing. */
  inspect(): Promise<readonly Finding[]>;
}

/** Messages to all collectors that listen, with which they are ended. */
export interface ExitChannel {
  /**
   * Listens on a connection of its own, with no consumer that others share.
   * @param sinceMs epoch milliseconds: what was sent before does not count, where the broker can tell.
   * Resolves when what is sent from now on will be heard; rejects as `Broker.connect` does.
   */
  connect(sinceMs: number, signal: AbortSignal): Promise<ExitFeed>;
  /** Sends one; resolves when the broker has it. Rejects with a sentence. */
  send(text: string, signal: AbortSignal): Promise<void>;
}

export interface ExitFeed {
  /** The text of the next message. Rejects when the connection is lost, and when `close` is called. */
  next(): Promise<string>;
  /** Never rejects. */
  close(): Promise<void>;
}

/** What bytes of messages are. */
export type Read =
  /** `rejected` of its rows are none; the first hundred `errors`, by their place among all rows, from 0. */
  | {
    readonly kind: "rows";
    readonly chunk: Chunk;
    readonly rejected: number;
    readonly errors: readonly { readonly index: number; readonly error: string }[];
  }
  /** No rows can be told apart in it. */
  | { readonly kind: "refused"; readonly error: string }
  /** The table takes no rows now: it is missing, a view, or not known yet. Says nothing about the bytes. */
  | { readonly kind: "wait"; readonly why: string };

/** How bytes of messages become rows: as those of a request do. Never rejects. */
export interface MessageReader {
  /** Undoes a Content-Encoding. Not done: it is unknown or broken, or the bytes are too many. */
  unpack(body: Uint8Array, encoding: string): Promise<Result<Uint8Array>>;
  /**
   * As the body of a request. Makes tables and columns where rows ask for them.
   * @param table null: events.
   */
  read(table: string | null, body: Uint8Array): Promise<Read>;
  /** The texts of the objects in a body, as they are; null where something else is in it. */
  objects(body: Uint8Array): Promise<readonly string[] | null>;
  /** Of names of columns, those that rows of a table may have: it has them, or can get them. */
  takes(table: string, names: readonly string[]): Promise<readonly string[]>;
}

/** A message, or a row of one, that can never become a row: what is kept of it. */
export interface SourceLetter {
  /** The source's name. */
  readonly source: string;
  /** `Message.address`. */
  readonly address: string;
  readonly table: string;
  readonly shape: Shape;
  /** A UUID of this message alone, the same when it comes again; and the row's 0-based place in it. */
  readonly batch: string;
  readonly index: number;
  readonly error: string;
  /** The bytes as they came; as base64 where they are no UTF-8. */
  readonly row: string;
  readonly base64: boolean;
}

/** Counts of one source since the process started. */
export interface SourceTotals {
  /** Messages whose rows were taken, without those below. */
  messages: number;
  /** That had no rows. */
  empty: number;
  /** That became dead letters, wholly or in part. */
  dead: number;
  /** That had been taken before, and were acknowledged only. */
  repeated: number;
  /** That came while there was no room, and are gone (`Feed.dropped`). */
  dropped: number;
  rows: number;
  /** Connections that failed, or were lost. */
  reconnects: number;
}

/** How one source is. */
export interface SourceStatus {
  readonly name: string;
  /**
   * `full`: there is no room for rows. `waiting`: the broker is away, a table takes no rows, or dead letters
   * have no room. `stopped`: a message can never become rows, and it is to stop then.
   */
  readonly state: "connecting" | "running" | "paused" | "full" | "waiting" | "stopped";
  /** For people; null while all is well. */
  readonly why: string | null;
  /** Messages that wait at the broker; null: not known. */
  readonly lag: number | null;
  /** Messages that were read and are not acknowledged. */
  readonly unacked: number;
  readonly rows: number;
  readonly repeated: number;
  readonly dead: number;
  /** Since the last acknowledgement; null: there was none. */
  readonly last_ack_s: number | null;
}

/** What the file of a broker is handed. */
export interface BrokerDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** `GROUP.ID`: this collector, among those that read together. */
  readonly member: string;
  /**
   * Stands for its data folder: the same after a restart, and another one for each collector that runs beside it,
   * whatever their ids. Absent: not known.
   */
  readonly folder?: string;
  /** The text of a file, such as `password.file`. To be read at every connect: it may have been renewed. */
  readonly readFile: (path: string) => Promise<string>;
  /** PEM texts of authorities that are trusted besides the runtime's, one each; `ca` of an address comes first. */
  readonly authorities: () => readonly string[];
  /** As for remote control: what plays a WebSocket over `nats://`, `tls://`, `ws://` or `wss://`. */
  readonly openSocket: (url: string, tls?: SocketTls) => WebSocket;
  /** A database of SQLite; one that is missing is made if `create` says so. Throws as `SqliteFile` does. */
  readonly openSqlite: (path: string, create: boolean) => SqliteFile;
}

/** Of an INTEGER a bigint, of a REAL a number, of TEXT a string, of a BLOB its bytes. */
export type SqliteValue = bigint | number | string | Uint8Array | null;

/**
 * A database of SQLite, by the runtime's own. Everything is done at once, and nothing waits: what another
 * process has locked throws an error whose `code` is `SQLITE_BUSY`, for the caller to try again.
 */
export interface SqliteFile {
  /** The rows of one statement. */
  all(sql: string, ...values: readonly SqliteValue[]): readonly (readonly SqliteValue[])[];
  /** One statement, run with each of these. @returns how many rows they changed. */
  each(sql: string, values: readonly SqliteValue[]): number;
  /** Statements without values. */
  run(sql: string): void;
  close(): void;
}

/** PEM texts for one connection. */
export interface SocketTls {
  /** Authorities that are trusted besides the others. */
  readonly ca: readonly string[];
  /** What is shown to the server, both or none. */
  readonly cert: string | null;
  readonly key: string | null;
}

/** A secret: what stood in the setting, or the path of the file that has it. */
export type Secret = { readonly text: string } | { readonly file: string };

/** A column that a message's `meta` fills. */
export interface MetaColumn {
  /** `_offset`. */
  readonly name: string;
  /** `kafka_offset`; the same unless given. */
  readonly column: string;
}

/** Where a server of a broker listens. */
export interface BrokerHost {
  /** Without brackets. */
  readonly host: string;
  readonly port: number;
}

/** What every address of a broker has; made by `settings/source_urls.ts` of the text of a setting. */
export interface BrokerAddress {
  /** As it was written, in lower case: `kafkas`, `redis`. */
  readonly scheme: string;
  /** Safe to log: `kafka://b1:9092,b2:9092/flights`. */
  readonly label: string;
  /** At least one, but for a file. */
  readonly hosts: readonly BrokerHost[];
  /** The scheme asks for TLS, or a file of it is named. */
  readonly tls: boolean;
  readonly user: string | null;
  readonly password: Secret | null;
  /** Paths of PEM files: authorities; a client certificate and its key. */
  readonly ca: string | null;
  readonly cert: string | null;
  readonly key: string | null;
}

/** What every source has, whatever its broker. */
export interface SourceOptions extends BrokerAddress {
  /** Its name in metrics, logs and marks, of one source alone: `kafka:flights`. */
  readonly name: string;
  /** Null: events, into the table of the `table` setting. */
  readonly table: string | null;
  /** Messages that are not acknowledged, at most. */
  readonly prefetch: number;
  readonly meta: readonly MetaColumn[];
  /** What a message does that can never become rows: it is a dead letter, or it stops the source. */
  readonly onError: "dead" | "stop";
}

export interface KafkaSource extends SourceOptions {
  readonly broker: "kafka";
  /** At least one. */
  readonly topics: readonly string[];
  readonly group: string;
  /** Where a group begins that has no offset yet. */
  readonly from: "earliest" | "latest";
  readonly sasl: "plain" | "scram-sha-256" | "scram-sha-512" | "oauthbearer" | null;
  readonly token: Secret | null;
  /** `group.instance.id`: `off` = none, null = `BrokerDeps.member` and the source's name. */
  readonly member: string | null;
  readonly protocol: "classic" | "consumer";
  readonly sessionMs: number;
}

/** What an address of NATS has besides what all have: how to log in beside user and password. */
export interface NatsLogin {
  /** Of a websocket's address, with its first slash; "" where there is none. */
  readonly path: string;
  /** Paths; null: another way. */
  readonly creds: string | null;
  readonly nkey: string | null;
  readonly token: Secret | null;
}

export interface NatsSource extends SourceOptions, NatsLogin {
  readonly broker: "nats";
  readonly read:
    /** Core NATS: at most once. */
    | { readonly what: "subject"; readonly subject: string; readonly queue: string }
    /** JetStream. */
    | {
      readonly what: "stream";
      readonly stream: string;
      /** The durable consumer. */
      readonly consumer: string;
      /** It is made when it is missing; a stream never is. */
      readonly create: boolean;
      readonly filter: string | null;
      readonly from: "first" | "new";
      readonly ackWaitMs: number;
    };
}

export interface AmqpSource extends SourceOptions {
  readonly broker: "amqp";
  readonly vhost: string;
  readonly queue: string;
  readonly heartbeatMs: number;
}

export interface RedisSource extends SourceOptions {
  readonly broker: "redis";
  readonly database: number;
  readonly read:
    | {
      readonly what: "list";
      readonly key: string;
      /** Null: `{KEY}:shishi:MEMBER`. */
      readonly processing: string | null;
      /** The end where messages are taken: the other one than where they are pushed. */
      readonly pop: "right" | "left";
    }
    | {
      readonly what: "stream";
      readonly key: string;
      readonly group: string;
      /** Of an entry, what holds the message; an entry without it is a row of its fields. */
      readonly field: string;
      /** What another consumer left for so long is taken over. */
      readonly claimMs: number;
      readonly from: "first" | "new";
      /** Entries are deleted once they are acknowledged. */
      readonly trim: boolean;
    }
    /** At most once. */
    | { readonly what: "channel"; readonly channel: string };
}

export interface OutboxSource extends SourceOptions {
  readonly broker: "outbox";
  readonly kind: "postgres" | "mysql" | "sqlite";
  /** The database; of SQLite, the path of its file. */
  readonly database: string;
  /** The table that is read: a name, or `schema.name`. */
  readonly outbox: string;
  /** The column that orders rows and tells them apart. */
  readonly id: string;
  /** The column that has the message. */
  readonly payload: string;
  /** The column that names the table of a row; null: `table` for all. */
  readonly tableColumn: string | null;
  /** The column that gets the time once a row is safe; null: the row is deleted. */
  readonly done: string | null;
  /** How often it is looked for new rows. */
  readonly pollMs: number;
}

/** One source, read from its URL. Holds secrets: never logged whole. */
export type SourceAddress = KafkaSource | NatsSource | AmqpSource | RedisSource | OutboxSource;
export type BrokerKind = SourceAddress["broker"];
/** The address of a source of one kind of broker. */
export type SourceOf<K extends BrokerKind> = Extract<SourceAddress, { readonly broker: K }>;

/** One exit channel, read from its URL. Holds secrets. */
export type ExitAddress =
  & BrokerAddress
  & { /** `redis:exitCh`. */ readonly name: string }
  & (
    | {
      readonly broker: "kafka";
      readonly topic: string;
      readonly sasl: KafkaSource["sasl"];
      readonly token: Secret | null;
    }
    | NatsLogin & { readonly broker: "nats"; readonly subject: string }
    | {
      readonly broker: "amqp";
      readonly vhost: string;
      readonly exchange: string;
      readonly routingKey: string;
      readonly heartbeatMs: number;
    }
    | { readonly broker: "redis"; readonly database: number; readonly channel: string }
  );
/** Brokers that have exit channels. */
export type ExitKind = ExitAddress["broker"];
export type ExitOf<K extends ExitKind> = Extract<ExitAddress, { readonly broker: K }>;

/** What each broker's file exports, as `open…` and `openExit…`. Neither connects. */
export type OpenBroker<K extends BrokerKind> = (
  address: SourceOf<K>,
  deps: BrokerDeps,
) => Broker;
export type OpenExit<K extends ExitKind> = (
  address: ExitOf<K>,
  deps: BrokerDeps,
) => ExitChannel;

// ── batch → spool: what the disk keeps of a batch, known by the batch's id.

/** What a batch is, beside its rows. */
export interface BatchHead extends Pick<Batch, "id" | "table" | "shape" | "fingerprint"> {
  /** When its first row was taken, epoch milliseconds. */
  readonly oldestMs: number;
}

/** A batch that rows are appended to. */
export interface GrowingBatch extends BatchHead {
  /** Nothing more is appended to it. Looked at after each append and each round. */
  readonly sealed: boolean;
}

/** A batch with what was tried of it: the lines that `Attempt.note` was given, oldest first. */
export interface Noted extends BatchHead {
  readonly trail: readonly string[];
}

/** A sealed batch that an earlier process left; its rows are on disk only. */
export interface RecoveredBatch extends Noted {
  readonly rows: number;
  readonly bytes: number;
  readonly types: TypeCounts;
}

/** What the disk remembers, until it is `gone`. */
export type Recovered<M extends Memo = Memo> = M & { gone: boolean; batches: readonly string[] };

/** What the disk had of a batch has vanished. */
export interface Vanished {
  readonly id: string;
  /** Where it was, for people. */
  readonly file: string;
}

/** Memory's disk. No method throws or rejects. */
export interface Spool {
  /** Of everything that lies on disk for batches. */
  bytes(): number;
  /** What keeps the disk from taking rows, for people; null while it takes them. */
  trouble(): string | null;
  /**
   * Rows that follow what the disk has of a batch; they must not change until the answer, which says
   * that they are safe. Appends that come while others are made safe share the next round, whatever
   * their batch, and the same promise: a round is safe as a whole or refused as a whole, rounds are answered in
   * order, and with one that failed all that wait are refused, for they may follow what is not there. After an
   * append that failed the batch takes no other: all that follow get the same problem. A batch of which no
   * append succeeded leaves nothing behind.
   * @param memos are as safe as the rows, and outlive them until they are `gone`.
   */
  append(
    batch: GrowingBatch,
    body: Uint8Array,
    rows: number,
    memos?: readonly Memo[],
  ): Promise<Result>;
  /**
   * A partition is acknowledged at its broker up to here, or its rows are lost: the next process is to find no
   * mark up to here. Written with the next rows, or at the end.
   */
  reached(source: string, mark: Mark): void;
  /**
   * A sealed batch is about to leave memory, or must survive it: after this its rows can be read back.
   * Null: they can be already, with little effort. Else they are written, whole, and must not change meanwhile;
   * `remove` may come before the answer. A write that failed leaves what was there before.
   */
  write(batch: Batch): Promise<Result> | null;
  /** The rows of a sealed batch, whole, in pieces that are the caller's. */
  read(batch: Pick<Batch, "id" | "bytes">): Promise<Result<Uint8Array[]>>;
  /**
   * Writes what of a batch's trail the disk does not have. It then outlives this process as the batch
   * does, though not a power cut before the next rows are safe. Resolves when it is written, or cannot be.
   */
  note(batch: Noted): Promise<void>;
  /** Nothing of the batch is needed any more: its rows are stored, dead letters, or lost. */
  remove(id: string): void;
  /**
   * Looks whether a disk in trouble still is, and tries again what could not be removed. Where the disk is
   * well but has lost something: of which batches, open ones included. They are named again, should their
   * rows be missed later, until they are removed or written again.
   */
  probe(): Promise<readonly Vanished[]>;
  /**
   * What earlier processes left, batch by batch: first those with a trail, then the others, each oldest
   * first; to be called once.
   * @param onMemos is called with what they remembered, before the first batch. `all`: there is no more.
   */
  recover(onMemos?: (memos: readonly Recovered[], all: boolean) => void): AsyncIterable<
    RecoveredBatch
  >;
  /** Resolves when nothing is being written and no file is open. */
  close(): Promise<void>;
}

// ── batch → deliver: how a batch is taken to ClickHouse, and what an answer of ClickHouse means.

/** A row that ClickHouse refuses for good, or that its column cannot hold. */
export interface DeadRow {
  /** 0-based place in the batch. */
  readonly index: number;
  /** ClickHouse's exception code, or `OWN_WORD`. */
  readonly code: number;
  readonly message: string;
}

/** What became of one attempt to deliver a whole batch. */
export type Delivery =
  /** Every row's fate is known: `rows - dead.length` are stored. */
  | { readonly kind: "settled"; readonly dead: readonly DeadRow[]; readonly inserts: number }
  /**
   * The server could not take it now; says nothing about the rows. Try again. `outlasted`: no answer came
   * in time, though the server answers what else it is asked.
   */
  | Trouble & {
    readonly kind: "transient";
    readonly retryAfterMs?: number;
    readonly outlasted?: boolean;
  } & Unknown
  /** The table cannot take it (missing, column dropped, no rights): hold and probe. */
  | Trouble & { readonly kind: "table" } & Unknown
  /** Nothing was sent, or no more of it: `Attempt.begin` said no to an INSERT of so many blocks. */
  | { readonly kind: "behind"; readonly blocks: number };

/** `unknown`: an INSERT may have been stored, and only the same one under its token tells. */
export interface Unknown {
  readonly unknown?: boolean;
}

export interface Trouble {
  /** ClickHouse's exception code, 0 where there is none (network, timeout, proxy). */
  readonly code: number;
  readonly message: string;
}

/**
 * What an attempt has of the room that holds the batch: what was tried before, by an earlier process too,
 * and leave for each INSERT.
 */
export interface Attempt {
  /** Oldest first. */
  readonly trail: readonly string[];
  /**
   * Adds a line to the trail; resolves when it will be found again, should the process die from here on.
   * Never rejects.
   */
  note(line: string): Promise<void>;
  /**
   * An INSERT is to go out that adds so many blocks to what its table remembers: 0 for one that may be there
   * already. To be asked right before it.
   * @param window how many blocks the table remembers by their tokens; 0: none, or not known.
   * @returns false: the fate of another batch of the table has to be known first.
   */
  begin(blocks: number, window: number): boolean;
}

/** Takes a batch to ClickHouse. Retrying is the caller's work; progress within a batch is the sink's. */
export interface Sink {
  /** @param attempt not given: there was none before, and nothing stands in its way. */
  deliver(batch: Batch, signal: AbortSignal, attempt?: Attempt): Promise<Delivery>;
  /** Sealed batches that are delivered next, one after the other: what all need can be asked for together. */
  expect?(batches: readonly Batch[]): void;
  /**
   * A batch is not sent any more: which of its rows are not stored for certain, ascending. Absent: all of them.
   * @param trail as of an attempt. @param message of rows of which nothing else was said.
   */
  giveUp?(batch: Batch, trail: readonly string[], message: string): readonly DeadRow[];
}

/** Which batches of a table are to become dead letters. */
export interface SetAsideWanted {
  readonly table: string;
  /** Null: all. */
  readonly batch: string | null;
  /** Also those that may be stored already. */
  readonly maybeStored: boolean;
}

/** What became of an order to set batches aside. */
export interface SetAside {
  readonly batches: number;
  /** Rows that are dead letters now. */
  readonly letters: number;
  /** Of the same batches, rows that are stored for certain. */
  readonly stored: number;
  /** Batches that stay, some of them with the reason. */
  readonly left: number;
  readonly leftRows: number;
  readonly reasons: readonly LeftBatch[];
  /** There was no time for all: the same order goes on. */
  readonly more: boolean;
}

export interface LeftBatch {
  readonly batch: string;
  readonly rows: number;
  readonly why: string;
}

/** Turns what a table in trouble holds into dead letters. Never rejects. */
export type SetAsideNow = (wanted: SetAsideWanted) => Promise<Result<SetAside>>;

/** A server that is spoken to over HTTP, and the account used there. */
export interface Endpoint {
  /**
   * Scheme, host and port, and a path as it was written where something that stands before the server has
   * one for it: no credentials, no query; no trailing slash without a path.
   */
  readonly url: string;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  /** Safe to log, e.g. `http://host:8123/database`. */
  readonly label: string;
  /** Sent with every request. May hold secrets. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** A bearer token that may append and nothing else. */
export interface WriteToken {
  /** Stands for it wherever people read of it. */
  readonly label: string;
  /** SHA-256, hexadecimal: the token itself is not kept. */
  readonly hash: string;
  /** How long it is. */
  readonly chars: number;
  /** Names or globs, `events` for `POST /events`; null: every table that may be written. */
  readonly tables: readonly string[] | null;
  /** Tokens of one label share them. */
  readonly quotas: readonly Quota[];
}

/** A setting of ClickHouse that a person wants INSERTs to carry. */
export interface InsertSetting {
  /** A table's name, or a glob; null: every table. */
  readonly table: string | null;
  readonly name: string;
  readonly value: string;
}

/** Types as which fields of events are read, by the field's name; others are read as usual. */
export type EventTypes = ReadonlyMap<string, string>;

/** One INSERT of some rows of a batch. */
export interface InsertRequest {
  readonly table: string;
  readonly shape: Shape;
  /** The columns that the INSERT of rows names; null or absent: none, so that it is about all of them. */
  readonly columns?: readonly string[] | null;
  /** Of events; null or absent: every field is read as usual. */
  readonly types?: EventTypes | null;
  /** NDJSON; pieces in order, each ends where a row does. */
  readonly body: readonly Uint8Array[];
  readonly rows: number;
  /** `insert_deduplication_token`: the batch's id, or derived from it. */
  readonly token: string;
}

/** What one answer of ClickHouse means; decided by its exception code, not by the HTTP status. */
export type Verdict =
  | { readonly kind: "stored" }
  | Trouble & {
    readonly kind: "transient";
    readonly retryAfterMs?: number;
    readonly outlasted?: boolean;
  } & Unknown
  | Trouble & {
    readonly kind: "row";
    /** 1-based row that the server names, or null. */
    readonly row: number | null;
  }
  /** `view`: a materialized view failed, after the table had its rows. */
  | Trouble & { readonly kind: "table"; readonly view?: ViewName } & Unknown
  /**
   * Fewer rows at once will pass: too many partitions (252), too much memory for one INSERT (241), too long
   * (159; the table may have the rows), too large for a proxy.
   */
  | Trouble & { readonly kind: "split" } & Unknown
  /** 115: this server does not know the setting; drop it for this server and send again. */
  | Trouble & { readonly kind: "unknown-setting"; readonly setting: string };

export interface ViewName {
  readonly database: string;
  readonly name: string;
}

/** Whether a view digests these rows of the table it reads; null where that cannot be told. */
export type ViewJudge = (request: InsertRequest, signal: AbortSignal) => Promise<boolean | null>;

/** One server, one attempt. Never throws. */
export interface Inserter {
  insert(request: InsertRequest, signal: AbortSignal): Promise<Verdict>;
  /** Which rows the server can parse, 0-based, without inserting; `null` where it cannot tell. */
  sieve(request: InsertRequest, signal: AbortSignal): Promise<readonly number[] | null>;
  /** Asks, without inserting, whether a view of the table that failed with this code fails for some rows. */
  judgeOf?(
    table: string,
    view: ViewName,
    code: number,
    signal: AbortSignal,
  ): Promise<ViewJudge | null>;
}

// ── deliver → admit: what is known of the tables that rows are written to.

/** A column that an INSERT may give. */
export interface Column {
  readonly name: string;
  /** As ClickHouse writes it: `Array(Nullable(UInt8))`. */
  readonly type: string;
  /** What `system.columns` says: `DEFAULT` and `EPHEMERAL` have an expression of their own. */
  readonly defaultKind: "" | "DEFAULT" | "EPHEMERAL";
  /** Its expression, as ClickHouse writes it; `""` or absent: none. */
  readonly defaultText?: string;
}

/** Why a table, or a column, can never take anything: it is none that is written, or there is no right to. */
export interface Closed {
  /** Of a table, `right`: 403, and `kind`: 409 (a view, a dictionary). */
  readonly why: "right" | "kind";
  /** For people: `v is a View, which takes no rows`. */
  readonly reason: string;
}

/** The columns of a table, as far as they are known. */
export interface Columns {
  /** Names that an INSERT may give. */
  readonly names: ReadonlySet<string>;
  /** Names of its other columns: MATERIALIZED, ALIAS (`kind`), or no right to insert into them. */
  readonly closed: ReadonlyMap<string, Closed>;
  /** Those of `names`, with their types; empty where types are not known. */
  readonly columns: readonly Column[];
  /** Equal exactly when names and types are equal, whatever their order. */
  readonly fingerprint: string;
  /** Null for a table that takes rows, as far as that is known. */
  readonly takesNone: Closed | null;
  /** Of a ClickHouse from before 21: no default for `null`, and days and times up to 2105. */
  readonly old?: boolean;
}

/** What admit may ask about tables. `unknown`: ClickHouse could not be asked yet; rows are taken. */
export interface Tables {
  /** At once, from memory; starts a background look-up where nothing fresh is known. */
  columns(table: string): Columns | "missing" | "unknown";
  /** As `columns`, but waits up to `waitMs` for a first answer, so that a first POST meets a 404. */
  lookUp(table: string, waitMs: number): Promise<Columns | "missing" | "unknown">;
  /**
   * The answer of the server itself, not from memory; `unknown` where it cannot be asked.
   * @param rights also what the user may insert into, which is remembered longer.
   */
  refresh(table: string, rights?: boolean): Promise<Columns | "missing" | "unknown">;
  /**
   * Rows do not fit what is known of the table, which may have changed: it is asked again soon, at most
   * twice a second.
   */
  doubt(table: string): void;
}

/** What becomes of a key that is no column of its table. */
export type UnknownKeys = "error" | "skip" | "column" | "keep";

/** The column that gets all unknown keys, where they are kept. */
export const REST = "_rest";

/** What becomes of unknown keys in some tables. */
export interface KeyRule {
  /** A name or glob; null: every other table. */
  readonly table: string | null;
  readonly policy: UnknownKeys;
}

/** What a statement did to a table. */
export type TableChanged = "created" | "columns" | "widened";

/** What came of a wish to change a table. */
export type Remade =
  | {
    readonly ok: true;
    /** As they are now. */
    readonly columns: Columns;
    /** The table was not there before. */
    readonly created: boolean;
    /** New columns with their types, for people: `status Nullable(Int64)`. */
    readonly added: readonly string[];
  }
  | Failed & {
    /**
     * `away`: ClickHouse cannot be asked, and another attempt may succeed. Of the others the table stays as
     * it is until something is changed by hand: `right` (no GRANT), `rows` (no types can be found in them),
     * `kind` (nothing that could be changed, or a server that is too old).
     */
    readonly why: "away" | "right" | "rows" | "kind";
    /** With `rows`, of a table to be made: so many of them were looked at, the first ones; */
    readonly looked?: number;
    /** and none of these could make a table by itself either. */
    readonly each?: boolean;
  };

/** A statement that would make a table, or give it columns. */
export interface TableProposal {
  readonly columns: readonly { readonly name: string; readonly type: string }[];
  /** Of a new table, the column by which it is sorted; null: there is none. */
  readonly time: string | null;
  readonly ddl: string;
}

/** The one place that changes tables; one change of a table at a time. Never rejects. */
export interface TableMaker {
  /** Whether rows of a table that is missing make it. */
  makes(table: string): boolean;
  /** What becomes of keys that are no columns of it. */
  unknownKeys(table: string): UnknownKeys;
  /** Makes a table that is missing. @param rows of it, NDJSON: the first ones tell its columns. */
  make(table: string, rows: Uint8Array): Promise<Remade>;
  /**
   * Adds columns for keys of some rows, as many as `max-new-columns` leaves room for.
   * @param keys null: whatever the rows have.
   */
  extend(table: string, keys: ReadonlySet<string> | null, rows: Uint8Array): Promise<Remade>;
  /**
   * What `make` or, with the keys that the table lacks, `extend` would do; nothing is changed.
   * @param keys null: there is no such table.
   */
  propose(
    table: string,
    keys: ReadonlySet<string> | null,
    rows: Uint8Array,
  ): Promise<Result<TableProposal>>;
  /**
   * The columns that a table would have after `make`, or after `extend` and `widen`, as far as that can be
   * told; nothing is changed. Null: it cannot be told.
   * @param columns null: there is no such table. @param strange, misfits as of `extend` and `widen`.
   */
  foresee?(
    table: string,
    columns: Columns | null,
    asked: {
      readonly strange: ReadonlySet<string> | null;
      readonly misfits: ReadonlyMap<string, readonly string[]> | null;
    },
    rows: Uint8Array,
  ): Promise<Columns | null>;
  /** Whether types that turn out too narrow are widened. */
  readonly widens: boolean;
  /**
   * Widens columns, where a wider type holds all that is there and some of these values.
   * @param misfits by column, JSON values that it cannot hold.
   */
  widen(table: string, misfits: ReadonlyMap<string, readonly string[]>): Promise<Remade>;
}

// ── deliver → admit: rows that were taken already, held against columns that they were not checked against.

/** Whole rows of a table, and what they are held against. */
export interface RowsToJudge {
  readonly table: string;
  readonly shape: Shape;
  /** As that of a batch. */
  readonly body: readonly Uint8Array[];
  readonly columns: Columns;
  /** What becomes of keys that are no columns; `pass`: they stay. `reason`: why the table has not got them. */
  readonly unknownKeys: { readonly policy: UnknownKeys | "pass"; readonly reason?: string };
  /** Columns may become wider. */
  readonly widens: boolean;
}

/** A row that does not fit: its 0-based place, and a sentence. */
export interface Misfit {
  readonly index: number;
  readonly problem: string;
}

export interface RowsJudged {
  /** As many rows, as they are to be sent; those that do not fit as they came. Null: all as they came. */
  readonly body: readonly Uint8Array[] | null;
  /** Ascending. */
  readonly misfits: readonly Misfit[];
  /** The columns that rows which fit have, and perhaps some of others. */
  readonly keys: ReadonlySet<string>;
  /** Columns that the table lacks and may get; rows that need them are among the misfits. */
  readonly strange: ReadonlySet<string>;
  /** By column that may become wider, values that did not fit. */
  readonly wider: ReadonlyMap<string, readonly string[]>;
}

/** Holds up nothing else for longer than some milliseconds. Never rejects. */
export type JudgeRows = (rows: RowsToJudge) => Promise<RowsJudged>;

/** Of a dead letter: not an exception of ClickHouse, the collector itself says why. */
export const OWN_WORD = 0;

// ── batch → dead: rows that ClickHouse refuses for good, kept before their batch is let go; and what
// others may see of them and do with them.

/** The one writer of dead letters. */
export interface DeadLetterWriter {
  /**
   * Keeps the bad rows of a batch, synced. Not done: they may be there in part or not at all; the batch
   * stays, and its rows are written again later. Never rejects.
   * @param rows the rows themselves, in the order of `dead`.
   */
  write(
    batch: Pick<Batch, "id" | "table" | "shape">,
    dead: readonly DeadRow[],
    rows: readonly string[],
  ): Promise<Result>;
}

/** As `DeadLetterWriter`, for messages that can never become rows. */
export interface SourceLetterWriter {
  keep(letters: readonly SourceLetter[]): Promise<Result>;
}

/** A dead letter as others see it. */
export interface DeadLetter {
  readonly table: string;
  readonly id: string;
  /** When it was written, ISO 8601. */
  readonly time: string;
  /** ClickHouse's exception code. */
  readonly code: number;
  readonly message: string;
  /** The beginning of a long row. */
  readonly row: string;
  /** Characters of the whole row. */
  readonly rowLength: number;
  readonly shape: Shape;
  /** The batch that brought the row, and its 0-based place there. */
  readonly batch: string;
  readonly index: number;
  /** The source that read the message of which no row could be made, and where it was. */
  readonly source?: string;
  readonly address?: string;
  /** `row` is base64: the bytes are no text. */
  readonly base64?: boolean;
}

/** Which dead letters are meant; null: whatever it is. */
export interface LetterFilter {
  readonly table: string | null;
  readonly ids: readonly string[] | null;
  /** ClickHouse's exception code. */
  readonly code: number | null;
  /** Written before this, epoch milliseconds. */
  readonly beforeMs: number | null;
}

/** The dead letters of one table, counted. */
export interface DeadTable {
  readonly table: string;
  readonly letters: number;
  /** Of its files. */
  readonly bytes: number;
  /** ISO 8601; null without letters. */
  readonly oldest: string | null;
  readonly newest: string | null;
  /** The most frequent first. */
  readonly codes: readonly { readonly code: number; readonly letters: number }[];
  /** Lines that cannot be read. */
  readonly damaged: number;
}

/** What a replay has done. */
export interface Replaying {
  /** Rows that are in ClickHouse. */
  readonly stored: number;
  /** Rows that are letters still, or again. */
  readonly dead: number;
  /** Letters that were not sent, or whose rows are on their way: another replay goes on with them. */
  readonly left: number;
  /** Why rows are dead, the most frequent reasons. */
  readonly reasons: readonly { readonly reason: string; readonly letters: number }[];
  /** Why letters are left. */
  readonly problems: readonly string[];
  /** When another replay is worth trying; null where it would not help. */
  readonly retryAfterS: number | null;
}

/** What a purge has done. */
export interface Purged {
  readonly letters: number;
  /** Lines that could not be read. */
  readonly damaged: number;
  /** Letters that were meant and stay: rows of an unfinished replay, which go on together. */
  readonly bound: number;
}

/**
 * Of a request about dead letters that means those in one folder only: several collectors may share a
 * port. Its value is what `DeadLetters.folder` answers.
 */
export const FOLDER_HEADER = "Shishi-Folder";

/** The dead letters of a running collector. Rejects with the disk's error. */
export interface DeadLetters {
  /**
   * Equal for processes that look at the same folder; null where there is none. Throws the disk's
   * error.
   */
  folder(): string | null;
  /** The newest first. @param table null: of all tables. `total`: how many there are. */
  newest(
    table: string | null,
    limit: number,
  ): Promise<{ readonly letters: readonly DeadLetter[]; readonly total: number }>;
  /** One letter with its whole row; null where there is none of this id. */
  letter(table: string | null, id: string): Promise<DeadLetter | null>;
  /** As they lie on disk, one line each with its end, the newest first. */
  lines(
    wanted: Pick<LetterFilter, "table" | "code">,
    limit: number,
  ): AsyncIterableIterator<string>;
  /** Every table that has letters, sorted. `asOf`: those written before it are counted, ISO 8601. */
  tables(wanted: Omit<LetterFilter, "ids">): Promise<{
    readonly asOf: string;
    readonly tables: readonly DeadTable[];
  }>;
  /** Gives letters to the collector again, for a bounded time. Not done: others are worked on. */
  replay(wanted: LetterFilter, signal: AbortSignal): Promise<Result<Replaying>>;
  /**
   * Deletes letters. Not done: others are worked on.
   * @param damaged lines that cannot be read go too.
   */
  purge(wanted: Omit<LetterFilter, "ids">, damaged: boolean): Promise<Result<Purged>>;
}

// ── The books: what has happened to rows so far, and what is held at this moment.

/** The seven numbers of the books: received + recovered = rejected + stored + dead + held + lost. */
export interface LedgerTotals {
  readonly received: number;
  readonly recovered: number;
  readonly rejected: number;
  readonly stored: number;
  readonly dead: number;
  readonly held: number;
  readonly lost: number;
}

/** Cumulative counts of one event type in one table. */
export interface TypeTotals {
  readonly table: string;
  /** `""` for tables of shape `row`; `other` beyond the bound. */
  readonly eventType: string;
  readonly accepted: number;
  readonly stored: number;
}

/** What came with the tokens of one label. */
export interface TokenTotals {
  /** Taken: of bodies as they were unpacked. */
  readonly rows: number;
  readonly bytes: number;
  /** Requests that were refused: for want of a right (403), or for a quota (429, 413). */
  readonly refused: { readonly right: number; readonly quota: number };
}

/** The one place where counts live; everything that shows a number reads it from here. */
export interface Ledger {
  /** Good rows that the intake took: received, held. */
  accepted(chunk: Chunk): void;
  /** Rows that were found on disk at the start; they are held. */
  recovered(table: string, rows: number): void;
  /** Messages that were received and became dead letters at once; each counts as a row. */
  died(table: string, messages: number): void;
  /** The counts of a source, to be counted up by it. */
  source(name: string): SourceTotals;
  /** By name, in the order in which they came. */
  sourceTotals(): ReadonlyMap<string, Readonly<SourceTotals>>;
  /** Rows that were received and refused for their content. `reason` from a small fixed set. */
  rejected(table: string, reason: string, rows: number): void;
  /** A batch's rows left: some stored, some dead. `deadTypes` counts the dead ones by event type. */
  settled(batch: Batch, dead: number, deadTypes: TypeCounts): void;
  /** Held rows that are given up at the end. */
  lost(batch: Batch): void;
  /** One INSERT that was stored. */
  insert(table: string, rows: number, durationMs: number): void;
  /** One INSERT that came back without having stored its rows; `code` 0: no answer of ClickHouse. */
  insertError(table: string, code: number): void;
  /** INSERTs into a table get longer than insert-timeout; null: no longer. */
  insertTimeout(table: string, ms: number | null): void;
  /** One request from its first byte to its acknowledgement. */
  acknowledged(durationMs: number): void;
  http(status: number): void;
  mirrorError(): void;
  control(command: string, ok: boolean): void;
  /** A request of a client that has shown a certificate, by its subject. */
  certified(subject: string): void;
  /** Requests by subject, in the order in which they came. */
  subjects(): ReadonlyMap<string, number>;
  /** Rows that were taken with a write token, by its label; bytes of the unpacked body. */
  tokenTook(label: string, rows: number, bytes: number): void;
  tokenRefused(label: string, why: "right" | "quota"): void;
  /** A statement has made a table, or has added or widened columns of one. */
  tableChanged(what: TableChanged): void;
  /** How often, since the start. */
  tableChanges(): Readonly<Record<TableChanged, number>>;
  /** By label, in the order in which they came. */
  tokenTotals(): ReadonlyMap<string, TokenTotals>;
  totals(): LedgerTotals;
  tableTotals(): ReadonlyMap<string, LedgerTotals>;
  typeTotals(): Iterable<TypeTotals>;
  /** Since the process started; for the mirror. `retries`: INSERTs that had to be sent again. */
  work(): {
    readonly inserts: number;
    readonly retries: number;
    /** Quantiles of recent INSERT durations in milliseconds; 0 while there were none. */
    readonly insertMsP50: number;
    readonly insertMsP99: number;
  };
}

/** What is held right now, measured where it is held (not computed from the counts). */
export interface Holdings {
  rows(): number;
  memoryBytes(): number;
  spoolBytes(): number;
  /** Age of the oldest row that is not yet delivered, milliseconds; 0 while there is none. */
  oldestMs(): number;
  /** Held rows by table. */
  byTable(): ReadonlyMap<string, number>;
}

// ── The collector as HTTP, NATS and the page see it, and what they may ask of it.

export type State = "running" | "paused" | "draining" | "degraded" | "stopped";
export type Command = "status" | "flush" | "pause" | "resume" | "stop";
/** Commands that decide what becomes of a collector. */
export type Order = "pause" | "resume" | "stop";

/** `GET /api/status` and the answer to `status` over NATS. */
export interface Status {
  readonly group: string;
  readonly id: string;
  readonly state: State;
  readonly version: string;
  readonly runtime: string;
  readonly uptime_s: number;
  readonly ledger: LedgerTotals;
  readonly oldest_s: number;
  readonly memory_bytes: number;
  readonly spool_bytes: number;
  /** What an earlier process left in the spool is still being read; `held` goes on growing. */
  readonly recovering: boolean;
  /** Requests by subject of the client's certificate; absent where none was shown. */
  readonly certificates?: Readonly<Record<string, number>>;
  /** Statements that made tables, added columns or widened them; absent where there were none. */
  readonly table_changes?: Readonly<Record<TableChanged, number>>;
  /** By label of the write tokens; absent where there are none. */
  readonly tokens?: Readonly<Record<string, TokenTotals>>;
  /** Absent where there are none. */
  readonly sources?: readonly SourceStatus[];
  readonly tables: Readonly<
    Record<string, LedgerTotals & { readonly state: "ok" | "trouble"; readonly trouble?: string }>
  >;
}

/** What remote control and HTTP may ask of the running collector. */
export interface Control {
  status(): Status;
  /** Empty = ready. */
  unready(): readonly string[];
  pause(): void;
  resume(): void;
  /** Seals what is open and waits until all that was held at the call is settled; false at `waitMs`. */
  flush(waitMs: number): Promise<boolean>;
  /**
   * Begins to stop, after drain-delay; resolves when everything is drained or given up, for which it
   * takes at most `withinMs`, shutdown-timeout unless given. Idempotent.
   */
  stop(why: string, withinMs?: number): Promise<void>;
  /** Ends the time in which a stopping collector still takes events; false: there is none. */
  hurry(): boolean;
}

// ── Questions about stored events, which only ClickHouse can answer.

/** Which events are meant. */
export interface Question {
  /** null: of every type. */
  readonly eventType: string | null;
  /** null: any. */
  readonly id: string | null;
  /** From here on, epoch milliseconds; null: since ever. */
  readonly fromMs: number | null;
  /** Before this, epoch milliseconds; null: for ever. */
  readonly toMs: number | null;
}

/** A SELECT that has its values bound: `{name:Type}` in `sql` is `params.name`. */
export interface Select {
  readonly sql: string;
  readonly format: "JSON" | "JSONEachRow";
  readonly params: Readonly<Record<string, string | number>>;
  readonly settings: Readonly<Record<string, string | number>>;
}

/** What came of a statement. `code`: of ClickHouse, 0 where the answer, if any, was not ClickHouse's. */
export type Answered<T> =
  | { readonly ok: true; readonly value: T }
  | Failed & { readonly code: number };

/** Asks ClickHouse; the answer as it came. Never rejects, and changes nothing in a server's health. */
export type Ask = (select: Select, signal: AbortSignal) => Promise<Answered<string>>;

/** What came of a question about events. */
export type Asked =
  /** JSON; numbers have every digit that ClickHouse has. */
  | { readonly kind: "answer"; readonly json: string }
  /** `busy`: too many questions at once. `large`: the answer would be. `slow`: too much to read. */
  | { readonly kind: "busy" | "large" | "slow" | "away"; readonly reason: string };

/** Reads events. Never rejects; `signal`: the client has gone. */
export interface Queries {
  /** How many of which type, and of how many users. */
  metrics(question: Question, signal: AbortSignal): Promise<Asked>;
  /** The newest of them. */
  events(question: Question & { readonly limit: number }, signal: AbortSignal): Promise<Asked>;
}

// ── The status page.

/** The page's answers. */
export interface Page {
  /** `GET /`: needs no token, for it shows nothing before it has one. */
  document(request: Request): Promise<Response>;
  /** `GET /shishi.js`: for pages of every site, and as public as they are. */
  snippet(request: Request): Promise<Response>;
  /** `GET /api/live`: server-sent events until either side ends them. */
  live(): Promise<Response>;
}

// ── The disk.

/**
 * The little that is asked of a disk; the real one and a faulty one for tests fulfil it. Methods reject
 * with an error whose `code` is the system's (`ENOSPC`, `EIO`, `EROFS`, `ENOENT`, …); the caller turns
 * that into an outcome.
 */
export interface Files {
  /** With its parents; 0700. No error when it is there. */
  makeFolder(path: string): Promise<void>;
  /** A new file for appending, 0600; `EEXIST` when it is there. */
  create(path: string): Promise<OpenFile>;
  /** An existing or new file for appending, 0600. */
  append(path: string): Promise<OpenFile>;
  /** An existing or new file, 0600, whose places are written over. */
  overwrite(path: string): Promise<PlacedFile>;
  /** Names in a folder, sorted; folders end in `/`. */
  list(folder: string): Promise<readonly string[]>;
  read(path: string): Promise<Uint8Array>;
  /** The bytes in [from, to), fewer where the file ends before. */
  readPart(path: string, from: number, to: number): Promise<FilePart>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Makes creations, renames and removals in it survive a power cut. */
  syncFolder(path: string): Promise<void>;
}

export interface OpenFile {
  /** At the time of opening, then kept up by `write`. */
  readonly bytes: number;
  /** Appends all of it, or rejects; then a part of it may be there. */
  write(data: Uint8Array): Promise<void>;
  /** Data and length survive a power cut once this resolves. */
  sync(): Promise<void>;
  truncate(bytes: number): Promise<void>;
  close(): Promise<void>;
}

/** A file that is written at places of the caller's choice. */
export interface PlacedFile {
  /** How long it is: at the time of opening, then kept up by `write`. */
  readonly bytes: number;
  /** All of it from `at` on, or rejects; then a part of it may be there. Ends no earlier than before. */
  write(data: Uint8Array, at: number): Promise<void>;
  /** As `write`; safe once it resolves, but not what was written elsewhere before. Rejects as `sync` does, too. */
  writeSafe(data: Uint8Array, at: number): Promise<void>;
  /** As that of an `OpenFile`. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** A part of a file. */
export interface FilePart {
  readonly bytes: Uint8Array;
  /** Of the whole file. */
  readonly size: number;
  /** Another file of the same name has another one. */
  readonly identity: number;
}

// ── The log that rooms write to.

/** Structured log. `fields` are flat; never pass a secret. */
export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}
export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

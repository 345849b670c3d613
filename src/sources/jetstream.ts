/**
 * A stream of JetStream through a durable pull consumer. Members of one consumer share the stream; what one of
 * them leaves unacknowledged comes again after `ack_wait`, to any of them.
 *
 * The library makes consumers here, and does not read: its iterator does not end when the connection does,
 * and it asks for more whatever is not acknowledged. A pull is one request (ADR-13 of NATS), of which there is one
 * at a time, for as many messages as may still be held: so what is unacknowledged is bounded, and whatever
 * the server sends belongs to it. While it waits the server shows every few seconds that it lives.
 *
 * A message's id is its place in the stream and not the sender's `Nats-Msg-Id`: that one may come again, as
 * another message, once the stream's own window for repeats has passed. Positions it has none, for an old
 * message of another member may come after newer ones.
 */

import {
  AckPolicy,
  type ConsumerConfig,
  type ConsumerInfo,
  DeliverPolicy,
  type JetStreamManager,
  type Msg,
  type NatsError,
  type StreamInfo,
} from "nats.ws";
import type { BrokerDeps, Feed, Message, MetaValue, NatsSource } from "../contracts.ts";
import { messageOf } from "../kernel/errors.ts";
import { about, type Finding } from "../kernel/finding.ts";
import type { NatsLink } from "../kernel/nats.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { type Clock, repeat, within } from "../kernel/time.ts";

/** The part of an address that this file reads. */
export type StreamAddress = NatsSource & {
  readonly read: Extract<NatsSource["read"], { readonly what: "stream" }>;
};

const API_MS = 5_000;
/** A pull without messages ends after this, and the next one begins. */
const EXPIRES_MS = 60_000;
const HEARTBEAT_MS = 4_000;
/** Without a sign of life the connection is left. */
const SILENT_MS = 10_000;
const LOOK_MS = 1_000;
/** After a pull that the server has refused. */
const REFUSED_MS = 1_000;
/** How often the consumer is asked for what waits, while nothing comes that says it. */
const LAG_MS = 3_000;
const ACK_MS = 10_000;
const CLOSE_MS = 1_000;
/** Of messages that are held at most, unless one alone has more. */
const MOST_BYTES = 32 * 1024 * 1024;
/** Subject, reply subject and headers count as a message's bytes. */
const AROUND_BYTES = 64 * 1024;

const encoder = new TextEncoder();
const ACK = encoder.encode("+ACK");
const NAK = encoder.encode("-NAK");
const WORKING = encoder.encode("+WPI");

// ── Stream and consumer, and what may be wrong with them.

interface Bound {
  readonly stream: StreamInfo;
  readonly consumer: ConsumerInfo;
}

/** The consumer of an address, made where it is missing and may be. */
async function bind(link: NatsLink, address: StreamAddress): Promise<Result<Bound>> {
  const { read } = address;
  const api = await apiOf(link);
  const stream = await asked(() => api.streams.info(read.stream), address);
  if (!stream.ok) return stream;
  let consumer = await asked(() => api.consumers.info(read.stream, read.consumer), address);
  if (!consumer.ok && consumer.problem === missingConsumer(address) && read.create) {
    const config = configFor(address, stream.value);
    consumer = await asked(() => api.consumers.add(read.stream, config), address);
  }
  if (!consumer.ok) return consumer;
  const problem = problemOf(consumer.value.config, address);
  return problem === null ? done({ stream: stream.value, consumer: consumer.value }) : problem;
}

function apiOf({ connection }: NatsLink): Promise<JetStreamManager> {
  // Its own question whether there is JetStream needs a right that nothing else does.
  return connection.jetstreamManager({ checkAPI: false, timeout: API_MS });
}

function configFor({ read, prefetch }: StreamAddress, { config }: StreamInfo) {
  const most = config.consumer_limits?.max_ack_pending ?? 0;
  const wanted = 10 * prefetch;
  return {
    durable_name: read.consumer,
    description: "made by shishi",
    ack_policy: AckPolicy.Explicit,
    deliver_policy: read.from === "first" ? DeliverPolicy.All : DeliverPolicy.New,
    ack_wait: read.ackWaitMs * 1_000_000,
    // Of all members together.
    max_ack_pending: most > 0 ? Math.min(most, wanted) : wanted,
    max_deliver: -1,
    ...(read.filter === null ? {} : { filter_subject: read.filter }),
  };
}

/** Why a consumer that is there cannot be read from, or null. */
function problemOf(
  config: ConsumerConfig,
  { read }: StreamAddress,
): ReturnType<typeof failed> | null {
  const it = `the consumer ${read.consumer} of the stream ${read.stream}`;
  const way = "delete it, or name another one (consumer=)";
  if (config.deliver_subject !== undefined) {
    return failed(
      `${it} is a push consumer (it delivers to ${config.deliver_subject}), and a source needs a ` +
        `pull consumer: ${way}`,
    );
  }
  if (config.ack_policy !== AckPolicy.Explicit) {
    return failed(
      `${it} has the ack policy ${config.ack_policy}, and a source needs explicit: with any other a ` +
        `message may count as done before its rows are safe; ${way}`,
    );
  }
  if (config.headers_only) return failed(`${it} delivers headers without messages: ${way}`);
  const filters = [config.filter_subject ?? [], config.filter_subjects ?? []].flat();
  if (read.filter !== null && (filters.length !== 1 || filters[0] !== read.filter)) {
    const reads = filters.length === 0 ? "every subject" : filters.join(", ");
    return failed(`${it} reads ${reads}, and filter= says ${read.filter}: ${way}`);
  }
  return null;
}

/** Of the API's errors, those that a setting or a server's administrator can do something about. */
async function asked<T>(question: () => Promise<T>, address: StreamAddress): Promise<Result<T>> {
  try {
    return done(await question());
  } catch (error) {
    return failed(apiProblem(error as NatsError, address));
  }
}

const STREAM_MISSING = 10059;
const CONSUMER_MISSING = 10014;
const NOT_ENABLED = [10039, 10076];

function apiProblem(error: NatsError, address: StreamAddress): string {
  const { read: { stream } } = address;
  const code = error.api_error?.err_code ?? 0;
  if (code === STREAM_MISSING) {
    return `the stream ${stream} is not there, and a source makes none: nats stream add ${stream}`;
  }
  if (code === CONSUMER_MISSING) return missingConsumer(address);
  if (error.code === "503" || NOT_ENABLED.includes(code)) {
    return "there is no JetStream at this server, or not for this account (jetstream { } in its configuration)";
  }
  if (error.code === "TIMEOUT") return `JetStream does not answer within ${API_MS / 1000} s`;
  if (error.permissionContext !== undefined) {
    const { operation, subject } = error.permissionContext;
    return `the server does not permit this user the ${operation} on ${subject}`;
  }
  return error.api_error?.description ?? messageOf(error);
}

function missingConsumer({ read: { stream, consumer } }: StreamAddress): string {
  return `the stream ${stream} has no consumer ${consumer}, and none is made (create=false)`;
}

// ── Reading.

/** Rejects with a sentence. @param trouble the server's last complaint; null: there was none. */
export async function openStream(
  link: NatsLink,
  address: StreamAddress,
  deps: Pick<BrokerDeps, "clock">,
  trouble: () => string | null,
): Promise<Feed & { lose(why: string): void }> {
  const bound = await bind(link, address);
  if (!bound.ok) throw new Error(trouble() ?? bound.problem);
  return new StreamFeed(link, address, bound.value, deps.clock);
}

/** One request for messages that the server works on. */
interface Pull {
  readonly inbox: string;
  /** Messages that it still stands for. */
  left: number;
}

class StreamFeed implements Feed {
  readonly #link: NatsLink;
  readonly #address: StreamAddress;
  readonly #clock: Clock;
  readonly #most: { readonly messages: number; readonly bytes: number; readonly pullMs: number };
  /** How this stream is told from one of the same name that was there before. */
  readonly #created: string;
  /** Messages behind this one were published later than this connection was made, and not given to it before. */
  #newFrom: number;
  readonly #inbox: string;
  readonly #endWatching: readonly (() => void)[];
  readonly #subscription: ReturnType<NatsLink["connection"]["subscribe"]>;
  #pulls = 0;
  #pull: Pull | null = null;
  /** Given by the server and not acknowledged, in its order. */
  #held: StreamMessage[] = [];
  #heldBytes = 0;
  /** The last so many of `#held` were not given to the loop. */
  #ready = 0;
  #waiting: PromiseWithResolvers<readonly Message[]> | null = null;
  #lost: string | null = null;
  #lag: number;
  #lagMs: number;
  #signMs: number;
  #silent = 0;
  #mayPullMs = 0;

  constructor(link: NatsLink, address: StreamAddress, bound: Bound, clock: Clock) {
    const { stream, consumer: { config, num_pending: pending } } = bound;
    const { max_ack_pending: most = 0, max_batch: batch = 0, max_expires: expires = 0 } = config;
    this.#link = link;
    this.#address = address;
    this.#clock = clock;
    this.#most = {
      messages: Math.min(...[address.prefetch, most, batch].filter((count) => count > 0)),
      bytes: Math.max(MOST_BYTES, 2 * this.#largest),
      pullMs: expires > 0 ? Math.min(EXPIRES_MS, expires / 1_000_000) : EXPIRES_MS,
    };
    this.#created = (Date.parse(String(stream.created)) || 0).toString(36);
    this.#newFrom = stream.state.last_seq;
    this.#lag = pending;
    this.#lagMs = this.#signMs = clock.monotonicMs();
    this.#inbox = `_INBOX.${crypto.randomUUID().replaceAll("-", "")}`;
    this.#subscription = link.connection.subscribe(`${this.#inbox}.*`, {
      callback: (error, message) => {
        if (error === null) this.#receive(message);
        else this.lose(messageOf(error));
      },
    });
    void link.closed.then((why) => this.lose(`the connection is lost: ${why}`));
    const waits = [config.ack_wait ?? 0, ...config.backoff ?? []].filter((ns) => ns > 0);
    const thirdMs = Math.max(50, Math.min(...waits, 3_600e9) / 1_000_000 / 3);
    this.#endWatching = [
      repeat(clock, thirdMs, () => this.#keep()),
      repeat(clock, LOOK_MS, () => this.#look()),
    ];
    this.#ask();
  }

  next(): Promise<readonly Message[]> {
    if (this.#lost !== null) return Promise.reject(new Error(this.#lost));
    if (this.#ready > 0) return Promise.resolve(this.#give());
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  async acknowledge([newest]: readonly Message[]): Promise<void> {
    if (this.#lost !== null) throw new Error(this.#lost);
    const count = newest === undefined ? 0 : this.#held.indexOf(newest as StreamMessage) + 1;
    if (count === 0) return;
    const { connection } = this.#link;
    const safe = this.#held.splice(0, count);
    this.#heldBytes -= safe.reduce((sum, { size }) => sum + size, 0);
    const last = safe.pop()!;
    try {
      for (const { reply } of safe) connection.publish(reply, ACK);
      // The server takes them in this order, so the answer to the last one is the answer to all.
      await connection.request(last.reply, ACK, { timeout: ACK_MS });
    } catch (error) {
      const late = (error as NatsError).code === "TIMEOUT";
      const why = late ? ` for ${ACK_MS / 1000} s` : `: ${messageOf(error)}`;
      this.lose(`the server does not confirm an acknowledgement${why}`);
      throw new Error(this.#lost ?? why);
    }
    this.#ask();
  }

  lag(): number | null {
    return this.#lag;
  }

  async close(untaken: readonly Message[] = []): Promise<void> {
    const dead = this.#lost !== null;
    this.lose("closed");
    if (!dead) {
      // What is certainly not taken need not wait for the end of ack_wait before another member has it.
      const { connection } = this.#link;
      const { stream, consumer } = this.#address.read;
      const work = this.#subscription.drain().then(async () => {
        // Asked for that, servers of 2.9 forget the pull; a message that goes back before gets lost in it.
        const api = await apiOf(this.#link);
        await api.consumers.info(stream, consumer);
        const unseen = this.#held.slice(this.#held.length - this.#ready)
          .filter(({ again }) => !again);
        for (const { reply } of [...untaken as readonly StreamMessage[], ...unseen]) {
          connection.publish(reply, NAK);
        }
        return connection.flush();
      });
      await within(this.#clock, CLOSE_MS, work.catch(() => {}), undefined);
    }
    await this.#link.close();
  }

  /** Nothing comes any more, and why. */
  lose(why: string): void {
    if (this.#lost !== null) return;
    this.#lost = why;
    for (const end of this.#endWatching) end();
    this.#waiting?.reject(new Error(why));
    this.#waiting = null;
  }

  /** Of a message, as the server counts it. */
  get #largest(): number {
    return (this.#link.connection.info?.max_payload ?? 1024 * 1024) + AROUND_BYTES;
  }

  /** Asks for as much as may be held, where nothing is asked for. */
  #ask(): void {
    const room = this.#most.messages - this.#held.length;
    const bytes = this.#most.bytes - this.#heldBytes;
    const now = this.#clock.monotonicMs();
    if (this.#pull !== null || this.#lost !== null || now < this.#mayPullMs) return;
    if (room <= 0 || (bytes < this.#largest && this.#held.length > 0)) return;
    const { stream, consumer } = this.#address.read;
    const request = {
      batch: room,
      max_bytes: Math.max(bytes, this.#largest),
      expires: this.#most.pullMs * 1_000_000,
      idle_heartbeat: Math.min(HEARTBEAT_MS, this.#most.pullMs / 2) * 1_000_000,
    };
    const inbox = `${this.#inbox}.${++this.#pulls}`;
    this.#pull = { inbox, left: room };
    this.#signMs = now;
    this.#silent = 0;
    this.#link.connection.publish(
      `$JS.API.CONSUMER.MSG.NEXT.${stream}.${consumer}`,
      encoder.encode(JSON.stringify(request)),
      { reply: inbox },
    );
  }

  #receive(message: Msg): void {
    this.#signMs = this.#clock.monotonicMs();
    this.#silent = 0;
    const code = message.headers?.code ?? 0;
    if (code !== 0 && message.data.length === 0) {
      return this.#heard(message.subject, code, message.headers?.description ?? "");
    }
    const delivery = readDelivery(message.reply ?? "");
    // The server alone knows the inbox.
    if (delivery === null) return;
    this.#lag = delivery.pending;
    this.#lagMs = this.#signMs;
    const { stream } = this.#address.read;
    const again = delivery.times > 1 || delivery.sequence <= this.#newFrom;
    // What is new comes in its order; servers of 2.9 may give one that went back as new once more.
    this.#newFrom = Math.max(this.#newFrom, delivery.sequence);
    const held = new StreamMessage(message, delivery, stream, this.#created, again);
    this.#held.push(held);
    this.#heldBytes += held.size;
    this.#ready++;
    if (this.#pull !== null && --this.#pull.left === 0) this.#pull = null;
    if (this.#lost !== null) return;
    this.#hand();
    this.#ask();
  }

  /** The server says something of a pull. */
  #heard(inbox: string, code: number, description: string): void {
    if (code === 100 || this.#lost !== null || inbox !== this.#pull?.inbox) return;
    this.#pull = null;
    const { stream, consumer } = this.#address.read;
    if (code === 503) return this.lose("JetStream has gone: no server answers for the consumer");
    if (/consumer deleted|consumer is push/i.test(description)) {
      return this.lose(`the consumer ${consumer} of the stream ${stream} was deleted`);
    }
    // The next leader may not know all that this one has given.
    if (/leadership/i.test(description)) this.#newFrom = Infinity;
    // 404 and 408: it came to its end. A message larger than what was left of it comes with the next one.
    const usual = code === 404 || code === 408 || /maxbytes|batch completed/i.test(description);
    if (!usual) this.#mayPullMs = this.#clock.monotonicMs() + REFUSED_MS;
    this.#ask();
  }

  #hand(): void {
    if (this.#waiting === null) return;
    // Those that came with it are read together.
    const waiting = this.#waiting;
    this.#waiting = null;
    queueMicrotask(() => {
      if (this.#lost === null) waiting.resolve(this.#give());
      else waiting.reject(new Error(this.#lost));
    });
  }

  #give(): readonly Message[] {
    const ready = this.#held.slice(this.#held.length - this.#ready);
    this.#ready = 0;
    return ready;
  }

  /** What is held is being worked on: it need not come again. */
  #keep(): void {
    const { connection } = this.#link;
    if (this.#lost !== null || connection.isClosed()) return;
    for (const { reply } of this.#held) connection.publish(reply, WORKING);
  }

  async #look(): Promise<void> {
    const now = this.#clock.monotonicMs();
    // Twice, so that a process that was itself held up does not take that for the server's silence.
    const silent = this.#pull !== null && now - this.#signMs >= SILENT_MS;
    this.#silent = silent ? this.#silent + 1 : 0;
    if (this.#silent > 1) return this.lose(`no sign of life for ${SILENT_MS / 1000} s`);
    this.#ask();
    if (now - this.#lagMs < LAG_MS) return;
    this.#lagMs = now;
    const { stream, consumer } = this.#address.read;
    const api = await apiOf(this.#link);
    const found = await asked(() => api.consumers.info(stream, consumer), this.#address);
    if (found.ok) this.#lag = found.value.num_pending;
    else if (found.problem === missingConsumer(this.#address)) {
      this.lose(`the consumer ${consumer} of the stream ${stream} was deleted`);
    }
  }
}

/** What the reply subject of a message says of it. */
interface Delivery {
  /** How often it was given, this time included. */
  readonly times: number;
  readonly sequence: number;
  /** As it was written. */
  readonly sequenceText: string;
  /** When it was stored, nanoseconds. */
  readonly storedNs: string;
  /** Messages of the stream that the consumer has not given yet. */
  readonly pending: number;
}

/**
 * `$JS.ACK.STREAM.CONSUMER.TIMES.SEQUENCE.OF_CONSUMER.NANOSECONDS.PENDING`; newer servers write domain and
 * account in front of the stream, and something more behind.
 */
export function readDelivery(reply: string): Delivery | null {
  if (!reply.startsWith("$JS.ACK.")) return null;
  const tokens = reply.split(".");
  if (tokens.length < 9 || tokens.length === 10) return null;
  const first = tokens.length === 9 ? 4 : 6;
  const times = tokens[first]!, sequenceText = tokens[first + 1]!;
  const storedNs = tokens[first + 3]!, pending = tokens[first + 4]!;
  const sound = isCount(times) && isCount(sequenceText) && isCount(storedNs) && isCount(pending);
  if (!sound) return null;
  return {
    times: Number(times),
    sequence: Number(sequenceText),
    sequenceText,
    storedNs,
    pending: Number(pending),
  };
}

/** Digits, no more than a count of 64 bits has. It is asked four times of each message, so it is no pattern. */
function isCount(text: string): boolean {
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code < 0x30 || code > 0x39) return false;
  }
  return text.length > 0 && text.length <= 20;
}

class StreamMessage implements Message {
  readonly partition: string;
  readonly counted = true;
  readonly again: boolean;
  readonly body: Uint8Array;
  readonly encoding?: string;
  readonly reply: string;
  /** Bytes. */
  readonly size: number;
  readonly #message: Msg;
  readonly #delivery: Delivery;
  readonly #created: string;

  constructor(
    message: Msg,
    delivery: Delivery,
    stream: string,
    created: string,
    again: boolean,
  ) {
    const { data, headers, reply = "" } = message;
    this.partition = stream;
    this.again = again;
    this.body = data;
    const encoding = headers === undefined ? undefined : encodingOf(message);
    if (encoding !== undefined) this.encoding = encoding;
    this.reply = reply;
    this.size = data.length + reply.length + message.subject.length;
    this.#message = message;
    this.#delivery = delivery;
    this.#created = created;
  }

  get id(): string {
    return `${this.#created}/${this.#delivery.sequenceText}`;
  }

  get address(): string {
    return `nats:${this.partition}@${this.#delivery.sequenceText}`;
  }

  meta(name: string): MetaValue {
    const { sequence, sequenceText, storedNs } = this.#delivery;
    switch (name) {
      case "_subject":
        return this.#message.subject;
      case "_stream":
        return this.partition;
      case "_sequence":
        return Number.isSafeInteger(sequence) ? sequence : sequenceText;
      case "_timestamp":
        return new Date(Number(BigInt(storedNs) / 1_000_000n)).toISOString();
      case "_headers":
        return headersOf(this.#message);
      default:
        return null;
    }
  }
}

/** Null where it has none; several values of one name are one text. */
export function headersOf({ headers }: Msg): Readonly<Record<string, string>> | null {
  if (headers === undefined) return null;
  return Object.fromEntries(headers.keys().map((name) => [name, headers.values(name).join(", ")]));
}

/** NATS tells names of headers apart by their case; HTTP's are written in any. */
export function encodingOf({ headers }: Msg): string | undefined {
  const name = headers?.keys().find((name) => name.toLowerCase() === "content-encoding");
  return name === undefined ? undefined : headers!.get(name).toLowerCase();
}

// ── For `shishi check`.

/** Never rejects; changes nothing. @param what the source, as findings name it. */
export async function inspectStream(
  link: NatsLink,
  address: StreamAddress,
  what: string,
): Promise<readonly Finding[]> {
  const { read } = address;
  const is = about(what);
  const api = await apiOf(link);
  const stream = await asked(() => api.streams.info(read.stream), address);
  if (!stream.ok) return [is.wrong(stream.problem)];
  const consumer = await asked(() => api.consumers.info(read.stream, read.consumer), address);
  return [
    ...consumer.ok
      ? lookAtConsumer(consumer.value, address, is)
      : [lookAtMissing(consumer.problem, stream.value, address, is)],
    ...lookAtStream(stream.value, read.stream, is),
  ];
}

type Say = ReturnType<typeof about>;

function lookAtMissing(problem: string, stream: StreamInfo, address: StreamAddress, is: Say) {
  const { read } = address;
  if (problem !== missingConsumer(address)) return is.wrong(problem);
  if (!read.create) return is.wrong(problem, `nats consumer add ${read.stream} ${read.consumer}`);
  const begins = read.from === "first"
    ? `with the first of ${stream.state.messages} messages`
    : "with what comes then";
  return is.ok(
    `the stream ${read.stream} is there; the consumer ${read.consumer} will be made, and begins ${begins}`,
  );
}

function lookAtConsumer(info: ConsumerInfo, address: StreamAddress, is: Say): Finding[] {
  const { config, num_pending: pending, num_ack_pending: open } = info;
  const { read } = address;
  const problem = problemOf(config, address);
  if (problem !== null) return [is.wrong(problem.problem)];
  const ackWaitS = (config.ack_wait ?? 0) / 1e9;
  const most = config.max_ack_pending ?? 0;
  const edit = `nats consumer edit ${read.stream} ${read.consumer}`;
  const findings = [is.ok(
    `the consumer ${read.consumer} of the stream ${read.stream}: ${pending} messages wait, ${open} are ` +
      `not acknowledged; explicit, ack_wait ${ackWaitS} s, max_ack_pending ${
        most > 0 ? most : "none"
      }`,
  )];
  if ((config.max_deliver ?? -1) > 0) {
    findings.push(is.warning(
      `a message is given ${config.max_deliver} times at most (max_deliver): what was not taken by then, ` +
        "through restarts or a long pause, is never given again",
      `${edit} --max-deliver=-1`,
    ));
  }
  if (ackWaitS < 5) {
    findings.push(is.warning(
      `what is not acknowledged within ${ackWaitS} s comes again (ack_wait), which a slow disk may need`,
      `${edit} --wait=30s`,
    ));
  }
  if (most > 0 && most < address.prefetch) {
    findings.push(is.warning(
      `all members together may hold ${most} messages (max_ack_pending), fewer than prefetch ${address.prefetch}`,
      `${edit} --max-pending=${address.prefetch * 10}`,
    ));
  }
  return findings;
}

/** What publishers were told is stored may be lost with a server; a source can do nothing about it. */
function lookAtStream({ config }: StreamInfo, stream: string, is: Say): Finding[] {
  if (config.storage === "memory") {
    return [is.warning(
      `the stream ${stream} is in the server's memory: what is not read yet is lost with it`,
      "make it with --storage=file",
    )];
  }
  return (config.num_replicas ?? 1) > 1 ? [] : [is.warning(
    `the stream ${stream} has one replica, and its server syncs what it has stored every two minutes unless ` +
      "sync_interval says otherwise, which it does not tell: a power cut may lose what was published",
    "sync_interval: always in its jetstream block, or three replicas",
  )];
}

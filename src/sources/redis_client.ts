/**
 * One connection to Redis: the library, loaded when it is wanted first, with everything switched off that
 * it would do unasked (reconnecting, a queue while the server is away) and RESP3, whose answers have other
 * shapes; TLS and login; and what goes wrong, as a sentence.
 *
 * The login is a command of ours and not the library's: it writes about a login that fails to the
 * console, or drops the reason.
 */

import type { BrokerAddress, BrokerDeps, BrokerHost, RedisSource } from "../contracts.ts";
import { nodeNet } from "../kernel/builtins.ts";
import { plainNetworkError, reasonOf } from "../kernel/errors.ts";
import { secretText, tlsFault, type TlsOptions, tlsOptions } from "./tls.ts";

/** An address of a source or an exit, as far as a connection goes. */
export type RedisAddress = BrokerAddress & Pick<RedisSource, "database">;

/** A command and its arguments. */
export type Words = readonly (string | number | Uint8Array)[];

/** An answer: text as its bytes. */
export type Reply = Uint8Array | number | null | readonly Reply[];

/** From the first byte to the end of TLS. */
const CONNECT_MS = 5_000;
/** Silence for so long after a question means that the server is away: no command of ours blocks for longer than 1 s. */
const SILENCE_MS = 5_000;
/** How long an end waits for the other side's. */
const LINGER_MS = 200;

/** Redis has answered with an error. The message is a sentence without a full stop. */
export class RedisRefusal extends Error {
  /** Its first word: `WRONGTYPE`. */
  readonly code: string;
  /** As it was. */
  readonly said: string;

  constructor(said: string, sentence: string) {
    super(sentence);
    this.name = "RedisRefusal";
    this.said = said;
    this.code = /^[A-Z][A-Z0-9]*/.exec(said)?.[0] ?? "";
  }

  /** The server is too old for the command, or does not have it under this name. */
  get isUnknownCommand(): boolean {
    return /^ERR unknown (?:sub)?command/i.test(this.said);
  }
}

/** Rejections are errors whose message is a sentence: a `RedisRefusal`, or why the connection was lost. */
export interface RedisConnection {
  readonly host: BrokerHost;
  /** `host:6379`. */
  readonly server: string;
  call(...words: Words): Promise<Reply>;
  /** Several on one way there and back; rejects with the first error, when all are answered. */
  many(commands: readonly Words[]): Promise<readonly Reply[]>;
  /** Subscribes; only `ping` may be called from then on. */
  subscribe(channel: string, onMessage: (body: Uint8Array) => void): Promise<void>;
  /** An answer within `SILENCE_MS`, or the connection is lost. */
  ping(): Promise<void>;
  /** Resolves when the connection is over, with why. */
  readonly lost: Promise<Error>;
  close(): void;
}

type Library = typeof import("./redis_library.ts");
let loading: Promise<Library> | null = null;

/**
 * Connects and logs in at the first server of the address that lets us; rejects with a sentence about the last
 * one, or when `signal` is aborted.
 * @param primary of several servers, one that only copies another is passed over.
 */
export async function connectRedis(
  address: RedisAddress,
  deps: BrokerDeps,
  signal: AbortSignal,
  primary = true,
): Promise<RedisConnection> {
  const library = await (loading ??= import("./redis_library.ts"));
  const login = await loginOf(address, deps);
  let problem: unknown;
  for (const host of address.hosts) {
    signal.throwIfAborted();
    try {
      const connection = await open(library, host, address, login, signal);
      if (address.hosts.length === 1 || !primary || await isPrimary(connection)) return connection;
      connection.close();
      problem = new Error(`${connection.server}: a replica, and no other server is there`);
    } catch (error) {
      problem = error;
    }
  }
  throw problem;
}

interface Login {
  /** Null: none is wanted. */
  readonly auth: Words | null;
  readonly tls: TlsOptions | null;
}

/** Files are read anew: a renewed one counts. */
async function loginOf(address: RedisAddress, deps: BrokerDeps): Promise<Login> {
  const { user } = address;
  const password = await secretText(address.password, deps);
  const auth = address.password === null && user === null
    ? null
    : ["AUTH", ...(user === null ? [] : [user]), password];
  return { auth, tls: address.tls ? await tlsOptions(address, deps) : null };
}

async function open(
  { Redis }: Library,
  { host, port }: BrokerHost,
  address: RedisAddress,
  { auth, tls }: Login,
  signal: AbortSignal,
): Promise<RedisConnection> {
  const client = new Redis({
    host,
    port,
    // Both of IPv4 and IPv6.
    family: 0,
    ...(tls === null
      ? {}
      : { tls: { ...tls, ...(nodeNet().isIP(host) === 0 ? { servername: host } : {}) } }),
    protocol: 2,
    lazyConnect: true,
    connectTimeout: CONNECT_MS,
    socketTimeout: SILENCE_MS,
    disconnectTimeout: LINGER_MS,
    enableReadyCheck: false,
    enableOfflineQueue: false,
    maxRetriesPerRequest: null,
    autoResubscribe: false,
    autoResendUnfulfilledCommands: false,
    disableClientInfo: true,
    retryStrategy: () => null,
  });
  const connection = new Connection(client, { host, port }, tls !== null);
  const abort = () => connection.close();
  signal.addEventListener("abort", abort, { once: true });
  try {
    // Its own rejection has no reason; `lost` has.
    await client.connect().catch(async () => {
      throw await connection.lost;
    });
    if (auth !== null) await connection.call(...auth);
    if (address.database !== 0) await connection.call("SELECT", address.database);
    // Also finds what asks for a login, and is no Redis.
    else await connection.call("PING");
    await connection.call("CLIENT", "SETNAME", "shishi").catch(() => {});
    signal.throwIfAborted();
    return connection;
  } catch (error) {
    connection.close();
    throw error;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** A user that may not ask is believed to be at the right one. */
async function isPrimary(connection: RedisConnection): Promise<boolean> {
  try {
    const [role] = await connection.call("ROLE") as Reply[];
    return textOfReply(role) === "master";
  } catch (error) {
    if (error instanceof RedisRefusal) return true;
    throw error;
  }
}

type Client = InstanceType<Library["Redis"]>;

class Connection implements RedisConnection {
  readonly server: string;
  readonly lost: Promise<Error>;
  readonly #client: Client;
  readonly #tls: boolean;
  #answered = false;

  constructor(client: Client, readonly host: BrokerHost, tls: boolean) {
    const server = host.host.includes(":")
      ? `[${host.host}]:${host.port}`
      : `${host.host}:${host.port}`;
    this.server = server;
    this.#client = client;
    this.#tls = tls;
    const { promise, resolve } = Promise.withResolvers<Error>();
    this.lost = promise;
    let why: Error | null = null;
    client.on("error", (error: Error) => {
      why ??= error;
    });
    client.once("end", () => {
      const said = why === null ? "the server closed the connection" : networkSentence(why);
      resolve(new Error(`${server}: ${said}${this.#advice(said)}`));
    });
  }

  /** Neither side says of a TLS that only one of them speaks what is wrong. */
  #advice(said: string): string {
    if (this.#answered) return "";
    if (this.#tls) return /timed out/.test(said) ? ": redis:// instead, if it has no TLS" : "";
    return /broken off|closed/.test(said) ? ": rediss:// instead, if it wants TLS" : "";
  }

  call(...words: Words): Promise<Reply> {
    const [name, ...args] = words as [string, ...(string | number | Buffer)[]];
    return this.#answer(this.#client.callBuffer(name, args) as Promise<Reply>);
  }

  async many(commands: readonly Words[]): Promise<readonly Reply[]> {
    const pipeline = this.#client.pipeline();
    for (const [name, ...args] of commands) {
      (pipeline as unknown as { callBuffer(name: unknown, args: unknown): void })
        .callBuffer(name, args);
    }
    const answers = await this.#answer(pipeline.exec()) ?? [];
    const failed = answers.find(([error]) => error !== null);
    if (failed !== undefined) return this.#answer(Promise.reject(failed[0]));
    return answers.map(([, reply]) => reply as Reply);
  }

  async subscribe(channel: string, onMessage: (body: Uint8Array) => void): Promise<void> {
    this.#client.on("messageBuffer", (_: Uint8Array, body: Uint8Array) => onMessage(body));
    await this.#answer(this.#client.subscribe(channel));
  }

  async ping(): Promise<void> {
    await this.#answer(this.#client.ping());
  }

  close(): void {
    this.#client.disconnect();
  }

  async #answer<T>(asked: Promise<T>): Promise<T> {
    try {
      const answer = await asked;
      this.#answered = true;
      return answer;
    } catch (error) {
      if (error instanceof Error && error.name === "ReplyError") {
        this.#answered = true;
        // Of a command that is unknown Redis repeats the arguments: a password may be among them.
        const said = error.message.replace(/,? ?with args beginning with:.*$/s, "");
        throw new RedisRefusal(said, `${this.server}: ${refusalSentence(said)}`);
      }
      // Nothing else is said of a connection that is over, so it has to be.
      this.#client.disconnect();
      throw await this.lost;
    }
  }
}

// ── Answers.

const decoder = new TextDecoder();

/** Text of an answer; "" where it is none. */
export function textOfReply(reply: Reply | undefined): string {
  if (typeof reply === "number") return String(reply);
  return reply instanceof Uint8Array ? decoder.decode(reply) : "";
}

// ── Sentences.

/** What Redis says, for people. What is not here is said as Redis says it. */
const SAID: readonly (readonly [RegExp, string])[] = [
  [/^WRONGPASS/, "the server refuses user and password"],
  [/^ERR invalid password/, "the server refuses the password"],
  [/^NOAUTH/, "the server asks for a password"],
  [
    /^ERR (?:AUTH <password> called without any password|Client sent AUTH, but no password)/,
    "the server has no password, and one was given: with a user's name before it, if it is that user's",
  ],
  [
    /^ERR wrong number of arguments for 'auth'/,
    "the server is older than Redis 6 and knows no users: give the password alone",
  ],
  [/^ERR (?:DB index|invalid DB index)/, "there is no database of this number"],
  [/^DENIED/, "the server is in protected mode: it takes no connections from other hosts"],
  [/^WRONGTYPE/, "under the key is something of another kind"],
  [/^(?:NOGROUP|UNBLOCKED)/, "the stream or its group is gone"],
  [/^READONLY/, "the server is a replica, which takes nothing: name the primary"],
  [/^MASTERDOWN/, "the server is a replica that has lost its primary"],
  [/^LOADING/, "the server is still reading its data"],
  [/^BUSY /, "the server is busy with a script"],
  [/^OOM/, "the server's memory is full (maxmemory)"],
  [/^MISCONF/, "the server takes no writes, because it cannot write to its disk"],
  [/^NOREPLICAS/, "the server takes no writes, because it has too few replicas"],
  [/^ERR max number of clients/, "the server has as many clients as it allows"],
  [/^CLUSTERDOWN/, "the cluster is down"],
  [/^CROSSSLOT/, "the cluster has these keys in different places: put the same {…} in both names"],
];

function refusalSentence(said: string): string {
  const moved = /^(?:MOVED|ASK) \d+ (\S+)/.exec(said)?.[1];
  if (moved !== undefined) {
    return `the server is one of a cluster, and ${moved} has this key: name that one, which has to keep it`;
  }
  const permitted = /^NOPERM (.*)/s.exec(said)?.[1];
  if (permitted !== undefined) {
    return `not permitted: ${permitted.replace(/^[Tt]his user/, "the user")}`;
  }
  const unknown = /^ERR unknown command '?`?(\w+)/i.exec(said)?.[1];
  if (unknown !== undefined) {
    return `the server has no command ${unknown.toUpperCase()}: it is too old, or hides it`;
  }
  return SAID.find(([pattern]) => pattern.test(said))?.[1] ?? `the server says ${said}`;
}

function networkSentence(error: Error): string {
  if (/^Socket timeout/.test(error.message)) return `no answer for ${SILENCE_MS / 1000} s`;
  if (error.name === "ParserError" || /^(?:Unknown RESP|Protocol error)/i.test(error.message)) {
    return "what answers there is no Redis";
  }
  const fault = tlsFault(error);
  if (fault !== null) return fault;
  return reasonOf(plainNetworkError(error));
}

/**
 * How a Kafka is reached: the library, loaded when it is wanted first; TLS and login of an address; a guard
 * around what the library throws where no call waits for it; and its errors in plain words.
 *
 * Every client tries once (`retries: 0`): with the library's own retries it goes on for ever without a word of
 * what is wrong. What is tried again, and when, is decided above.
 */

import process from "node:process";
import type { Readable } from "node:stream";
import type { Connection, ConnectionOptions } from "@platformatic/kafka";
import type { BrokerAddress, BrokerDeps, KafkaSource } from "../contracts.ts";
import { nodeNet, nodeZlib } from "../kernel/builtins.ts";
import { codeOf, plainNetworkError, reasonOf } from "../kernel/errors.ts";
import { secretText, tlsFault, tlsOptions } from "./tls.ts";

/** Where the library is in a bundle: from a line and a column to before another, as stacks name them. */
declare const SHISHI_KAFKA_CODE:
  | readonly (readonly [line: number, column: number, endLine: number, endColumn: number])[]
  | undefined;

export type Library = typeof import("./kafka_library.ts");

/** An address of a source or an exit, as far as a connection goes. */
export type KafkaAddress =
  & BrokerAddress
  & Pick<KafkaSource, "sasl" | "token">;

/** For one connection, from its first byte to the end of the login. */
const CONNECT_MS = 5_000;
/** Of one batch of messages. */
const UNPACKED_BYTES = 64 * 1024 * 1024;
/** How the broker's own log and its quotas show this client. */
const CLIENT_ID = "shishi";

let loading: Promise<Library> | null = null;

/** Loads it, 200 to 300 ms and 50 MB, the first time; the guard is up from then on. */
export function loadLibrary(log: BrokerDeps["log"]): Promise<Library> {
  return loading ??= import("./kafka_library.ts").then((library) => {
    library.instancesChannel.subscribe((made) => {
      const { type, instance } = made as { type: string; instance: unknown };
      if (type === "connection") guard(instance as Connection, log);
      // One that is still being made when its client is closed.
      else if (type === "messages-stream") (instance as Readable).on("error", () => {});
    });
    guardTimers(library.ITS_URL, log);
    boundUnpacking(library.compressionsAlgorithms);
    return library;
  });
}

/** Options of every kind of client of the library. */
export interface ClientOptions extends ConnectionOptions {
  readonly clientId: string;
  readonly bootstrapBrokers: string[];
  readonly retries: 0;
}

/**
 * Reads what the address names by its path, so that a renewed file counts. Rejects with a sentence that names
 * the file.
 */
export async function clientOptions(
  address: KafkaAddress,
  deps: BrokerDeps,
  requestTimeoutMs: number,
): Promise<ClientOptions> {
  const names = address.hosts.every(({ host }) => nodeNet().isIP(host) === 0);
  return {
    clientId: CLIENT_ID,
    bootstrapBrokers: address.hosts.map(({ host, port }) =>
      `${host.includes(":") ? `[${host}]` : host}:${port}`
    ),
    retries: 0,
    connectTimeout: CONNECT_MS,
    requestTimeout: requestTimeoutMs,
    ...(address.tls ? { tls: await tlsOptions(address, deps), tlsServerName: names } : {}),
    ...(address.sasl === null ? {} : { sasl: await saslOptions(address, deps) }),
  };
}

async function saslOptions({ sasl, user, password, token }: KafkaAddress, deps: BrokerDeps) {
  const mechanism = sasl!.toUpperCase() as "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512";
  if (sasl !== "oauthbearer") {
    return { mechanism, username: user ?? "", password: await secretText(password, deps) };
  }
  return {
    mechanism: "OAUTHBEARER" as const,
    // Asked at every connection, and before the broker's time for the last one is over.
    token: async () => (await secretText(token, deps)).trim(),
    authBytesValidator(answer: Uint8Array, done: (error: Error | null, bytes: never) => void) {
      // A token is refused with words inside of an answer that counts as a success.
      const said = /"status"\s*:\s*"([^"]{1,100})"/.exec(new TextDecoder().decode(answer))?.[1];
      done(
        said === undefined ? null : new Error(`the broker refuses the token: ${said}`),
        answer as never,
      );
    },
  };
}

/**
 * The library answers some events of a socket after the call that they belonged to has ended, and an `error`
 * without a listener, or an exception in a socket's event, would end this process.
 */
function guard(connection: Connection, log: BrokerDeps["log"]): void {
  connection.on("error", () => {});
  connection.on("connecting", () =>
    // The socket is made right after this event.
    queueMicrotask(() => {
      const { socket } = connection;
      socket.on("error", () => {});
      const shield = () => {
        for (const event of ["data", "close", "error"] as const) {
          for (const listener of socket.listeners(event) as ((...args: unknown[]) => void)[]) {
            socket.removeListener(event, listener);
            socket.on(event, (...args: unknown[]) => {
              try {
                listener.apply(socket, args);
              } catch (error) {
                log.error("kafka: an answer could not be worked on", { error: reasonOf(error) });
                socket.destroy();
              }
            });
          }
        }
      };
      socket.once("secureConnect", shield);
      if (!("encrypted" in socket)) socket.once("connect", shield);
    }));
}

/**
 * The library unpacks whatever comes, and a megabyte of gzip or zstd may be a gigabyte. The other codecs pack
 * less well: 255 times at most.
 */
function boundUnpacking({ gzip, zstd }: Library["compressionsAlgorithms"]): void {
  const limit = { maxOutputLength: UNPACKED_BYTES };
  const bounded = (unpack: () => Buffer): Buffer => {
    try {
      return unpack();
    } catch (error) {
      if (codeOf(error) !== "ERR_BUFFER_TOO_LARGE") throw error;
      const most = UNPACKED_BYTES / 1024 / 1024;
      throw new Error(`a batch of messages unpacks to more than ${most} MiB`);
    }
  };
  type Packed = Parameters<typeof gzip.decompressSync>[0];
  const bytesOf = (data: Packed) => data instanceof Uint8Array ? data : data.buffer;
  Object.assign(gzip, {
    decompressSync: (data: Packed) => bounded(() => nodeZlib().gunzipSync(bytesOf(data), limit)),
  });
  Object.assign(zstd, {
    decompressSync: (data: Packed) =>
      bounded(() => nodeZlib().zstdDecompressSync(bytesOf(data), limit)),
  });
}

/**
 * What the library throws in a timer of its own (a heartbeat) has no caller at all. Whatever else is thrown so
 * ends this process as it would without a guard.
 */
function guardTimers(itsUrl: string, log: BrokerDeps["log"]): void {
  const isIts = placesOf(itsUrl);
  const guard = (error: unknown) => {
    if (error instanceof Error && isIts(error)) {
      return log.error("kafka: the client has failed", { error: reasonOf(error) });
    }
    process.off("uncaughtException", guard);
    queueMicrotask(() => {
      throw error;
    });
  };
  process.on("uncaughtException", guard);
}

/**
 * Tells by its stack what the library has thrown: by the library's own path; in the binary, where it is a file,
 * by that; and where all of this program is one file, by the places in it that its bundler names.
 */
function placesOf(itsUrl: string): (error: Error) => boolean {
  const path = itsUrl.replace(/^file:\/\//, "");
  const isAlone = itsUrl !== import.meta.url;
  const places = typeof SHISHI_KAFKA_CODE === "object" ? SHISHI_KAFKA_CODE : [];
  const isIn = (line: number, column: number) =>
    places.some(([from, first, to, last]) =>
      (line > from || line === from && column >= first) &&
      (line < to || line === to && column < last)
    );
  return ({ stack = "" }) => {
    if (stack.includes("node_modules/@platformatic/kafka/")) return true;
    if (isAlone) return stack.includes(path);
    return stack.split("\n").some((frame) => {
      const [, line, column] = /:(\d+):(\d+)\)?$/.exec(frame) ?? [];
      return line !== undefined && frame.includes(path) && isIn(Number(line), Number(column));
    });
  };
}

// ── Errors.

/** What a broker says with a code, for people. */
const SAID: Readonly<Record<string, string>> = {
  UNSUPPORTED_SASL_MECHANISM: "the broker does not take this sasl= mechanism",
  ILLEGAL_SASL_STATE: "the broker does not take the login",
  TOPIC_AUTHORIZATION_FAILED: "the user may not read the topic (it needs READ and DESCRIBE)",
  GROUP_AUTHORIZATION_FAILED: "the user may not join the group (it needs READ)",
  CLUSTER_AUTHORIZATION_FAILED: "the user may not do this in the cluster",
  GROUP_MAX_SIZE_REACHED: "the group has as many members as the broker allows",
  INVALID_SESSION_TIMEOUT: "the broker does not allow this session= (group.*session.timeout.ms)",
  INCONSISTENT_GROUP_PROTOCOL: "other members of the group share partitions in another way",
  GROUP_ID_NOT_FOUND: "the group's members speak the other protocol=",
  UNSUPPORTED_VERSION: "the broker is too old for what was asked of it",
  UNKNOWN_TOPIC_ID: "the topic was deleted, or made anew",
  UNKNOWN_TOPIC_OR_PARTITION: "there is no such topic",
  NOT_LEADER_OR_FOLLOWER: "the partition has another leader now",
  LEADER_NOT_AVAILABLE: "the partition has no leader",
  COORDINATOR_NOT_AVAILABLE: "the group has no coordinator yet",
  COORDINATOR_LOAD_IN_PROGRESS: "the group's coordinator is being moved to another broker",
  NOT_COORDINATOR: "the group's coordinator is being moved to another broker",
};

/** An error and what is in it, outermost first. */
export function* within(error: unknown, depth = 0): Generator<Error> {
  if (!(error instanceof Error) || depth > 8) return;
  yield error;
  for (const inner of (error as Partial<AggregateError>).errors ?? []) {
    yield* within(inner, depth + 1);
  }
  yield* within(error.cause, depth + 1);
}

/** The protocol's names of what a broker has said with an error: `REBALANCE_IN_PROGRESS`, … */
export function apiIdsOf(error: unknown): string[] {
  return [...within(error)].flatMap((at) => {
    const { apiId } = at as { apiId?: unknown };
    return typeof apiId === "string" ? [apiId] : [];
  });
}

/** Whether the connection failed, and nothing was said of what was asked. */
export function isNetworkError(error: unknown): boolean {
  return apiIdsOf(error).length === 0 &&
    [...within(error)].some((at) => codeOf(at) === "PLT_KFK_NETWORK");
}

/**
 * One sentence without a full stop, and without a secret.
 * @param wasIn the broker has let it in before, and does not close for want of a login.
 */
export function sentenceOf(
  error: unknown,
  { sasl, tls, cert }: KafkaAddress,
  wasIn = false,
): string {
  const all = [...within(error)];
  const refused = all.find((at) => /SASL_AUTHENTICATION_FAILED/.test(apiIdsOf(at)[0] ?? ""));
  if (refused !== undefined) return `login refused (${sasl}): wrong user or password`;
  const token = all.find((at) => /the broker refuses the token/.test(at.message));
  if (token !== undefined) return `login refused (oauthbearer): ${token.message}`;
  for (const at of all) {
    const topic = /^Unknown topic (.*)\.$/.exec(at.message)?.[1];
    if (topic !== undefined) return `there is no topic ${topic}`;
    if (/not available in the current cluster metadata/.test(at.message)) {
      return "a broker that is asked for is not in the cluster now";
    }
    if (at.message === "Broker requires TLS.") return "the broker wants TLS: kafkas:// instead";
    if (/^TLS handshake failed/.test(at.message)) {
      return "the broker takes no TLS: kafka:// instead";
    }
  }
  const deepest = all.filter((at) => !("errors" in at)).at(-1);
  const [said] = apiIdsOf(error).reverse();
  if (said !== undefined) return SAID[said] ?? `${said}: ${deepest?.message ?? ""}`;
  const fault = all.map(tlsFault).find((found) => found !== null);
  if (fault !== undefined) return fault!;
  const closed = all.some((at) => /^Connection closed/.test(at.message));
  if (closed && sasl === null && !wasIn) {
    const wants = tls && cert === null
      ? "a login (user, sasl=) or a certificate (cert=, key=)"
      : "a login (user, sasl=)";
    return `the broker closed the connection; it may want ${wants}`;
  }
  if (closed) return "the broker closed the connection";
  if (all.some((at) => /timed out/.test(at.message))) return "no answer from the broker in time";
  return reasonOf(plainNetworkError(deepest ?? error));
}

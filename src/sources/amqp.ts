/**
 * One connection to a server of AMQP 0-9-1: the library, and what it does not do by itself.
 *
 * - *A server that is silent is left.* The library answers the server's heartbeats and waits for its socket's
 *   own time limit, which what is written holds off. Here a question that must be answered goes out every
 *   second, and when nothing at all came for as long as a heartbeat may take, the connection is lost.
 * - *What a server says cannot end this process.* The library throws out of a socket's event at bytes that are
 *   no AMQP, and leaves two promises alone that may reject.
 * - *Memory is bounded*: `pause` stops reading, and this side shows that it lives by itself.
 * - *A number keeps its digits*: 64 bits in a header were rounded to 53.
 * - *Failures are sentences*, of what the server said or of what the network did.
 *
 * A connection that is lost stays lost: a delivery's tag is good on its own channel alone, so a holder of
 * some forgets them with it, and opens another.
 */

import type { AMQPChannel } from "@cloudamqp/amqp-client/amqp-channel";
import { AMQPClient } from "@cloudamqp/amqp-client/amqp-socket-client";
import { AMQPView } from "@cloudamqp/amqp-client/amqp-view";
import type { Socket } from "node:net";
import type { BrokerAddress, BrokerDeps, BrokerHost } from "../contracts.ts";
import { messageOf, plainNetworkError, reasonOf } from "../kernel/errors.ts";
import { Ending, repeat, within } from "../kernel/time.ts";
import { secretText, tlsFault, type TlsOptions, tlsOptions } from "./tls.ts";

export type { AMQPChannel };

/** What an address needs to have for a connection. */
export interface AmqpAddress extends BrokerAddress {
  readonly vhost: string;
  readonly heartbeatMs: number;
}

/** For TCP, TLS and login together. */
const CONNECT_MS = 10_000;
/** How often it is asked whether the server still answers. */
const TICK_MS = 1_000;
const CLOSE_MS = 1_500;
/** RabbitMQ's own limit. The library keeps one such frame. */
const FRAME_BYTES = 131_072;
const HEARTBEAT = Uint8Array.of(8, 0, 0, 0, 0, 0, 0, 206);

/** Of the library, what its types hide. */
interface Hidden {
  host: string;
  port: number;
  onRead(data: Uint8Array): boolean;
  parseFrames(view: AMQPView): void;
  rejectConnect(error: Error): void;
}

/** What a server says of itself. */
export interface AmqpServer {
  /** `RabbitMQ`. */
  readonly product: string;
  /** `4.1.2`. */
  readonly version: string;
}

/**
 * Connects to a server of an address, to the next one where that fails. Begins with any of them: members
 * spread over a cluster, and servers that say nothing do not keep for ever from the one behind them. Rejects
 * with a sentence; with several servers, with one for each.
 */
export async function openAmqp(
  address: AmqpAddress,
  deps: BrokerDeps,
  signal?: AbortSignal,
): Promise<AmqpConnection> {
  const problems: string[] = [];
  const { hosts } = address;
  const first = Math.floor(deps.clock.random() * hosts.length);
  for (const host of [...hosts.slice(first), ...hosts.slice(0, first)]) {
    const connection = new AmqpConnection(address, deps);
    try {
      await connection.open(host, signal);
      return connection;
    } catch (error) {
      connection.lose(error);
      if (signal?.aborted) throw new Error("not wanted any more");
      const where = hosts.length === 1 ? "" : `${host.host}:${host.port}: `;
      problems.push(`${where}${messageOf(error)}`);
    }
  }
  throw new Error(problems.join("; "));
}

export class AmqpConnection {
  /** The server takes no messages for now, and why: `low on memory`. It still gives some. */
  onBlocked: (why: string) => void = () => {};
  readonly #address: AmqpAddress;
  readonly #deps: BrokerDeps;
  /** With a sentence. */
  readonly #lost = new Ending();
  #client: AMQPClient | null = null;
  #socket: Socket | null = null;
  #server: AmqpServer | null = null;
  /** Why it is lost. */
  #why: Error | null = null;
  /** Ticks since the last byte came. */
  #silent = 0;
  #paused = false;
  #stopTicking = () => {};

  constructor(address: AmqpAddress, deps: BrokerDeps) {
    this.#address = address;
    this.#deps = deps;
  }

  /** Once, before all else. Rejects with a sentence. */
  async open(host: BrokerHost, signal?: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    const client = await this.#makeClient(host);
    this.#client = client;
    const abort = () => this.lose(new Error("not wanted any more"));
    signal?.addEventListener("abort", abort, { once: true });
    try {
      if (signal?.aborted) throw new Error("not wanted any more");
      const connecting = client.connect();
      const socket = client.socket!;
      this.#socket = socket;
      socket.on("error", (error) => this.lose(error));
      socket.on("close", () => this.lose(new Error("Socket closed")));
      const late = Symbol();
      const done = await within(clock, CONNECT_MS, this.#lost.race(connecting), late);
      if (done === late) throw new Error(`no answer within ${CONNECT_MS / 1000} s`);
      socket.setTimeout(0);
    } catch (error) {
      // The library's own rejection comes first, and has lost the code of the failure.
      throw this.#why ?? new Error(this.#sentence(error));
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  async #makeClient({ host, port }: BrokerHost): Promise<AMQPClient> {
    const { user, password, tls, vhost, heartbeatMs } = this.#address;
    const secret = await secretText(password, this.#deps);
    const options = tls ? await tlsOptions(this.#address, this.#deps) : undefined;
    const more = new URLSearchParams({
      name: `shishi ${this.#deps.member}`,
      heartbeat: String(Math.ceil(heartbeatMs / 1000)),
      frameMax: String(FRAME_BYTES),
    });
    const url = `amqp${tls ? "s" : ""}://h/${encodeURIComponent(vhost)}?${more}`;
    const client = new AMQPClient(url, options as TlsOptions | undefined);
    // A URL would not take every host, gives IPv6 back in brackets, and an empty password as another one.
    Object.assign(client, { host, port });
    if (user !== null || secret !== "") {
      Object.assign(client, { username: user ?? "guest", password: secret });
    }
    this.#guard(client);
    client.onerror = (error) => this.lose(error);
    client.onblocked = (why) => this.onBlocked(why);
    client.ondisconnect = (error) => this.lose(error ?? new Error("Socket closed"));
    return client;
  }

  #guard(client: AMQPClient): void {
    const hidden = client as unknown as Hidden;
    const { onRead, parseFrames, rejectConnect } = hidden;
    hidden.onRead = (data) => {
      this.#silent = 0;
      if (this.#why !== null) return true;
      try {
        return onRead.call(client, data);
      } catch (error) {
        const found = this.#server === null ? "what answers there is no AMQP" : messageOf(error);
        this.lose(new Error(`cannot be read: ${found}`));
        return true;
      }
    };
    hidden.parseFrames = (view) => {
      this.#server ??= serverIn(view);
      parseFrames.call(client, view);
    };
    hidden.rejectConnect = rejectConnect.bind(client);
    const send = client.send.bind(client);
    client.send = (bytes) => {
      const sent = send(bytes);
      sent.catch(() => {});
      return sent;
    };
  }

  /** Null before it has said a word. */
  get server(): AmqpServer | null {
    return this.#server;
  }

  /** A new channel. One that the server closes takes the connection with it, unless `loose`. */
  async channel(loose = false): Promise<AMQPChannel> {
    const channel = await this.ask(this.#client!.channel());
    if (loose) channel.onerror = () => {};
    return channel;
  }

  /** An answer, as long as there is a connection to get it from. Rejects with a sentence. */
  async ask<T>(answer: Promise<T>): Promise<T> {
    try {
      return await this.#lost.race(answer);
    } catch (error) {
      throw this.#why ?? new Error(this.#sentence(error));
    }
  }

  /**
   * Watches the server from now on.
   * @param question must be answered; it is asked again a second after the answer.
   */
  watch(question: () => Promise<unknown>): void {
    let asking = false;
    const most = Math.max(1, Math.round(this.#address.heartbeatMs / TICK_MS));
    this.#stopTicking = repeat(this.#deps.clock, TICK_MS, () => {
      if (this.#paused) return void this.#client?.send(HEARTBEAT);
      // A loop that was held up counts as one tick, however long that took.
      if (this.#silent++ >= most) {
        return this.lose(new Error(`the server has not answered for ${most} s`));
      }
      if (asking) return;
      asking = true;
      this.ask(question()).catch((error) => this.lose(error)).finally(() => asking = false);
    });
  }

  /** Reads no more for now: what the server sends waits in the network. */
  pause(): void {
    if (this.#paused || this.#why !== null) return;
    this.#paused = true;
    this.#socket?.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#silent = 0;
    this.#socket?.resume();
  }

  /** The connection is of no use any more. */
  lose(error: unknown): void {
    if (this.#why !== null) return;
    // Without its cause: an error of the library's holds the connection, and that the password.
    this.#why = new Error(this.#sentence(error));
    this.#stopTicking();
    this.#lost.end(this.#why);
    this.#socket?.destroy();
  }

  /** Says goodbye, so that the server gives at once to others what was not acknowledged. Never rejects. */
  async close(): Promise<void> {
    const client = this.#client;
    this.#stopTicking();
    if (this.#why !== null || client === null) return;
    this.resume();
    const closed = client.close().catch(() => {});
    await within(this.#deps.clock, CLOSE_MS, this.#lost.race(closed), undefined)
      .catch(() => {});
    this.lose(new Error("the connection is closed"));
  }

  /** Without a full stop, and without a secret: the server repeats none. */
  #sentence(error: unknown): string {
    const fault = this.#address.tls ? tlsFault(error) : null;
    if (fault !== null) return fault;
    const said = messageOf(error);
    const text = said.replace(/^(?:(?:connection|channel \d+) closed: )+/i, "");
    const known = SAID.find(([pattern]) => pattern.test(text));
    if (known !== undefined) return text.replace(...known).slice(0, 500);
    const plain = text === said ? reasonOf(plainNetworkError(error)) : text;
    if (!/^(?:Connection ended|Socket closed|connection broken off)/.test(plain)) {
      return plain.slice(0, 500);
    }
    if (this.#server !== null) return "the server ended the connection";
    const perhaps = this.#address.tls ? "" : "; is that its port for TLS (amqps)?";
    return `the server ended the connection before it said a word${perhaps}`;
  }
}

/** The server's first frame tells of it; null: it is another. */
function serverIn(view: AMQPView): AmqpServer | null {
  const START = [10, 10] as const;
  if (view.getUint8(0) !== 1 || view.getUint16(7) !== START[0] || view.getUint16(9) !== START[1]) {
    return null;
  }
  const [{ product, version }] = view.getTable(13);
  return { product: String(product ?? "an AMQP server"), version: String(version ?? "") };
}

/** What a server says → what is said of it. The first that fits counts, and takes the place of the whole text. */
const SAID: readonly (readonly [RegExp, string])[] = [
  [
    /^ACCESS_REFUSED - Login was refused[^]*$/,
    "login refused: user or password are wrong, or the user may not come in from here",
  ],
  [/^NOT_ALLOWED - vhost (.*?) not found[^]*$/, "there is no vhost $1"],
  [
    /^NOT_ALLOWED - access to vhost '(.*?)' refused for user '(.*?)'[^]*$/,
    "the user $2 may not enter the vhost $1",
  ],
  [
    /^NOT_FOUND - no (queue|exchange) '(.*?)' in vhost '(.*?)'[^]*$/,
    "there is no $1 $2 in the vhost $3",
  ],
  [
    /^ACCESS_REFUSED - (queue) '(.*?)' in vhost '.*?' in exclusive use[^]*$/,
    "the $1 $2 has a consumer already that shares with no other",
  ],
  // Version 3.13 and later name the right that is missing.
  [
    /^ACCESS_REFUSED - (\w+) access to (queue|exchange) '(.*?)' in vhost '.*?' refused for user '(.*?)'[^]*$/,
    "the user $4 may not $1 the $2 $3",
  ],
  [
    /^ACCESS_REFUSED - access to (queue|exchange) '(.*?)' in vhost '.*?' refused for user '(.*?)'[^]*$/,
    "the user $3 is refused access to the $1 $2",
  ],
  [
    /^RESOURCE_LOCKED - [^]*?(queue) '(.*?)'[^]*$/,
    "the $1 $2 is one connection's alone (exclusive)",
  ],
  [
    /^PRECONDITION_FAILED - delivery acknowledgement on channel \d+ timed out\. Timeout value used: (\d+) ms[^]*$/,
    "the server took back what was not acknowledged within $1 ms (consumer_timeout)",
  ],
  [
    /^CONNECTION_FORCED - broker forced connection closure with reason '(.*?)'[^]*$/,
    "the server closed the connection: $1",
  ],
  [/^CONNECTION_FORCED - (.*?)(?: \(\d+\))?$/, "the server closed the connection: $1"],
  [
    /^INTERNAL_ERROR[^]*$/,
    "the server fails at this itself (INTERNAL_ERROR, its log says why); is the queue up yet?",
  ],
  [
    /^Consumer cancelled by the server$/,
    // Version 4 also ends it where the ones before closed the channel.
    "the server has ended the consumer: its queue is gone, or consumer_timeout has passed",
  ],
];

// ── A number keeps its digits.

const LONG = 0x6c; // l
const ALSO_LONG = 0x4c; // L
const { getField } = AMQPView.prototype;
AMQPView.prototype.getField = function (at, littleEndian) {
  const type = this.getUint8(at);
  if (type !== LONG && type !== ALSO_LONG) return getField.call(this, at, littleEndian);
  const value = this.getBigInt64(at + 1, littleEndian);
  return [Number.isSafeInteger(Number(value)) ? Number(value) : value, 9];
};

/**
 * The socket of a connection to NATS, by the scheme of its address: a WebSocket for `ws://` and `wss://`,
 * and for `nats://` and `tls://`, the port that every NATS server has, a TCP connection that looks like a
 * WebSocket: what goes over either are the protocol's own bytes.
 *
 * TLS over TCP begins as the protocol has it: the server says INFO in the clear and then both sides
 * upgrade, where the address asks for it (`tls://`) or the server does (`tls_required`).
 */

import type { Socket } from "node:net";
import type { SecureContextOptions, TLSSocket } from "node:tls";
import process from "node:process";
import type { SocketTls } from "../contracts.ts";
import { nodeNet } from "../kernel/builtins.ts";
import { plainNetworkError, reasonOf } from "../kernel/errors.ts";
import { clientOf, roots } from "./fetch.ts";
import { deno } from "./host.ts";

/** The server's first line has the addresses of its cluster; a longer one is none. */
const LONGEST_INFO_BYTES = 1024 * 1024;
const INFO = /^INFO (\{.*\})\s*\r\n/;
const NATS_PORT = 4222;

const NOTHING: SocketTls = { ca: [], cert: null, key: null };

/**
 * @param certificates PEM texts of authorities that are trusted besides the usual ones; asked at the first
 * connection that needs them.
 * @returns what opens a socket to an address; throws where the runtime takes none such.
 */
export function createOpenSocket(
  certificates: () => readonly string[],
): (url: string, own?: SocketTls) => WebSocket {
  return (url, own = NOTHING) => {
    const { cert, key } = own;
    const identity = cert === null || key === null ? {} : { cert, key };
    // Nothing is read of the system's store where no certificate is looked at.
    const ca = () => [...own.ca, ...certificates()];
    // It has what is used of one: four events, `send` and `close`.
    if (/^(nats|tls):/i.test(url)) {
      return new TcpSocket(url, () => ({ ca: roots(ca()), ...identity })) as unknown as WebSocket;
    }
    if (!/^wss:/i.test(url)) return new WebSocket(url);
    const caCerts = ca();
    if (caCerts.length === 0 && cert === null) return new WebSocket(url);
    const trust = deno === undefined
      ? { tls: { ca: roots(caCerts), ...identity } }
      : { client: clientOf(true, caCerts, null, identity) };
    return new WebSocket(url, trust as unknown as string[]);
  };
}

class TcpSocket extends EventTarget {
  binaryType = "arraybuffer";
  readonly bufferedAmount = 0;
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onerror: ((event: Event) => void) | null = null;
  onclose: ((event: Event) => void) | null = null;
  readonly #url: URL;
  readonly #trust: () => SecureContextOptions;
  #socket: Socket | TLSSocket;
  #closing = false;
  #ended = false;

  /** @param trust authorities, and what is shown of itself; asked where TLS begins. */
  constructor(url: string, trust: () => SecureContextOptions) {
    super();
    this.#url = new URL(url);
    this.#trust = trust;
    this.#socket = this.#watch(
      nodeNet().connect({
        host: this.#host,
        port: Number(this.#url.port || NATS_PORT),
        noDelay: true,
      }),
    );
    let begun = new Uint8Array(0);
    const onData = (data: Uint8Array) => {
      begun = joined(begun, data);
      const text = new TextDecoder().decode(begun);
      if (!text.includes("\n") && begun.length <= LONGEST_INFO_BYTES) return;
      this.#socket.off("data", onData);
      this.#begin(begun, INFO.exec(text)?.[1]);
    };
    this.#socket.on("data", onData);
  }

  /** @param info what the server has said of itself; undefined: it is no NATS server. */
  #begin(first: Uint8Array, info: string | undefined): void {
    const { tls_required: required = false, tls_available: available = false } = fieldsOf(info);
    const wanted = this.#url.protocol === "tls:";
    if (info === undefined) return this.#fail("what answers there is no NATS server");
    if (wanted && !required && !available) return this.#fail("the server offers no TLS");
    if (!wanted && !required) return this.#open(first);
    const tls = process.getBuiltinModule("node:tls");
    const plain = this.#socket;
    const host = this.#host;
    const secure = tls.connect({
      socket: plain,
      ...this.#trust(),
      ...(nodeNet().isIP(host) === 0 ? { servername: host } : { host }),
    }, () => this.#open(first));
    this.#socket = this.#watch(secure);
  }

  #open(first: Uint8Array): void {
    this.#socket.on("data", (data: Uint8Array) => this.#receive(data));
    this.#emit(new Event("open"), this.onopen);
    this.#receive(first);
  }

  #receive(data: Uint8Array): void {
    // A Buffer's own `slice` copies nothing: its memory may hold more than this.
    const { buffer } = new Uint8Array(data);
    this.#emit(new MessageEvent("message", { data: buffer }), this.onmessage);
  }

  #watch<T extends Socket>(socket: T): T {
    socket.on("error", (error) => this.#fail(reasonOf(plainNetworkError(error))));
    socket.on("close", () => this.#end("the server closed the connection"));
    return socket;
  }

  #fail(why: string): void {
    if (this.#ended) return;
    this.#emit(Object.assign(new Event("error"), { message: why, error: why }), this.onerror);
    this.#socket.destroy();
    this.#end(why);
  }

  #end(why: string): void {
    if (this.#ended) return;
    this.#ended = true;
    const said = { wasClean: this.#closing, code: this.#closing ? 1000 : 1006, reason: why };
    this.#emit(Object.assign(new Event("close"), said), this.onclose);
  }

  #emit<E extends Event>(event: E, on: ((event: E) => void) | null): void {
    on?.(event);
    this.dispatchEvent(event);
  }

  get #host(): string {
    return this.#url.hostname.replace(/^\[(.*)\]$/, "$1");
  }

  send(data: ArrayBuffer): void {
    if (!this.#ended) this.#socket.write(new Uint8Array(data));
  }

  /** What was sent before goes out first; not after trouble, and not twice. */
  close(code = 1000): void {
    const again = this.#closing;
    this.#closing = true;
    if (code === 1000 && !again) this.#socket.end(() => this.#socket.destroy());
    else this.#socket.destroy();
  }
}

function fieldsOf(info: string | undefined): { tls_required?: boolean; tls_available?: boolean } {
  try {
    return JSON.parse(info ?? "{}");
  } catch {
    return {};
  }
}

function joined(one: Uint8Array, other: Uint8Array): Uint8Array<ArrayBuffer> {
  const both = new Uint8Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}

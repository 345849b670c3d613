/**
 * One connection to one NATS server, as the rest of the room sees it. No library shows through, so
 * everything above can be tried with a connection made of nothing.
 */

import type { Incoming } from "./command.ts";

/** One way to authenticate; seeds and credentials as text, already read from their files. */
export type NatsAuth =
  | { readonly kind: "none" }
  | { readonly kind: "token"; readonly token: string }
  | { readonly kind: "user"; readonly user: string; readonly password: string }
  | { readonly kind: "nkey"; readonly seed: string }
  | { readonly kind: "creds"; readonly creds: string };

export interface DialOptions {
  /** `ws://` or `wss://`. */
  readonly server: string;
  readonly auth: NatsAuth;
  /** How the server's monitoring shows this client. */
  readonly name: string;
  /** For the whole way from the socket to the server's first answer. */
  readonly timeoutMs: number;
  /** Opens the socket; a runtime's own way to trust a private authority goes in here. */
  readonly openSocket?: OpenSocket;
  /** Gives up at once. */
  readonly signal?: AbortSignal;
}
export type OpenSocket = (url: string) => WebSocket;

/** A message that arrived. */
export interface Message extends Incoming {
  /** The server says that nobody listens to the subject of the request. */
  readonly noResponders: boolean;
}

/** A live connection. */
export interface Wire {
  /** `host:port`. */
  readonly server: string;
  /** What the server told of itself. `asksWho`: only who proves who he is gets in. */
  readonly about?: { readonly version: string; readonly asksWho: boolean };
  /** Why it ended. Resolves exactly once, never rejects. */
  readonly closed: Promise<string>;
  /** `onMessage` must not throw. */
  subscribe(subject: string, onMessage: (message: Message) => void): void;
  /** @returns false when it certainly was not sent: closed, or larger than the server takes. */
  publish(
    subject: string,
    payload: Uint8Array,
    reply?: string,
    headers?: Readonly<Record<string, string>>,
  ): boolean;
  /** @returns true once the server has everything that was published; false at `waitMs`. */
  flush(waitMs: number): Promise<boolean>;
  /** Ends the connection; waits for the socket at most `CLOSE_WAIT_MS`. */
  close(): Promise<void>;
}

export type Dialled =
  | { readonly kind: "connected"; readonly wire: Wire }
  /** `why` names the server and never a secret. */
  | { readonly kind: "failed"; readonly why: string };

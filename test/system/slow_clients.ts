/** Clients that hold a connection and never get to a request: who opens many holds many files. */
import { openRaw } from "../kit/raw_http.ts";

export interface SlowClient {
  readonly name: string;
  /** Resolves with how long it was let, in seconds. */
  readonly endedS: Promise<number>;
  close(): void;
}

const BEGUN = "POST /events HTTP/1.1\r\nHost: x\r\n";
/** TLS 1.2: a greeting of 200 bytes begins. */
const GREETING = Uint8Array.of(22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3);

/** What each sends at once, and then a byte a second of. */
const KINDS: readonly (readonly [string, string | Uint8Array, string])[] = [
  ["says nothing", "", ""],
  ["stops within its headers", `${BEGUN}X: `, ""],
  ["sends a byte of its headers a second", `${BEGUN}X: `, "x"],
  ["sends a byte of its path a second", "GET /", "x"],
  ["stops within its TLS greeting", GREETING, ""],
  ["sends a byte of its TLS greeting a second", GREETING, "x"],
];

/** @param url whether of HTTP or HTTPS: none of them greets in full. */
export function openSlow(url: string): Promise<SlowClient[]> {
  const plain = url.replace(/^https:/, "http:");
  return Promise.all(KINDS.map(async ([name, first, drop]) => {
    const connection = await openRaw(plain);
    const startedMs = performance.now();
    connection.send(first);
    const dripping = drop === "" ? undefined : setInterval(() => connection.send(drop), 1000);
    const endedS = connection.ended.then(() => {
      clearInterval(dripping);
      return (performance.now() - startedMs) / 1000;
    });
    return { name, endedS, close: () => void connection.close() };
  }));
}

/**
 * A running collector with a ClickHouse behind it, for tests of the HTTP front: who was accepted is
 * written down by `userId`, and at the end the table holds these and nobody else.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { CERTIFICATE, CERTIFICATE_KEY } from "../kit/certificate.ts";
import { openRaw, type RawAnswer, type RawConnection, rawRequest } from "../kit/raw_http.ts";
import type { ClickHouse } from "../kit/servers.ts";
import { ON_BUN, type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { assertBalance } from "./books.ts";

/** With HTTP, or with HTTPS. */
export type Kind = "plain" | "tls";
/** What is read of a request is the same under HTTPS, so it is asked for on one runtime. */
export const KINDS: readonly Kind[] = ON_BUN ? ["plain", "tls"] : ["plain"];

export class Front {
  /** Users whose event was accepted. */
  readonly #accepted = new Set<string>();
  /** Users whose event may be there: their request got no answer. */
  readonly #unsure = new Set<string>();
  #users = 0;

  private constructor(
    readonly shishi: Shishi,
    readonly clickhouse: ClickHouse,
    readonly database: string,
    readonly tlsDir: string,
  ) {}

  static async start(
    clickhouse: ClickHouse,
    database: string,
    kind: Kind = "plain",
    ...args: readonly string[]
  ): Promise<Front> {
    await clickhouse.query(`CREATE DATABASE IF NOT EXISTS ${database}`);
    const tlsDir = tempDir("tls");
    const [cert, key] = [join(tlsDir, "cert.pem"), join(tlsDir, "key.pem")];
    writeFileSync(cert, CERTIFICATE);
    writeFileSync(key, CERTIFICATE_KEY);
    const shishi = await startShishi({
      args: [
        ...["--clickhouse-url", `${clickhouse.url}/${database}`, "--flush-interval=100ms"],
        ...(kind === "tls" ? ["--tls-cert", cert, "--tls-key", key] : []),
        ...args,
      ],
    });
    return new Front(shishi, clickhouse, database, tlsDir);
  }

  async close(): Promise<void> {
    await this.shishi.close();
    removeDir(this.tlsDir);
  }

  /** A name that nobody had before. */
  user(): string {
    return `user-${++this.#users}`;
  }

  accept(...users: readonly string[]): void {
    for (const user of users) this.#accepted.add(user);
  }

  /** Answered or not, nobody knows: the rows may be stored, or not. */
  unsure(...users: readonly string[]): void {
    for (const user of users) this.#unsure.add(user);
  }

  open(): Promise<RawConnection> {
    return openRaw(this.shishi.url, CERTIFICATE);
  }

  /** One request on a connection of its own; null when it ended without an answer. */
  async ask(...pieces: (string | Uint8Array)[]): Promise<RawAnswer | null> {
    const connection = await this.open();
    connection.send(...pieces);
    const answer = await connection.answer();
    await connection.close();
    return answer;
  }

  /** A good request, which must be taken whatever came before. */
  async good(
    connection?: RawConnection,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const own = connection ?? await this.open();
    const user = this.user();
    own.send(rawRequest("POST", "/events", headers, event(user)));
    const answer = await own.answer();
    if (answer === null && connection !== undefined) {
      // A server may end a connection on which it refused a body; then a client comes back on another.
      this.unsure(user);
      return await this.good(undefined, headers);
    }
    assert.equal(answer?.status, 202, answer?.text ?? "the connection was ended");
    assert.deepEqual(answer.json, { accepted: 1, rejected: 0, ack: "disk", errors: [] });
    this.accept(user);
    if (connection === undefined) await own.close();
  }

  async rssMiB(): Promise<number> {
    const text = (await this.ask(rawRequest("GET", "/metrics")))?.text ?? "";
    return Number(/^process_resident_memory_bytes (\S+)/m.exec(text)?.[1]) / 1024 ** 2;
  }

  /** Everything is delivered, the books balance, and ClickHouse has exactly who was accepted. */
  async assertExact(): Promise<void> {
    await eventually(async () => {
      const { ledger } = (await this.ask(rawRequest("GET", "/api/status")))?.json;
      assertBalance(ledger, "in the end");
      assert.deepEqual([ledger.held, ledger.dead, ledger.lost], [0, 0, 0]);
    }, { withinMs: 20_000, everyMs: 100 });
    const text = await this.clickhouse.query(
      `SELECT user_id FROM ${this.database}.analytics_events FORMAT TabSeparated`,
    );
    const stored = text === "" ? [] : text.split("\n");
    const there = new Set(stored);
    assert.equal(there.size, stored.length, "somebody is there twice");
    assert.deepEqual([...this.#accepted].filter((user) => !there.has(user)), [], "missing");
    const invited = (user: string) => this.#accepted.has(user) || this.#unsure.has(user);
    assert.deepEqual(stored.filter((user) => !invited(user)), [], "nobody accepted these");
  }
}

/** One event as JSON; `more` is put behind the known fields. */
export function event(user: string, more = ""): string {
  return `{"eventType":"e","userId":"${user}"${more}}`;
}

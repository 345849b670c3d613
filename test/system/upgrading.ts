/** What the tests of upgrades ask of collectors that follow each other on one port, all with one stderr. */
import assert from "node:assert/strict";
import process from "node:process";
import { openRaw, type RawAnswer, type RawConnection, rawRequest } from "../kit/raw_http.ts";
import type { Shishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";

const LATE_MS = 20_000;
export const NOWHERE = ["--clickhouse-url", "http://127.0.0.1:1", "--shutdown-timeout", "100ms"];

/** As often as it takes, for as long as a busy machine may take. */
export const soon = <T>(look: () => T | Promise<T>) => eventually(look, { withinMs: LATE_MS });

/** The processes that have followed the first one, in order. */
export const followers = (shishi: Shishi): number[] =>
  shishi.lines().filter(({ message }) => /^starting a new process/.test(String(message)))
    .map(({ pid }) => Number(pid));

export const count = (shishi: Shishi, message: RegExp): number =>
  shishi.lines().filter((line) => message.test(String(line.message))).length;

/** Waits until so many processes have ended in order. */
export const ended = (shishi: Shishi, processes: number) =>
  soon(() => assert.equal(count(shishi, /^stopped/), processes, shishi.stderr()));

/** Waits until what the one before left is taken over. */
export const settled = (shishi: Shishi) =>
  soon(async () => assert.equal((await statusOf(shishi)).recovering, false));

export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended.
  }
}

export async function closeAll(shishi: Shishi): Promise<void> {
  for (const pid of followers(shishi)) signal(pid, "SIGKILL");
  await shishi.close();
}

/** On a connection of its own: one that stays open would be waited for. */
export async function ask(
  shishi: Shishi,
  method: string,
  path: string,
  body?: unknown,
): Promise<RawAnswer> {
  const connection = await openRaw(shishi.url);
  try {
    const text = body === undefined ? undefined : JSON.stringify(body);
    connection.send(rawRequest(method, path, { Connection: "close" }, text));
    const answer = await connection.answer();
    assert.ok(answer !== null, `${method} ${path} got no answer`);
    return answer;
  } finally {
    await connection.close();
  }
}

export const post = (shishi: Shishi, body: unknown) => ask(shishi, "POST", "/events", body);
export const statusOf = async (shishi: Shishi) => (await ask(shishi, "GET", "/api/status")).json;

/** A client that does nothing to hide a failure: every other request has a connection of its own. */
export function strictFetch(url: string) {
  const idle: RawConnection[] = [];
  const failures: string[] = [];
  let requests = 0;
  return {
    failures,
    async close() {
      await Promise.all(idle.map((connection) => connection.close()));
    },
    async fetch(_url: string, { body }: RequestInit): Promise<Response> {
      const fresh = requests++ % 2 === 0;
      const reused = fresh ? undefined : idle.shift();
      let connection: RawConnection | undefined;
      try {
        connection = reused ?? await openRaw(url);
        const headers: Record<string, string> = fresh ? { Connection: "close" } : {};
        connection.send(rawRequest("POST", "/events", headers, String(body)));
        const answer = await connection.answer();
        if (answer === null) throw new Error("ended without an answer");
        if (answer.status !== 202) failures.push(`${answer.status} ${answer.text}`);
        const last = fresh || answer.headers.get("connection")?.toLowerCase() === "close";
        if (last) void connection.close();
        else idle.push(connection);
        return new Response(answer.text, { status: answer.status });
      } catch (error) {
        failures.push(`${fresh ? "fresh" : reused ? "reused" : "first"}: ${error}`);
        void connection?.close();
        throw error;
      }
    },
  };
}

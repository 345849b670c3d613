/**
 * HTTP as clients, proxies and mistakes speak it: whatever comes is answered or the connection ends, and no
 * row is taken without an answer.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, describe, test } from "node:test";
import { openRaw, type RawAnswer, rawRequest } from "../kit/raw_http.ts";
import { BUILDS, ON_BUN, type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";

const BODY = '{"eventType":"e"}';
const SIZE = `Content-Length: ${BODY.length}\r\n`;
const CHUNKS = `${BODY.length.toString(16)}\r\n${BODY}\r\n0\r\n\r\n`;
const START = "POST /events HTTP/1.1\r\nHost: x\r\n";

/** `202`: by both runtimes; `null`: by neither; `any`: as the runtime likes, but with an answer. */
const SPOKEN: readonly (readonly [string, string, 202 | null | "any"])[] = [
  ["HEAD", "HEAD /events HTTP/1.1\r\nHost: x\r\n\r\n", null],
  ["HEAD with a body", `HEAD /events HTTP/1.1\r\nHost: x\r\n${SIZE}\r\n${BODY}`, null],
  ["GET with a body", `GET /events HTTP/1.1\r\nHost: x\r\n${SIZE}\r\n${BODY}`, null],
  ["OPTIONS", "OPTIONS /events HTTP/1.1\r\nHost: x\r\n\r\n", null],
  ["OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", null],
  ["CONNECT", "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", null],
  ["TRACE", "TRACE /events HTTP/1.1\r\nHost: x\r\n\r\n", null],
  ["a method in small letters", `post /events HTTP/1.1\r\nHost: x\r\n${SIZE}\r\n${BODY}`, null],
  ["an absolute form", `POST http://o.test/events HTTP/1.1\r\nHost: x\r\n${SIZE}\r\n${BODY}`, 202],
  [
    "an absolute https form",
    `POST https://o:9/events HTTP/1.1\r\nHost: x\r\n${SIZE}\r\n${BODY}`,
    202,
  ],
  ["one length twice", `${START}${SIZE}${SIZE}\r\n${BODY}`, 202],
  ["two lengths", `${START}${SIZE}Content-Length: 5\r\n\r\n${BODY}`, null],
  ["a folded header", `${START}X-A: b\r\n c\r\n${SIZE}\r\n${BODY}`, null],
  ["a folded length", `${START}Content-Length:\r\n ${BODY.length}\r\n\r\n${BODY}`, null],
  ["lines that end in LF", `${START}${SIZE}\r\n`.replaceAll("\r", "") + BODY, "any"],
  ["no host", `POST /events HTTP/1.1\r\n${SIZE}\r\n${BODY}`, "any"],
  ["two hosts", `${START}Host: y\r\n${SIZE}\r\n${BODY}`, "any"],
  ["a length and chunks", `${START}${SIZE}Transfer-Encoding: chunked\r\n\r\n${CHUNKS}`, null],
  ["gzip and chunks", `${START}Transfer-Encoding: gzip, chunked\r\n\r\n${CHUNKS}`, "any"],
  ["chunks", `${START}Transfer-Encoding: chunked\r\n\r\n${CHUNKS}`, 202],
  [
    "chunks with an extension and a trailer",
    `${START}Transfer-Encoding: chunked\r\n\r\n` +
    `${BODY.length.toString(16)};a=b\r\n${BODY}\r\n0\r\nX-T: 1\r\n\r\n`,
    "any",
  ],
  ["an upgrade to h2c", `${START}Connection: Upgrade\r\nUpgrade: h2c\r\n${SIZE}\r\n${BODY}`, "any"],
  ["HTTP/1.0", `POST /events HTTP/1.0\r\n${SIZE}\r\n${BODY}`, 202],
  ["HTTP/1.2", `POST /events HTTP/1.2\r\nHost: x\r\n${SIZE}\r\n${BODY}`, null],
  ["a PROXY line", `PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n${START}${SIZE}\r\n${BODY}`, null],
  ["an empty line first", `\r\n${START}${SIZE}\r\n${BODY}`, "any"],
];

const LARGE = 24 * 1024 ** 2;

/** Sends all of a request before it reads, as most clients do: the status, or what went wrong. */
async function sendThenRead(url: string, head: string): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  let trouble: string | null = null;
  socket.on("error", (error) => trouble ??= String(error));
  await once(socket, "connect");
  const piece = Buffer.alloc(64 * 1024, " ");
  socket.write(head);
  for (let sent = 0; sent < LARGE && trouble === null; sent += piece.length) {
    await new Promise<void>((resolve) =>
      socket.write(piece, (error) => {
        if (error) trouble ??= String(error);
        resolve();
      })
    );
  }
  let text = "";
  socket.on("data", (bytes) => text += bytes);
  await eventually(() => assert.ok(text.includes("\r\n\r\n") || trouble !== null), {
    withinMs: 10_000,
  });
  socket.destroy();
  return trouble ?? text.slice(0, 12);
}

describe("HTTP as it is spoken", () => {
  for (const binary of BUILDS) {
    const where = binary ? " (binary)" : "";
    let shishi: Shishi;
    before(async () => {
      shishi = await startShishi({ binary, args: ["--clickhouse-url", "http://127.0.0.1:9"] });
    });
    after(() => shishi.close());
    const received = async () => (await shishi.status()).ledger.received as number;

    /** Sends these bytes on a connection of its own: the answers until it ends, or rests. */
    const say = async (bytes: string | Uint8Array, most: number): Promise<RawAnswer[]> => {
      const connection = await openRaw(shishi.url);
      connection.send(bytes);
      const answers: RawAnswer[] = [];
      while (answers.length < most) {
        const answer = await connection.answer();
        if (answer === null) break;
        answers.push(answer);
      }
      await connection.close();
      return answers;
    };

    for (const [name, bytes, wanted] of SPOKEN) {
      test(`${name}${where}`, async () => {
        const before = await received();
        const [answer] = await say(bytes, 1);
        const status = answer?.status ?? null;
        const rows = await received() - before;
        assert.equal(rows, status === 202 ? 1 : 0, `${rows} rows and ${status}`);
        if (wanted === 202) assert.equal(status, 202);
        if (wanted === null) assert.ok(status === null || status >= 400, `${status}`);
      });
    }

    for (const many of [2, 20]) {
      test(`${many} requests in one write${where}`, async () => {
        const before = await received();
        const one = rawRequest("POST", "/events", {}, BODY);
        const answers = await say(Buffer.concat(Array.from({ length: many }, () => one)), many);
        assert.deepEqual(answers.map(({ status }) => status), ON_BUN ? [] : Array(many).fill(202));
        assert.equal(await received() - before, answers.length);
      });
    }

    test(`a second request before the first is answered is never taken unanswered${where}`, async () => {
      const before = await received();
      const connection = await openRaw(shishi.url);
      const wait = { Prefer: "wait=2" };
      connection.send(rawRequest("POST", "/events", wait, BODY));
      await eventually(async () => assert.equal(await received() - before, 1), {
        withinMs: 5_000,
      });
      connection.send(rawRequest("POST", "/events", {}, BODY));
      const answers = [await connection.answer(), await connection.answer()];
      await connection.close();
      assert.deepEqual(
        answers.map((answer) => answer?.status ?? null),
        ON_BUN ? [null, null] : [202, 202],
      );
      // That of the first was safe already when the second came.
      assert.equal(await received() - before, ON_BUN ? 1 : 2);
    });

    for (
      const [name, head, wanted] of [
        ["a length", `${START}Content-Length: ${LARGE}\r\n`, "HTTP/1.1 413"],
        [
          "an unknown path",
          `POST /nix HTTP/1.1\r\nHost: x\r\nContent-Length: ${LARGE}\r\n`,
          "HTTP/1.1 404",
        ],
      ] as const
    ) {
      for (const connection of ["", "Connection: close\r\n"]) {
        test(`refused early, ${name}, ${connection.trim() || "kept"}${where}: its client can read why`, async () => {
          assert.equal(await sendThenRead(shishi.url, `${head}${connection}\r\n`), wanted);
        });
      }
    }

    test(`refused early, in chunks, Connection: close${where}: its client can read why`, async () => {
      const connection = await openRaw(shishi.url);
      connection.send(`${START}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n`);
      for (let n = 0; n < 20; n++) connection.send(`f4240\r\n${" ".repeat(1e6)}\r\n`);
      connection.send("0\r\n\r\n");
      assert.equal((await connection.answer())?.status, 413);
      await connection.ended;
    });
  }
});

/**
 * Nothing of the inside goes out, over real sockets: any request
 * gets JSON, the documented text, or the bare refusal of the server below; never a stack, a path of the
 * host or a token. What is kept out is kept out whichever process answers.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { freePort } from "../kit/free_port.ts";
import { openRaw, rawRequest } from "../kit/raw_http.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";

const TOKENS = ["rotate-me-out-0123456789", "rotate-me-in-0123456789"];
/** What is written for people, or for Prometheus. */
const DOCUMENTS: readonly string[] = ["/", "/metrics"];
const EVENT = '{"eventType":"click"}';

/** Bytes that a header's value can carry on the wire; Latin-1, as servers read it. */
const anyValue = fc.string({
  unit: fc.integer({ min: 0x20, max: 0xff }).filter((code) => code !== 0x7f)
    .map((code) => String.fromCharCode(code)),
  maxLength: 40,
});
const request = fc.record({
  method: fc.oneof(
    fc.constantFrom("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"),
    fc.stringMatching(/^[A-Z]{1,20}$/),
  ),
  path: fc.oneof(
    fc.constantFrom(
      "/",
      "/events",
      "/events/x",
      "/metrics",
      "/api/status",
      "*",
      "http://x/events",
      "//",
    ),
    fc.stringMatching(/^\/[!-~]{0,40}$/),
    fc.constantFrom(
      "/../../etc/passwd",
      "/events/%2e%2e%2f",
      "/events/%00",
      `/${"x".repeat(8000)}`,
    ),
  ),
  name: fc.constantFrom(
    "Host",
    "Origin",
    "Prefer",
    "Content-Encoding",
    "Authorization",
    "Shishi-Folder",
    "X-Request-Id",
    "Content-Type",
    "Expect",
    "Upgrade",
    "Accept",
    "Cookie",
  ),
  value: fc.oneof(
    anyValue,
    fc.constantFrom(`Bearer ${TOKENS[0]}`, "gzip", "zstd", "wait=0", "websocket"),
  ),
  body: fc.oneof(
    fc.constantFrom(EVENT, "", "{", "[[", '{"eventType":"a","id":1}'),
    fc.string(),
    fc.uint8Array(),
  ),
});

describe("nothing of the inside", () => {
  let shishi: Shishi;
  let dir: string;
  before(async () => {
    dir = tempDir("tokens");
    const file = join(dir, "tokens");
    writeFileSync(file, TOKENS.join(","));
    shishi = await startShishi({
      args: [
        ...["--clickhouse-url", `http://127.0.0.1:${await freePort()}`],
        ...["--auth-tokens-file", file, "--log-level=debug", "--rate-limit=1000000/s"],
      ],
    });
  });
  after(async () => {
    await shishi.close();
    removeDir(dir);
  });

  test("any request", async () => {
    const secrets = [...TOKENS, shishi.dir, "shishi-data", dir];
    await fc.assert(
      fc.asyncProperty(request, async ({ method, path, name, value, body }) => {
        const connection = await openRaw(shishi.url);
        try {
          // `CONNECT` and `Upgrade` make the rest of the connection something else.
          const sent = rawRequest(method, path, { [name]: value }, body);
          connection.send(method === "HEAD" ? rawRequest(method, path, { [name]: value }) : sent);
          if (method === "HEAD") return;
          const answer = await connection.answer();
          if (answer === null) return;
          assert.ok(answer.status < 500 || answer.status === 501, `${answer.status}`);
          assert.doesNotMatch(answer.text, /^\s+at .*:\d+:\d+|\.ts:\d|node_modules|\/src\//m);
          const told = answer.text + [...answer.headers.values()].join("\n");
          for (const secret of secrets) {
            if (!value.includes(secret)) {
              assert.ok(!told.includes(secret), `${secret} in ${told}`);
            }
          }
          if (answer.text === "") return;
          const type = answer.headers.get("content-type") ?? "";
          if (type !== "application/json") {
            assert.ok(DOCUMENTS.includes(path.replace(/[?#].*/, "")), `${path} ${type}`);
          }
        } finally {
          await connection.close();
        }
      }),
      { numRuns: 150 },
    );
  });

  test("either token, no other; a stranger's page and a missing token are told apart", async () => {
    const statuses: number[] = [];
    for (
      const headers of [
        { authorization: `Bearer ${TOKENS[0]}` },
        { authorization: `Bearer ${TOKENS[1]}` },
        { authorization: `Bearer ${TOKENS[1]}x` },
        {},
        { authorization: `Bearer ${TOKENS[1]}`, origin: "https://evil.example" },
      ]
    ) {
      const answer = await shishi.post(EVENT, { headers: { ...headers, connection: "close" } });
      statuses.push(answer.status);
      if (answer.status === 401) assert.match(answer.headers.get("www-authenticate")!, /^Bearer/);
    }
    assert.deepEqual(statuses, [202, 202, 401, 401, 403]);
  });

  test("no token is in the log; a refused request is, under its id", async () => {
    const answer = await shishi.post("{", {
      headers: { authorization: `Bearer ${TOKENS[0]}`, "x-request-id": "find-me" },
    });
    assert.deepEqual([answer.status, answer.headers.get("x-request-id")], [400, "find-me"]);
    // The log is another pipe than the answer's.
    await eventually(() => {
      const line = shishi.lines().find(({ request }) => request === "find-me");
      assert.deepEqual([line?.["level"], line?.["status"], line?.["path"]], [
        "debug",
        400,
        "/events",
      ]);
    }, { withinMs: 10_000 });
    for (const token of TOKENS) assert.ok(!shishi.stderr().includes(token));
  });
});

test("rate-limit counts addresses: the peer's own, by request", async () => {
  const shishi = await startShishi({
    args: [
      ...["--clickhouse-url", `http://127.0.0.1:${await freePort()}`, "--rate-limit=3/h"],
      "--listen=127.0.0.1:0",
    ],
  });
  try {
    const statuses: number[] = [];
    for (let n = 0; n < 4; n++) {
      // What a client says of itself does not count.
      const headers = { "x-forwarded-for": `192.0.2.${n}`, connection: "close" };
      const answer = await shishi.post(EVENT, { headers });
      statuses.push(answer.status);
      if (answer.status === 429) assert.equal(answer.headers.get("retry-after"), "1200");
    }
    assert.deepEqual(statuses, [202, 202, 202, 429]);
    assert.equal((await shishi.get("/healthz")).status, 200);
    assert.equal((await shishi.get("/metrics")).status, 429);
  } finally {
    await shishi.close();
  }
});

/**
 * Columns that are filled with what the collector knows of a request.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { columnsOf } from "../kit/columns.ts";
import { appOn, bytesOf, Script } from "./kit.ts";

const ALL = ["_received_at", "_client_ip", "_user_agent", "_collector", "_request_id"];

/** What the intake gets of these rows, parsed. */
async function stamped(
  columns: readonly string[],
  body: string,
  headers: Record<string, string> = {},
  address = "192.0.2.7",
) {
  const script = new Script();
  script.columns = columnsOf(["a Int64", ...columns]);
  const bytes = bytesOf(body);
  const length = { "content-length": String(bytes.length) };
  const app = appOn(script, { trustedProxies: ["unix"] });
  const request = new Request("http://localhost/events/flights", {
    method: "POST",
    body: bytes,
    headers: { ...length, ...headers },
  });
  const response = await app.fetch(request, () => address);
  const chunk = script.chunks[0]!;
  const text = new TextDecoder().decode(chunk.body);
  assert.equal(text.endsWith("\n"), true);
  const rows = text.split("\n").slice(0, -1).map((line) => JSON.parse(line));
  assert.equal(rows.length, chunk.rows);
  // ClickHouse takes no row with a key twice.
  for (const line of text.split("\n")) {
    assert.ok((line.match(/"(?:_|\\u005f)collector":/g)?.length ?? 0) < 2, line);
  }
  return { rows, chunk, response, now: new Date(script.clock.nowMs()).toISOString() };
}

const TEXTS = ALL.map((name) => `${name} String`);

test("each column is filled where the table has it", async () => {
  const headers = { "user-agent": 'curl/8 "x"', "x-request-id": "r-1" };
  const { rows, chunk, response, now } = await stamped(TEXTS, '{"a":1}\n{ }\n{"a":2}', headers);
  const filled = {
    _received_at: now,
    _client_ip: "192.0.2.7",
    _user_agent: 'curl/8 "x"',
    _collector: "edge-7",
    _request_id: "r-1",
  };
  assert.deepEqual(rows, [{ ...filled, a: 1 }, filled, { ...filled, a: 2 }]);
  assert.deepEqual([...chunk.keys ?? []].sort(), [...ALL, "a"].sort());
  assert.equal(response.headers.get("x-request-id"), "r-1");
});

test("an id that is made up is the answer's too, and no other answer gets one", async () => {
  const { rows, response } = await stamped(["_request_id UUID"], '{"a":1}');
  assert.match(rows[0]._request_id, /^[0-9a-f-]{36}$/);
  assert.equal(response.headers.get("x-request-id"), rows[0]._request_id);
  const plain = await stamped([], '{"a":1}');
  assert.deepEqual(plain.rows, [{ a: 1 }]);
  assert.equal(plain.response.headers.get("x-request-id"), null);
});

test("what a row says itself counts, with escapes in its key too", async () => {
  const body = '{"a":1,"_collector":"mine"}\n{"a":2}\n{"\\u005fcollector":"mine"}\n{}';
  const { rows } = await stamped(["_collector String", "_client_ip IPv4"], body);
  const ip = "192.0.2.7";
  assert.deepEqual(rows, [
    { a: 1, _collector: "mine", _client_ip: ip },
    { a: 2, _collector: "edge-7", _client_ip: ip },
    { _collector: "mine", _client_ip: ip },
    { _collector: "edge-7", _client_ip: ip },
  ]);
});

test("what its column cannot hold, or is not known, is left out", async () => {
  const columns = ["_received_at Date", "_client_ip IPv4", "_user_agent UInt8", "_request_id UUID"];
  const { rows, now } = await stamped(columns, '{"a":1}', { "x-request-id": "r-1" }, "2001:db8::1");
  assert.deepEqual(rows, [{ _received_at: now.slice(0, 10), a: 1 }]);
  const unix = await stamped(["_client_ip String"], '{"a":1}', {}, "");
  assert.deepEqual(unix.rows, [{ a: 1 }]);
});

test("the client is the one that a trusted proxy names", async () => {
  const headers = { "x-forwarded-for": "198.51.100.3" };
  const told = await stamped(["_client_ip IPv6"], '{"a":1}', headers, "");
  assert.equal(told.rows[0]._client_ip, "198.51.100.3");
  const untold = await stamped(["_client_ip IPv6"], '{"a":1}', headers);
  assert.equal(untold.rows[0]._client_ip, "192.0.2.7");
});

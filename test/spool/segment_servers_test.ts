/** A spool file is an INSERT's body as it stands: both servers take the seals and count rows past them. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { after, before, describe, test } from "node:test";
import { sealLine } from "../../src/spool/segment.ts";
import { type ClickHouse, startClickHouse, startOldClickHouse } from "../kit/servers.ts";

const GROUP_ROWS = 100;

/** `rows` rows in groups; row number `bad` (1-based) has a value that its column cannot take. */
function segment(rows: number, bad = 0): Uint8Array<ArrayBuffer> {
  const pieces: Uint8Array[] = [];
  for (let first = 1; first <= rows; first += GROUP_ROWS) {
    let text = "";
    for (let row = first; row < Math.min(first + GROUP_ROWS, rows + 1); row++) {
      text += JSON.stringify({ a: row === bad ? "no" : row, b: `row ${row}` }) + "\n";
    }
    const group = Buffer.from(text);
    pieces.push(group, sealLine(group));
  }
  return new Uint8Array(Buffer.concat(pieces));
}

for (const modern of [true, false]) {
  describe(modern ? "ClickHouse 26.7" : "ClickHouse 18.16", () => {
    let server: ClickHouse;
    before(async () => {
      server = await (modern ? startClickHouse() : startOldClickHouse());
      await server.query("CREATE DATABASE spool");
    });
    after(() => server.close());

    async function insert(body: Uint8Array<ArrayBuffer>, query: string): Promise<string> {
      const url = `${server.url}/?query=${encodeURIComponent(query)}`;
      const answer = await fetch(url, { method: "POST", body });
      return await answer.text();
    }

    // 100,000 rows are several MB: the server parses them in pieces, in parallel where it can.
    for (const rows of [1, 250, 100_000]) {
      test(`takes ${rows} rows in sealed groups`, async () => {
        const table = `spool.good_${rows}`;
        await server.query(`CREATE TABLE ${table} (a UInt32, b String) ENGINE = Memory`);
        assert.equal(await insert(segment(rows), `INSERT INTO ${table} FORMAT JSONEachRow`), "");
        const sum = String(rows * (rows + 1) / 2);
        assert.equal(
          await server.query(`SELECT count(), sum(a) FROM ${table}`),
          `${rows}\t${sum}`,
        );
      });
    }

    for (const [rows, bad] of [[250, 1], [250, 100], [250, 101], [250, 250], [100_000, 90_001]]) {
      test(`names row ${bad} of ${rows}, seals not counted`, async () => {
        const table = `spool.bad_${rows}_${bad}`;
        await server.query(`CREATE TABLE ${table} (a UInt32, b String) ENGINE = Memory`);
        const text = await insert(
          segment(rows!, bad),
          `INSERT INTO ${table} FORMAT JSONEachRow`,
        );
        assert.match(text, new RegExp(`at row ${bad}\\b`));
      });
    }

    if (modern) {
      test("takes events through input() as well", async () => {
        await server.query(
          "CREATE TABLE spool.events (event_type String, n Int64) ENGINE = Memory",
        );
        const group = Buffer.from('{"eventType":"click","n":1}\n{"eventType":"view","n":2}\n');
        const body = new Uint8Array(Buffer.concat([group, sealLine(group)]));
        const query = "INSERT INTO spool.events SELECT eventType, n FROM " +
          "input('eventType String, n Int64') FORMAT JSONEachRow";
        assert.equal(await insert(body, query), "");
        assert.equal(await server.query("SELECT sum(n) FROM spool.events"), "3");
      });
    }
  });
}

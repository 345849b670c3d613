/**
 * The InfluxDB in memory answers as the real one does: the same requests to both, one after another.
 * Runs once: what InfluxDB makes of lines is asked; mirror_test.ts has the way to it on both runtimes.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { startFakeInflux } from "../kit/fake_influx.ts";
import { createMemoryInflux, type SeriesSums } from "../kit/memory_influx.ts";
import { startInflux } from "../kit/servers.ts";

const CREATE = 'create database "d \\"b"';
const NOW = `${Date.now()}000000`;

/** What is written to database `d "b`, or a statement; `→` what the real one says by the status. */
const REQUESTS: readonly (string | { q: string } | { path: string; body: string })[] = [
  "m,t=a n=1i 1",
  { path: "/write", body: "m,t=a n=1i 1" },
  { path: "/elsewhere?db=d", body: "" },
  { q: CREATE },
  { q: CREATE },
  "m,t=a n=1i 1",
  // Once more, and with another value: one point.
  "m,t=a n=1i 1",
  "m,t=a n=5i 1",
  // Another time, another series, a series without a tag, a field that joins the others.
  "m,t=a n=7i 2\nm,t=b n=9i 1\nm n=11i 1\nm,t=b k=1i,f=2.5 1",
  "m,u=1,t=a n=3i 1",
  "m,t=a,u=1 n=4i 1",
  "m,t=x\\ y\\,z\\=,u=\\q\\\\\\q\"' n=13i 1",
  "m,t=größe☂😀 n=17i 1",
  "m n=1i -5",
  `m n=1i ${NOW}`,
  "",
  "\n\n# a comment\n",
  // Refused: whole lines, and one of several.
  "nonsense",
  "m,t= n=1i 1",
  "m n=1i x",
  "m,t=c n=1i 1\nnonsense\nm,t=c n=1i 2",
  "m,t=d n=1 1",
  'm,t=d n=1i 1\nm,t=d n=1.5 2\nm,t=d n="x" 3\nm,t=d n=2i 4',
  `m,t=e n=1i 1\n${" ".repeat(26_000_000)}`,
];

test("the fake answers as the real InfluxDB, and holds the same", async () => {
  const real = await startInflux();
  const memory = createMemoryInflux();
  const fake = await startFakeInflux(memory);
  try {
    for (const request of REQUESTS) {
      const one = await send(real.url, request);
      const other = await send(fake.url, request);
      assert.deepEqual(other, one, JSON.stringify(request).slice(0, 200));
    }
    const rows = await real.query('d "b', "SELECT sum(n) AS n, sum(k) AS k FROM m GROUP BY *");
    const held = rows.map(({ name: _, time: __, n, k, ...tags }) => ({
      tags: Object.fromEntries(Object.entries(tags).filter(([, text]) => text !== "")),
      sums: { ...(n !== null && { n }), ...(k !== null && { k }) },
    })) as SeriesSums[];
    assert.equal(held.length, 8);
    assert.deepEqual(sorted(memory.series('d "b', "m")), sorted(held));
  } finally {
    await fake.close();
    await real.close();
  }
});

async function send(url: string, request: (typeof REQUESTS)[number]) {
  const { path, body } = typeof request === "string"
    ? { path: `/write?db=${encodeURIComponent('d "b')}`, body: request }
    : "q" in request
    ? { path: `/query?q=${encodeURIComponent(request.q)}`, body: "" }
    : request;
  const answer = await fetch(url + path, { method: "POST", body });
  return { status: answer.status, body: await answer.text() };
}

function sorted(all: readonly SeriesSums[]): string[] {
  return all.map(({ tags, sums }) =>
    JSON.stringify([Object.entries(tags).sort(), Object.entries(sums).sort()])
  ).sort();
}

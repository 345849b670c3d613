/**
 * The memory of batches that are stored is freed and used again at once, while INSERTs of the same rows
 * that failed before may still hang in a connection: nothing of that may reach a server. Whatever two
 * servers do, every row arrives once and as it was, and no INSERT is sent in part and looks whole. The
 * seed is printed; to repeat a run set SHISHI_SEED. SHISHI_RUNS: how many batches, instead of 4.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { Pump } from "../../src/batch/pump.ts";
import type { Clock, Sink } from "../../src/contracts.ts";
import { createLedger } from "../../src/meter/ledger.ts";
import { seeded } from "../kit/faulty_bytes.ts";
import { textOf } from "../kit/scripted_sink.ts";
import { MOODS, startTrickster } from "../kit/trickster.ts";
import { deliverTo, realClock, silent } from "./kit.ts";

const seed = Number(process.env.SHISHI_SEED ?? Date.now() % 2 ** 31);
const BATCHES = Number(process.env.SHISHI_RUNS ?? 4);
/** More than the buffers of a connection hold. */
const BATCH_BYTES = 6 * 1024 * 1024;
const ROW_BYTES = 16 * 1024;
const TIMEOUT_MS = 150;

/** A second is a tenth of one: nobody waits for a backoff. */
const hasty: Clock = {
  ...realClock,
  monotonicMs: () => realClock.monotonicMs() * 10,
  after: (ms, task) => realClock.after(ms / 10, task),
};

for (const compress of ["none", "gzip"] as const) {
  test(`what is freed reaches no server, ${compress === "gzip" ? "compressed" : "plain"}`, {
    timeout: 60_000,
  }, async () => {
    console.log(`freed: seed ${seed}, ${BATCHES} batches`);
    const chance = seeded(seed);
    const isBad = (line: string) => line.startsWith('{"bad"');
    const mood = () => chance() < 0.4 ? "whole" : MOODS[Math.floor(chance() * MOODS.length)]!;
    const servers = [await startTrickster(mood, isBad), await startTrickster(mood, isBad)];
    const deliver = deliverTo(servers.map(({ url }) => `${url}/db`), {
      compress,
      insertTimeoutMs: TIMEOUT_MS,
    });
    const texts = new Map<string, string>();
    const wrecks: Uint8Array[][] = [];
    const sink: Sink = {
      async deliver(batch, signal) {
        const text = texts.get(batch.id) ?? textOf(batch);
        assert.ok(text === textOf(batch), "another body under one id");
        texts.set(batch.id, text);
        const sizes = batch.body.map(({ buffer }) => buffer.byteLength);
        const delivery = await deliver.sink.deliver(batch, signal);
        // Let go in a moment; then somebody else has that memory.
        setTimeout(() => {
          wrecks.push(sizes.map((bytes) => new Uint8Array(bytes).fill(0x58)));
          if (wrecks.length > 2) wrecks.shift();
        }, 0);
        return delivery;
      },
    };
    const buried: string[] = [];
    const ledger = createLedger();
    const pump = new Pump({
      fill: { maxRows: 1e6, maxBytes: BATCH_BYTES, flushIntervalMs: 100, idleIntervalMs: null },
      budget: { maxRows: 1e6, maxBytes: 1e9 },
      concurrency: 3,
      reached: "memory",
      maxSpoolBytes: Infinity,
    }, {
      sink,
      ledger,
      clock: hasty,
      log: silent,
      spool: null,
      bury: (_batch, _dead, rows) => Promise.resolve((buried.push(...rows), null)),
    });

    const salt = Array.from({ length: ROW_BYTES }, () => Math.floor(chance() * 36).toString(36));
    const rows: string[] = [];
    const lentTo = new Uint8Array(2 * BATCH_BYTES);
    for (let bytes = 0, badOnes = 0; bytes < BATCHES * BATCH_BYTES;) {
      // The first batch is one piece and has bad rows: INSERTs of some of its rows are views of it.
      const length = bytes === 0 ? BATCH_BYTES / ROW_BYTES : 1 + Math.floor(chance() * 20);
      const lines = Array.from({ length }, () => {
        const bad = bytes === 0 && badOnes < 2 && chance() < 0.02;
        const from = Math.floor(chance() * ROW_BYTES);
        const pad = salt.slice(from).concat(salt.slice(0, from)).join("");
        const line = JSON.stringify(bad ? { bad: badOnes++, pad } : { n: rows.length, pad });
        rows.push(line);
        return line;
      });
      const text = lines.map((line) => `${line}\n`).join("");
      const { written } = new TextEncoder().encodeInto(text, lentTo);
      bytes += written;
      const taken = pump.take({
        table: "t",
        shape: "row",
        rows: lines.length,
        body: lentTo.subarray(0, written),
        lent: true,
        types: new Map(),
        fingerprint: null,
      });
      assert.equal(taken.kind, "taken");
      lentTo.fill(0x59);
    }
    pump.close();
    try {
      assert.equal(await pump.drained(400_000), true, "not all rows have left");
    } finally {
      pump.abandon();
      await deliver.close();
      await Promise.all(servers.map((server) => server.close()));
    }

    const seen = servers.flatMap((server) => server.seen);
    const moods = new Map<string, number>();
    for (const { mood, token, text, whole } of seen) {
      moods.set(mood, (moods.get(mood) ?? 0) + 1);
      const all = texts.get(token);
      if (all === undefined) continue;
      assert.ok(all.startsWith(text), `${mood}: what was sent is not what the batch holds`);
      assert.ok(!whole || text === all, `${mood}: a part of it looks whole`);
    }
    console.log(JSON.stringify(Object.fromEntries(moods)));
    const bad = rows.filter(isBad);
    const good = rows.filter((line) => !isBad(line));
    assert.deepEqual(buried.toSorted(), bad.toSorted());
    for (const { seen } of servers) {
      const stored = seen.filter(({ stored }) => stored).flatMap(({ text }) =>
        text.trimEnd().split("\n")
      );
      assert.equal(new Set(stored).size, stored.length, "stored twice");
    }
    const arrived = new Set(
      seen.filter(({ stored }) => stored).flatMap(({ text }) => text.trimEnd().split("\n")),
    );
    assert.equal(arrived.size, good.length);
    assert.ok(good.every((line) => arrived.has(line)));
    assert.equal(ledger.totals().stored, good.length);
  });
}

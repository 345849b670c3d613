/**
 * The memory of batches that are stored is freed and used again at once, while INSERTs of the same rows
 * that failed before may still hang in a connection: nothing of that may reach a server. Whatever two
 * servers do, every row arrives once and as it was, and no INSERT is sent in part and looks whole. The
 * seed is printed; to repeat a run set SHISHI_SEED. SHISHI_RUNS: how many batches, instead of 4.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { openDisk } from "../../src/spool/open.ts";
import { Pump } from "../../src/batch/pump.ts";
import type { Clock, Sink } from "../../src/contracts.ts";
import { createDeliver } from "../../src/deliver/deliver.ts";
import { DONE } from "../../src/kernel/result.ts";
import { createLedger } from "../../src/meter/ledger.ts";
import { createFetch } from "../../src/runtime/fetch.ts";
import { nodeFiles } from "../../src/runtime/files.ts";
import { seeded } from "../kit/faulty_bytes.ts";
import { textOf } from "../kit/scripted_sink.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { MOODS, startTrickster } from "../kit/trickster.ts";
import { endpointOf, realClock, silent } from "./kit.ts";

const seed = Number(process.env.SHISHI_SEED ?? Date.now() % 2 ** 31);
const BATCHES = Number(process.env.SHISHI_RUNS ?? 4);
/** More than the buffers of a connection hold. */
const BATCH_BYTES = 6 * 1024 * 1024;
const ROW_BYTES = 16 * 1024;
/** Nobody waits so long: see `giveUp`. */
const TIMEOUT_MS = 60_000;
/** INSERTs that do not go well; from then on all do. */
const ODD = 40;

/** A second is a tenth of one: nobody waits for a backoff. */
const hasty: Clock = {
  ...realClock,
  monotonicMs: () => realClock.monotonicMs() * 10,
  after: (ms, task) => realClock.after(ms / 10, task),
};

for (const compress of ["none", "gzip"] as const) {
  test(`what is freed reaches no server, ${compress === "gzip" ? "compressed" : "plain"}`, {
    timeout: 120_000,
  }, async () => {
    console.log(`freed: seed ${seed}, ${BATCHES} batches`);
    const chance = seeded(seed);
    const isBad = (line: string) => line.startsWith('{"bad"');
    let odd = ODD;
    const mood = () =>
      chance() < 0.4 || odd-- <= 0 ? "whole" : MOODS[Math.floor(chance() * MOODS.length)]!;
    const timeouts = new Set<() => void>();
    const giveUp = () =>
      void setTimeout(() => {
        for (const timeout of [...timeouts]) timeout();
      }, 50);
    const servers = [
      await startTrickster(mood, isBad, giveUp),
      await startTrickster(mood, isBad, giveUp),
    ];
    const deliver = createDeliver({
      endpoints: servers.map(({ url }) => endpointOf(`${url}/db`)),
      eventsTable: "analytics_events",
      createTable: false,
      insertSettings: [],
      insertTimeoutMs: TIMEOUT_MS,
      compress,
    }, {
      fetch: createFetch({ pooled: false }),
      clock: {
        ...realClock,
        after(ms, task) {
          if (ms !== TIMEOUT_MS) return realClock.after(ms, task);
          timeouts.add(task);
          return () => void timeouts.delete(task);
        },
      },
      log: silent,
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
    const dataDir = tempDir("freed");
    let read = 0;
    const files = {
      ...nodeFiles,
      read: (path: string) => (read++, nodeFiles.read(path)),
    };
    const opened = await openDisk({
      dir: { files, dataDir, log: silent },
      clock: realClock,
      onLost() {},
    });
    if (!opened.ok) throw new Error(opened.problem);
    const disk = opened.value;
    const pump = new Pump({
      fill: { maxRows: 1e6, maxBytes: BATCH_BYTES, flushIntervalMs: 100, idleIntervalMs: null },
      // None may wait in memory: those that are not sent at once are written, and read again.
      budget: { maxRows: 1e6, maxBytes: (BATCHES + 1) * BATCH_BYTES },
      concurrency: 2,
      reached: "memory",
      maxSpoolBytes: Infinity,
      keyWindowMs: 3_600_000,
    }, {
      sink,
      ledger,
      clock: hasty,
      log: silent,
      spool: disk.spool,
      deadLetters: {
        write: (_batch, _dead, rows) => Promise.resolve((buried.push(...rows), DONE)),
      },
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
      assert.equal(await pump.drained(900_000), true, "not all rows have left");
    } finally {
      pump.abandon();
      await deliver.close();
      await disk.close();
      removeDir(dataDir);
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
    console.log(JSON.stringify({ ...Object.fromEntries(moods), read }));
    assert.ok(read > 0, "none came from the disk");
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

/**
 * Files of the spool that somebody removes while their rows are held: the only way in which rows that
 * were acknowledged with `disk` are lost, and then it is said, and counted.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { balance } from "../../src/meter/ledger.ts";
import { events } from "../kit/chunks.ts";
import { settle } from "../kit/manual_clock.ts";
import { stored, tableTrouble } from "../kit/scripted_sink.ts";
import { DATA, type PumpKit, pumpKit, segments } from "./spool_kit.ts";

/** Batches of an earlier process, two rows each, that their tables do not take. */
async function withBacklog(...tables: readonly string[]): Promise<PumpKit> {
  const before = await pumpKit({ ack: "memory" });
  for (const table of tables) before.pump.take(events(2, { table }));
  before.pump.close();
  await settle();
  await before.pump.spill();
  before.pump.abandon();
  await before.disk.close();
  const kit = await pumpKit({ files: before.files });
  kit.sink.script = () => tableTrouble;
  await kit.pump.recover();
  await kit.clock.advance(1000);
  return kit;
}

/** Attempts, and what follows from them. */
async function goOn(kit: PumpKit): Promise<void> {
  kit.sink.script = () => stored;
  await kit.clock.advance(60_000);
}

function losses({ log }: PumpKit) {
  return log.lines.filter(({ message }) => message.startsWith("rows are lost"));
}

function books({ ledger, pump }: PumpKit) {
  const { stored, lost, held } = ledger.totals();
  assert.equal(balance(ledger.totals()), 0);
  assert.equal(held, pump.rows());
  return { stored, lost, held };
}

const MEANWHILE = [
  ["stored", ({ sink }: PumpKit) => sink.answerAll(stored), { stored: 2, lost: 2, held: 0 }],
  ["given up", ({ pump }: PumpKit) => pump.abandon(), { stored: 0, lost: 0, held: 4 }],
] as const;

describe("a file that somebody removes", () => {
  test("costs the rows that were nowhere else: told and counted once, and all is well", async () => {
    const kit = await withBacklog("a", "b", "c");
    const path = segments(kit.files).find((path) => path.includes("/b/"))!;
    await kit.files.remove(path);
    await goOn(kit);
    assert.match(kit.pump.troubles().tables.get("b") ?? "", /cannot be read/);
    assert.deepEqual(books(kit), { stored: 4, lost: 0, held: 2 });
    const flushed = kit.pump.flush(1000);
    const drained = kit.pump.drained(1000);
    for (let times = 0; times < 2; times++) await kit.pump.probeDisk();
    assert.equal(await flushed, false);
    assert.deepEqual(books(kit), { stored: 4, lost: 2, held: 0 });
    assert.equal(await drained, true);
    assert.deepEqual(kit.pump.troubles(), { server: null, disk: null, tables: new Map() });
    assert.equal(kit.pump.spoolBytes(), 0);
    const batch = /[0-9a-f-]{36}/.exec(path)![0];
    assert.deepEqual(losses(kit), [{
      level: "error",
      message: "rows are lost: their spool file was deleted",
      fields: { table: "b", batch, rows: 2, file: path },
    }]);
    await goOn(kit);
    assert.equal(kit.clock.pending, 0);
  });

  test("with all the others: the folder is made anew", async () => {
    const kit = await withBacklog("a", "b");
    kit.files.deleteTree(DATA);
    await goOn(kit);
    await kit.pump.probeDisk();
    assert.deepEqual(books(kit), { stored: 0, lost: 4, held: 0 });
    assert.equal(losses(kit).length, 2);
    const taken = kit.pump.take(events(1, { table: "a" }));
    assert.equal(taken.kind === "taken" && await taken.ticket.kept, null);
    await goOn(kit);
    assert.deepEqual(books(kit), { stored: 1, lost: 4, held: 0 });
  });

  test("its keys: those of lost rows are forgotten, the others are written again", async () => {
    const before = await pumpKit();
    await before.pump.recover();
    const chunks = ["a", "b"].map((table) => ({
      ...events(2, { table }),
      key: { key: "k", hash: "h", rejected: 0 },
    }));
    const taken = async ({ pump }: PumpKit, at: number) => {
      const is = pump.take(chunks[at]!);
      assert.ok(is.kind === "taken" && (await is.ticket.kept) === null);
      return is.before === undefined ? "new" : "again";
    };
    for (const at of [0, 1]) assert.equal(await taken(before, at), "new");
    let kit = await pumpKit({ files: before.files.crash("process") });
    kit.sink.script = ({ batch }) => batch.table === "a" ? stored : tableTrouble;
    await kit.pump.recover();
    await kit.clock.advance(1000);
    assert.deepEqual(books(kit), { stored: 2, lost: 0, held: 2 });
    kit.files.deleteTree(DATA);
    await kit.clock.advance(60_000);
    await kit.pump.probeDisk();
    assert.deepEqual(books(kit), { stored: 2, lost: 2, held: 0 });
    assert.equal(await taken(kit, 0), "again");
    assert.equal(await taken(kit, 1), "new");
    await kit.pump.probeDisk();
    kit = await pumpKit({ files: kit.files.crash("process") });
    await kit.pump.recover();
    for (const at of [0, 1]) assert.equal(await taken(kit, at), "again");
  });

  test("is told at the end, too: its rows do not wait on disk for the next start", async () => {
    const kit = await withBacklog("a", "b");
    await kit.files.remove(segments(kit.files)[0]!);
    await kit.clock.advance(60_000);
    kit.pump.close();
    await settle();
    await kit.pump.spill();
    kit.pump.abandon();
    assert.deepEqual(books(kit), { stored: 0, lost: 2, held: 2 });
    await kit.disk.close();
  });

  for (const answer of [stored, tableTrouble]) {
    test(`costs nothing while its rows are being sent, then ${answer.kind}`, async () => {
      const kit = await withBacklog("a", "b");
      const [a, b] = segments(kit.files);
      await kit.files.remove(b!);
      kit.sink.script = () => "hold";
      await kit.clock.advance(60_000);
      const [sent] = kit.sink.inFlight;
      assert.deepEqual([sent?.batch.table, kit.sink.inFlight.length], ["a", 1]);
      await kit.files.remove(a!);
      await kit.pump.probeDisk();
      assert.deepEqual(books(kit), { stored: 0, lost: 2, held: 2 });
      sent!.answer(answer);
      await goOn(kit);
      await kit.pump.probeDisk();
      const [in_, lost] = answer === stored ? [2, 2] : [0, 4];
      assert.deepEqual(books(kit), { stored: in_, lost, held: 0 });
      assert.deepEqual([kit.pump.memoryBytes(), kit.pump.spoolBytes()], [0, 0]);
    });
  }
});

for (const [what, meanwhile, told] of MEANWHILE) {
  test(`rows that are ${what} while the folders are read are not lost`, async () => {
    const kit = await withBacklog("a", "b");
    const [a, b] = segments(kit.files);
    await kit.files.remove(b!);
    kit.sink.script = () => "hold";
    await kit.clock.advance(60_000);
    await kit.files.remove(a!);
    kit.gate.shut = true;
    const probed = kit.pump.probeDisk();
    while (kit.gate.waiting > 0 && !/^list .*spool.[ab]/.test(kit.files.trace.at(-1)!)) {
      kit.gate.release(0);
      await settle();
    }
    meanwhile(kit);
    await settle();
    kit.gate.open();
    await probed;
    assert.deepEqual(books(kit), told);
    await kit.disk.close();
  });
}

describe("what may come back is not given up", () => {
  test("a file that cannot be read", async () => {
    const kit = await withBacklog("a");
    kit.files.fail({ on: "read", code: "EIO", times: 1000 });
    await goOn(kit);
    await kit.pump.probeDisk();
    assert.deepEqual(books(kit), { stored: 0, lost: 0, held: 2 });
    kit.files.heal();
    await goOn(kit);
    assert.deepEqual(books(kit), { stored: 2, lost: 0, held: 0 });
  });

  test("a folder that cannot be read, though the one above it can", async () => {
    const kit = await withBacklog("a");
    kit.files.fail({ on: "read", code: "ENOENT", times: 1000 });
    await kit.clock.advance(60_000);
    kit.files.fail({ on: "list", code: "EACCES" });
    await kit.pump.probeDisk();
    kit.files.heal();
    await goOn(kit);
    assert.deepEqual(books(kit), { stored: 2, lost: 0, held: 0 });
  });

  for (const code of ["EACCES", "ENOENT"]) {
    test(`a folder that cannot be read, nor the one above it: ${code}`, async () => {
      const kit = await withBacklog("a", "b");
      const taken = kit.pump.take(events(1, { table: "c" }));
      assert.equal(taken.kind === "taken" && await taken.ticket.kept, null);
      await kit.files.remove(segments(kit.files)[0]!);
      kit.files.fail({ on: "read", code: "ENOENT", times: 1000 });
      await kit.clock.advance(60_000);
      kit.files.fail({ on: "list", code, times: 1000 });
      await kit.pump.probeDisk();
      assert.deepEqual(books(kit), { stored: 0, lost: 0, held: 5 });
      assert.deepEqual(losses(kit), []);
      kit.files.heal();
      await goOn(kit);
      await kit.pump.probeDisk();
      assert.deepEqual(books(kit), { stored: 3, lost: 2, held: 0 });
      assert.deepEqual(segments(kit.files), [], "nothing stays that is stored");
    });
  }

  test("a file on a disk that does not take rows at the moment", async () => {
    const kit = await withBacklog("a");
    kit.files.fail({ on: "read", code: "ENOENT", times: 1000 });
    kit.files.readOnly = true;
    await goOn(kit);
    await kit.pump.probeDisk();
    assert.deepEqual(books(kit), { stored: 0, lost: 0, held: 2 });
    kit.files.heal();
    kit.files.readOnly = false;
    await kit.pump.probeDisk();
    await goOn(kit);
    assert.deepEqual(books(kit), { stored: 2, lost: 0, held: 0 });
  });
});

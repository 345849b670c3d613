/**
 * One story of a journal, with files that are recycled, batches that move, keys and messages, told once for
 * each thing that the disk is asked in it: that one fails, with EIO or ENOSPC, or the process dies of it, or
 * the power. Whatever it was: what was acknowledged is stored once, what was refused is not, keys are known, and
 * messages are, until their broker has them as acknowledged.
 * Runs once: the disk is the test's own; disk_test.ts of test/model has it on both runtimes.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Chunk } from "../../src/contracts.ts";
import { events } from "../kit/chunks.ts";
import { FaultyFiles, type Operation } from "../kit/faulty_files.ts";
import { comparePositions } from "../../src/kernel/positions.ts";
import { settle } from "../kit/manual_clock.ts";
import { stored, tableTrouble, textOf } from "../kit/scripted_sink.ts";
import { type PumpKit, pumpKit } from "./spool_kit.ts";

const OPTIONS = { journalFileBytes: 2048, backlogBytes: 4096, maxRows: 10 };
const OPERATIONS: readonly Operation[] = [
  ...["write", "sync", "create", "overwrite", "syncFolder", "remove", "close"] as const,
  ...["makeFolder", "append", "read", "readPart", "rename", "list", "truncate"] as const,
];
const REQUESTS = 30;
/** So many messages are acknowledged at their broker before the story ends. */
const COMMITTED = 2;
const SOURCE = "s";

/** ClickHouse, as far as tokens go: batches by id, and how often each row is there. */
class Stored {
  readonly ids = new Set<string>();
  readonly rows = new Map<string, number>();
  /** A table that takes nothing. */
  stuck: string | null = "t2";

  insert(id: string, text: string): void {
    if (this.ids.has(id)) return;
    this.ids.add(id);
    for (const row of text.split("\n").slice(0, -1)) {
      this.rows.set(row, (this.rows.get(row) ?? 0) + 1);
    }
  }
}

interface Told {
  readonly chunk: Chunk;
  /** `open`: not answered, and never will be. */
  answer: "open" | "kept" | "refused";
}

async function started(files: FaultyFiles, into: Stored): Promise<PumpKit> {
  const kit = await pumpKit({ ...OPTIONS, files });
  kit.sink.script = ({ batch }) => {
    if (batch.table === into.stuck) return tableTrouble;
    into.insert(batch.id, textOf(batch));
    return stored;
  };
  await kit.pump.recover();
  return kit;
}

function take(kit: PumpKit, told: Told): "new" | "again" | "refused" {
  const { chunk } = told;
  const taken = kit.pump.take({ ...chunk, body: chunk.body.slice() });
  told.answer = "open";
  if (taken.kind === "refused") told.answer = "refused";
  else if (taken.ticket.kept === null) told.answer = "kept";
  else void taken.ticket.kept.then((no) => told.answer = no === null ? "kept" : "refused");
  if (taken.kind === "refused") return "refused";
  return taken.before === undefined ? "new" : "again";
}

/** Message number `at` of a partition: it is given when the one before is kept. */
function message(at: number): Chunk {
  const marks = [{ partition: "p", position: String(at) }];
  const table = at % 2 === 0 ? "t2" : "t1";
  return { ...events(2, { table }), messages: { source: SOURCE, marks, ids: [`m${at}`] } };
}

/** A source gives what is next, unless that is on its way. */
function read(kit: PumpKit, all: Told[]): void {
  const messages = all.filter(({ chunk }) => chunk.messages !== undefined);
  const last = messages.at(-1);
  if (last?.answer === "open") return;
  if (last?.answer === "refused") return void take(kit, last);
  const told: Told = { chunk: message(messages.length + 1), answer: "open" };
  all.push(told);
  take(kit, told);
}

async function story(kit: PumpKit, into: Stored): Promise<Told[]> {
  const all: Told[] = [];
  for (let at = 0; at < REQUESTS; at++) {
    const table = `t${at % 3}`;
    const key = { key: `k${at}`, hash: "h", rejected: 0 };
    const chunk = at % 4 < 2
      ? { ...events(at % 8 === 1 ? 25 : 3, { table }), key }
      : events(4, { table });
    const told: Told = { chunk, answer: "open" };
    all.push(told);
    take(kit, told);
    if (at % 3 === 1) read(kit, all);
    if (at === 20) {
      kit.pump.committed(SOURCE, { partition: "p", position: String(COMMITTED) });
    }
    // Some share a round.
    if (at % 5 < 3) await settle();
    if (at === REQUESTS - 6) {
      into.stuck = null;
      await kit.clock.advance(60_000);
    }
    if (at % 6 === 5) await kit.clock.advance(1000);
    if (at % 10 === 9) await kit.pump.probeDisk();
  }
  await settle();
  return all;
}

/** What is known of messages is what was kept; they come again, and those that are new are taken. */
async function readAgain(kit: PumpKit, all: readonly Told[]): Promise<void> {
  const messages = all.filter(({ chunk }) => chunk.messages !== undefined);
  const mark = (await kit.pump.marks(SOURCE)).get("p")?.position ?? "0";
  const ids = await kit.pump.taken(SOURCE, messages.map((_, at) => `m${at + 1}`));
  for (const [at, told] of messages.entries()) {
    const position = String(at + 1);
    const isKnown = comparePositions(position, mark) <= 0;
    const isCommitted = at < COMMITTED && told.answer === "kept";
    if (!isCommitted) assert.equal(isKnown, ids.has(`m${position}`), `mark and id of ${position}`);
    if (told.answer === "kept") assert.ok(isKnown || isCommitted, `${position} is known`);
    if (told.answer === "refused") assert.ok(!isKnown, `${position} was refused`);
    if (isKnown || isCommitted) told.answer = "kept";
    else await takeSoon(kit, told);
  }
}

/** The pump is small: what it has no room for comes later. */
async function takeSoon(kit: PumpKit, told: Told): Promise<void> {
  for (let tries = 0; told.answer !== "kept" && tries < 20; tries++) {
    if (tries > 0) await kit.clock.advance(2_000);
    take(kit, told);
    await settle();
  }
  assert.equal(told.answer, "kept");
}

/** All goes well from here on: first where it was, then after one more power cut. */
async function aftermath(kit: PumpKit, into: Stored, all: readonly Told[], over: boolean) {
  let next = kit;
  into.stuck = null;
  if (!over) {
    kit.files.heal();
    await kit.pump.probeDisk();
    await kit.clock.advance(60_000);
    assert.equal(kit.ledger.totals().lost, 0);
    next = await started(kit.files.crash("power"), into);
  }
  await readAgain(next, all);
  for (const told of all) {
    const { answer, chunk } = told;
    if (chunk.key === undefined) continue;
    const is = take(next, told);
    if (answer === "kept") assert.equal(is, "again", `${chunk.key.key} is known`);
    if (answer === "refused") assert.equal(is, "new", `${chunk.key.key} was refused`);
    await settle();
    await takeSoon(next, told);
  }
  await next.clock.advance(100_000);
  assert.equal(next.pump.rows(), 0);
  for (const { answer, chunk } of all) {
    for (const row of new TextDecoder().decode(chunk.body).split("\n").slice(0, -1)) {
      const times = into.rows.get(row) ?? 0;
      if (answer === "kept") assert.equal(times, 1, "acknowledged");
      else if (answer === "refused") assert.equal(times, 0, "refused");
      else assert.ok(times <= 1);
    }
  }
}

/** What the disk is asked in a story that goes well. */
async function countOperations(): Promise<number> {
  const into = new Stored();
  const kit = await started(new FaultyFiles(1), into);
  const before = kit.files.operations;
  const all = await story(kit, into);
  assert.ok(all.every(({ answer }) => answer === "kept"));
  const operations = kit.files.operations - before;
  const asked = new Set(kit.files.trace.slice(before).map((line) => line.split(" ")[0]));
  for (const each of ["write", "sync", "rename", "create", "remove"]) {
    assert.ok(asked.has(each), each);
  }
  await aftermath(kit, into, all, false);
  return operations;
}

/** The journal asks for no code, so that they take turns: of two steps of a kind each has one. */
const CODES = ["EIO", "ENOSPC"] as const;
for (const turn of [0, 1]) {
  test(`a failure at every step, ${CODES.join(" and ")} in turn: ${turn + 1} of 2`, async () => {
    const operations = await countOperations();
    for (let at = turn; at < operations; at += 2) {
      const code = CODES[(at >> 1) % CODES.length]!;
      const into = new Stored();
      const kit = await started(new FaultyFiles(at), into);
      kit.files.fail({ on: OPERATIONS, code, skip: at });
      await aftermath(kit, into, await story(kit, into), false).catch((problem) => {
        throw new Error(`operation ${at} of ${operations}`, { cause: problem });
      });
    }
  });
}

for (const how of ["process", "power"] as const) {
  test(`the ${how} ends at every step`, async () => {
    const operations = await countOperations();
    for (let at = 1; at <= operations; at++) {
      const into = new Stored();
      const kit = await started(new FaultyFiles(at), into);
      kit.files.crashAt(kit.files.operations + at);
      const all = await story(kit, into);
      const next = await started(kit.files.crash(how), into);
      await aftermath(next, into, all, true).catch((problem) => {
        throw new Error(`operation ${at} of ${operations}`, { cause: problem });
      });
    }
  });
}

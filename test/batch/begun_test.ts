/**
 * Killed while a batch moves from the journal to a segment, and then, in the next process's life, the power
 * fails: what the kernel had not written yet of the segment must not have taken the place of what was safe.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { events } from "../kit/chunks.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { settle } from "../kit/manual_clock.ts";
import { stored, tableTrouble } from "../kit/scripted_sink.ts";
import { type PumpKit, pumpKit } from "./spool_kit.ts";

const OPTIONS = { journalFileBytes: 4096, backlogBytes: 8192, maxRows: 20 };
const STUCK = "stuck";

async function started(files: FaultyFiles): Promise<PumpKit> {
  const kit = await pumpKit({ ...OPTIONS, files });
  kit.sink.script = ({ batch }) => batch.table === STUCK ? tableTrouble : stored;
  await kit.pump.recover();
  return kit;
}

/** One batch is stuck; others come and go until it is moved, or the files have crashed. */
async function untilMoved(kit: PumpKit): Promise<void> {
  kit.pump.take(events(20, { table: STUCK }));
  let over = false;
  void kit.files.crashed.then(() => over = true);
  await settle();
  for (let at = 0; at < 100 && !over && !syncOf(kit); at++) {
    kit.pump.take(events(20, { table: `t${at % 3}` }));
    await settle();
    if (!over) await kit.clock.advance(1000);
  }
}

/** Number of the operation that made the segment safe; 0 before. */
function syncOf({ files }: PumpKit): number {
  return files.trace.findIndex((line) => line.startsWith("sync /data/spool/")) + 1;
}

test("a segment that was begun does not take the place of what is safe", async () => {
  for (let seed = 1; seed < 20; seed++) {
    const dry = await started(new FaultyFiles(seed));
    await untilMoved(dry);
    const at = syncOf(dry);
    assert.ok(at > 0, "it was moved");
    const kit = await started(new FaultyFiles(seed));
    kit.files.crashAt(at);
    await untilMoved(kit);
    const next = await started(kit.files.crash("process"));
    for (let more = 0; more < 100; more++) {
      next.pump.take(events(20, { table: `t${more % 3}` }));
      await next.clock.advance(1000);
    }
    const last = await started(next.files.crash("power"));
    assert.equal(last.pump.byTable().get(STUCK), 20, `seed ${seed}`);
  }
});

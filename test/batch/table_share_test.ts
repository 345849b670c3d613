/**
 * A table in trouble is its own trouble: it holds its share, and the others have room.
 * Runs once: time is the test's own, the disk and the server are; test/model/disk_test.ts has the pump on both runtimes.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Taken } from "../../src/contracts.ts";
import { events } from "../kit/chunks.ts";
import { settle } from "../kit/manual_clock.ts";
import { stored, tableTrouble } from "../kit/scripted_sink.ts";
import { type PumpKit, pumpKit } from "./spool_kit.ts";

/** Takes rows of a table, and waits until the disk has answered. */
async function post({ pump }: PumpKit, table: string, rows: number): Promise<Taken["kind"]> {
  const answer = pump.take(events(rows, { table }));
  if (answer.kind === "taken") await answer.ticket.kept;
  await settle();
  return answer.kind;
}

for (const ack of ["memory", "disk"] as const) {
  describe(`a table in trouble, ack=${ack}`, () => {
    const kitOf = async () => {
      const kit = await pumpKit({ ack, maxRows: 10, backlog: 100, tableShare: 0.5 });
      kit.sink.script = ({ batch }) => batch.table === "bad" ? tableTrouble : stored;
      return kit;
    };

    test("is refused alone when it holds its share", async () => {
      const kit = await kitOf();
      for (let n = 0; n < 5; n++) assert.equal(await post(kit, "bad", 10), "taken");
      const answer = kit.pump.take(events(1, { table: "bad" }));
      assert.ok(answer.kind === "refused" && answer.why === "full");
      assert.match(answer.reason, /^bad is in trouble and holds 50 rows: more than 50% of backlog/);
      assert.equal(await post(kit, "good", 40), "taken");
    });

    test("takes nothing from the others that it took before its trouble was known", async () => {
      const kit = await kitOf();
      assert.equal(await post(kit, "bad", 100), "taken");
      assert.equal(await post(kit, "bad", 1), "refused");
      assert.equal(kit.pump.refusal(10), null);
      for (let n = 0; n < 20; n++) assert.equal(await post(kit, "good", 50), "taken", `${n}`);
      assert.equal(await post(kit, "good", 51), "refused", "more than is theirs");
      assert.equal(kit.ledger.totals().stored, 1000);
    });

    test("shares its share with others in trouble: a healthy one has as much room as beside one", async () => {
      const kit = await kitOf();
      kit.sink.script = ({ batch }) => batch.table.startsWith("bad") ? tableTrouble : stored;
      // One after the other they take what they can.
      let held = 0;
      for (const table of ["bad", "bad2", "bad3"]) {
        for (let n = 0; n < 100 && await post(kit, table, 1) === "taken"; n++) held++;
        await kit.clock.advance(60_000);
        await settle();
      }
      // The last of each was taken before its trouble was known.
      assert.ok(held >= 50 && held <= 50 + 13 + 9 + 3 * 10, `${held} rows`);
      const answer = kit.pump.take(events(10, { table: "bad2" }));
      assert.ok(answer.kind === "refused" && answer.why === "full");
      assert.match(
        answer.reason,
        /^bad2 and 2 more are in trouble and hold \d+ rows: more than 50% of backlog \(table-share\) is/,
      );
      for (let n = 0; n < 20; n++) assert.equal(await post(kit, "good", 50), "taken", `${n}`);
      assert.equal(await post(kit, "good", 51), "refused", "more than is theirs");
      assert.equal(kit.ledger.totals().stored, 1000);
    });

    test("that comes when the share is used up has a part of it", async () => {
      const kit = await kitOf();
      kit.sink.script = ({ batch }) => batch.table.startsWith("bad") ? tableTrouble : stored;
      for (let n = 0; n < 5; n++) assert.equal(await post(kit, "bad", 10), "taken");
      assert.equal(await post(kit, "bad2", 10), "taken", "nothing is known of it");
      // Half of an even part of 50: 12.5.
      assert.equal(await post(kit, "bad2", 2), "taken");
      assert.equal(await post(kit, "bad2", 1), "refused");
      assert.equal(await post(kit, "bad", 1), "refused");
    });

    test("may hold more again when its trouble is over", async () => {
      const kit = await kitOf();
      await post(kit, "bad", 50);
      assert.equal(await post(kit, "bad", 10), "refused");
      kit.sink.script = () => stored;
      await kit.clock.advance(60_000);
      await settle();
      for (let n = 0; n < 10; n++) assert.equal(await post(kit, "bad", 10), "taken");
      assert.equal(kit.ledger.totals().held, 0);
    });
  });
}

test("a table in trouble fills its share of the disk, not more", async () => {
  const kit = await pumpKit({ maxRows: 1, maxSpoolBytes: 4000, tableShare: 0.5 });
  kit.sink.script = ({ batch }) => batch.table === "bad" ? tableTrouble : stored;
  let rows = 0;
  while (await post(kit, "bad", 1) === "taken") rows++;
  const answer = kit.pump.take(events(1, { table: "bad" }));
  assert.ok(answer.kind === "refused");
  assert.match(
    answer.reason,
    /bytes of the disk: more than 50% of spool-max-bytes \(table-share\)/,
  );
  assert.ok(kit.pump.spoolBytes() > 1000 && kit.pump.spoolBytes() <= 2100, `${rows} rows`);
  assert.equal(await post(kit, "good", 1), "taken");
});

/** Waits until a collector has read its spool and delivered all of it, and that its books balance. */
import assert from "node:assert/strict";
import type { Shishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";

export async function drained(shishi: Shishi, withinMs = 30_000): Promise<void> {
  await eventually(async () => {
    const { ledger, recovering } = await shishi.status();
    assert.equal(recovering, false);
    const { received, recovered, rejected, stored, dead, held, lost } = ledger;
    assert.deepEqual([held, lost], [0, 0]);
    assert.equal(received + recovered, rejected + stored + dead);
  }, { withinMs });
}

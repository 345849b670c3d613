/** An `Inserter` that tells the ledger of every INSERT: how long it took, or why it failed. */

import type { Clock, Inserter, Ledger } from "../contracts.ts";

export function withMeter(
  inserter: Inserter,
  ledger: Pick<Ledger, "insert" | "insertError">,
  clock: Clock,
): Inserter {
  return {
    async insert(request, signal) {
      const startedMs = clock.monotonicMs();
      const verdict = await inserter.insert(request, signal);
      if (verdict.kind === "stored") {
        ledger.insert(request.table, request.rows, clock.monotonicMs() - startedMs);
      } else ledger.insertError(request.table, verdict.code);
      return verdict;
    },
    sieve: (request, signal) => inserter.sieve(request, signal),
  };
}

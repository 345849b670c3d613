/**
 * The short question in front of each INSERT of rows: which columns its table has at this moment. Tables
 * that are asked for at once share one question, and those that are asked for while one is under way share
 * the next: two hundred tables that are due together would spend half of the time of their INSERTs on
 * questions of their own.
 *
 * A table for which ClickHouse does not answer (a lock that is held, a folder that is gone) holds up no
 * other: what gets no answer together, or none soon, is asked for each by itself.
 */

import type { Answered, Clock } from "../contracts.ts";
import { placeOf } from "../kernel/names.ts";
import { within } from "../kernel/time.ts";
import type { Query, Row } from "./query.ts";
import { describeColumns, describeColumnsOfAll } from "./sql.ts";

export interface ShortQuestionsDeps {
  readonly query: Pick<Query, "rows">;
  readonly clock: Clock;
  /** Of tables whose name tells none. */
  readonly database: string;
  /** Ends questions under way. */
  readonly signal: AbortSignal;
}

type Told = Answered<readonly Row[]>;

/** Tables by name, and what waits for each. */
type Asking = Map<string, PromiseWithResolvers<Told>>;

/** A question about several tables has so long; a usual one takes 1 to 3 ms. */
const TOGETHER_MS = 250;
/** In one question; what is asked of more tables at once is answered in turn. */
const MOST_TABLES = 64;

export class ShortQuestions {
  #next: Asking = new Map();
  #underway = false;

  constructor(readonly deps: ShortQuestionsDeps) {}

  /** Rows of `name`, `type` and `default_kind`, as they are from this call on; none: there is no such table. */
  ask(table: string): Promise<Told> {
    let asked = this.#next.get(table);
    if (asked === undefined) this.#next.set(table, asked = Promise.withResolvers<Told>());
    if (!this.#underway) void this.#run();
    return asked.promise;
  }

  async #run(): Promise<void> {
    this.#underway = true;
    // What is asked for in the same turn of the event loop goes along.
    await Promise.resolve();
    while (this.#next.size > 0) {
      const all = [...this.#next];
      const asking: Asking = new Map(all.slice(0, MOST_TABLES));
      this.#next = new Map(all.slice(MOST_TABLES));
      await within(this.deps.clock, TOGETHER_MS, this.#askFor(asking), undefined);
    }
    this.#underway = false;
  }

  async #askFor(asking: Asking): Promise<void> {
    const byDatabase = Map.groupBy(asking.keys(), (table) => placeOf(table).database);
    await Promise.all(
      [...byDatabase.values()].map((tables) =>
        tables.length === 1 ? this.#askAlone(tables[0]!, asking) : this.#together(tables, asking)
      ),
    );
  }

  async #askAlone(table: string, asking: Asking): Promise<void> {
    const { query, database, signal } = this.deps;
    asking.get(table)!.resolve(await query.rows(describeColumns(database, table), signal));
  }

  /** @param tables of one database. */
  async #together(tables: readonly string[], asking: Asking): Promise<void> {
    const { query, clock, database, signal } = this.deps;
    const sql = describeColumnsOfAll(database, tables);
    const told = await within(clock, TOGETHER_MS, query.rows(sql, signal), null);
    if (told?.ok) {
      const rows = Map.groupBy(told.value, (row) => row["table"]);
      for (const table of tables) {
        asking.get(table)!.resolve({ ok: true, value: rows.get(placeOf(table).table) ?? [] });
      }
    } else if (told !== null && told.code === 0) {
      // No server answers: none would answer for one of them.
      for (const table of tables) asking.get(table)!.resolve(told);
    } else await Promise.all(tables.map((table) => this.#askAlone(table, asking)));
  }
}

/**
 * The rows of the books: one account per table, one per event type in it.
 *
 * Promises: bounded whatever names arrive, and steady. Tables and event types beyond their bounds
 * share the account `other`; who came first keeps its own until the process ends, so that a row
 * which was counted under a name when it was accepted is counted under the same name when it is
 * stored. The usual case, a known name, is one map look-up.
 */

import { Buffer } from "node:buffer";
import type { LedgerTotals, Shape } from "../contracts.ts";
import { boundedLabel } from "./label.ts";

/** Where everything beyond a bound is counted. */
export const OTHER = "other";

const MAX_TABLES = 1000;

/** Of one event type in one table; `name` is `""` for rows that have no event type. */
export interface TypeAccount {
  readonly name: string;
  readonly shape: Shape;
  accepted: number;
  stored: number;
}

export interface TableAccount {
  readonly name: string;
  received: number;
  recovered: number;
  rejected: number;
  stored: number;
  dead: number;
  held: number;
  lost: number;
  readonly types: Map<string, TypeAccount>;
  /** Rejected rows by reason. */
  readonly reasons: Map<string, number>;
  /** Failed inserts by code. */
  readonly codes: Map<string, number>;
}

export interface Books {
  /** The account that rows of this table are counted in; made when it is missing. */
  table(name: string): TableAccount;
  type(table: TableAccount, shape: Shape, name: string): TypeAccount;
  /** The name of the account that `table` would give, without making one. */
  label(name: string): string;
  all(): Iterable<TableAccount>;
}

/** @param maxEventTypes event types with an account of their own, all tables together. */
export function createBooks(maxEventTypes: number): Books {
  const tables = new Map<string, TableAccount>();
  let ownTypes = 0;

  function label(name: string): string {
    const bounded = boundedLabel(name);
    return tables.has(bounded) || tables.size < MAX_TABLES ? bounded : OTHER;
  }

  return {
    label,
    all: () => tables.values(),

    table(name) {
      const known = tables.get(name) ?? tables.get(label(name));
      if (known !== undefined) return known;
      const made = newTable(copyOf(label(name)));
      tables.set(made.name, made);
      return made;
    },

    type(table, shape, name) {
      const known = table.types.get(name);
      if (known !== undefined) return known;
      let own = boundedLabel(name);
      if (shape === "event" && !table.types.has(own)) {
        if (ownTypes < maxEventTypes) ownTypes++;
        else own = OTHER;
      }
      const shared = table.types.get(own);
      if (shared !== undefined) return shared;
      const made = { name: copyOf(own), shape, accepted: 0, stored: 0 };
      table.types.set(made.name, made);
      return made;
    },
  };
}

/** The seven numbers of some accounts together. */
export function totalsOf(accounts: Iterable<TableAccount>): LedgerTotals {
  const sum = { received: 0, recovered: 0, rejected: 0, stored: 0, dead: 0, held: 0, lost: 0 };
  for (const account of accounts) {
    sum.received += account.received;
    sum.recovered += account.recovered;
    sum.rejected += account.rejected;
    sum.stored += account.stored;
    sum.dead += account.dead;
    sum.held += account.held;
    sum.lost += account.lost;
  }
  return sum;
}

function newTable(name: string): TableAccount {
  return {
    name,
    received: 0,
    recovered: 0,
    rejected: 0,
    stored: 0,
    dead: 0,
    held: 0,
    lost: 0,
    types: new Map(),
    reasons: new Map(),
    codes: new Map(),
  };
}

/** A string of its own: one cut out of a request's body may keep the whole body alive. */
function copyOf(text: string): string {
  return Buffer.from(text).toString();
}

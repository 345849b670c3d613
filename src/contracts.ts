/**
 * Every interface between the rooms, under one address: a room imports this file and itself.
 *
 * The alphabet is the flow: admit → batch → deliver. A request's good rows travel as one `Chunk`;
 * chunks gather in a `Batch`; a batch is delivered and comes back as a `Delivery`. What happened is
 * told to the `Ledger`. Outcomes are values; an exception is a bug.
 */

export type * from "./contracts/clock.ts";
export type * from "./contracts/control.ts";
export type * from "./contracts/dead_letters.ts";
export type * from "./contracts/delivery.ts";
export type * from "./contracts/intake.ts";
export type * from "./contracts/ledger.ts";
export type * from "./contracts/log.ts";
export type * from "./contracts/page.ts";
export type * from "./contracts/queries.ts";
export type * from "./contracts/rows.ts";
export type * from "./contracts/tables.ts";
export type * from "./contracts/workers.ts";

export { LONGEST_TYPE_BYTES, OTHER_TYPE } from "./contracts/rows.ts";

/**
 * The ages of ClickHouse that tests of delivery run against, newest first. `npm test` takes those that it
 * needs anyway and the newest; `npm run test:engines` (SHISHI_ENGINES=25.5) the one between.
 */
import process from "node:process";
import { type ClickHouse, startClickHouse } from "./clickhouse.ts";
import { startOldClickHouse } from "./old_clickhouse.ts";
import { startWheelClickHouse } from "./wheel_clickhouse.ts";

export interface Engine {
  readonly version: string;
  /** Knows Map, DateTime64, tokens and windows. */
  readonly modern: boolean;
  /** A server in its own right: breaks off a torn INSERT, takes several at once. */
  readonly whole: boolean;
  readonly start: () => Promise<ClickHouse>;
}

const ALL: readonly Engine[] = [
  { version: "26.9", modern: true, whole: false, start: () => startWheelClickHouse("26.9") },
  { version: "26.7", modern: true, whole: true, start: () => startClickHouse() },
  { version: "25.5", modern: true, whole: true, start: () => startWheelClickHouse("25.5") },
  { version: "18.16", modern: false, whole: true, start: startOldClickHouse },
];

const ON_BUN = process.versions.deno === undefined;
const among = (wanted: readonly string[]) => ALL.filter(({ version }) => wanted.includes(version));
const named = process.env.SHISHI_ENGINES?.split(",");
const usual = named ?? ["26.9", "26.7", "18.16"];

/** For what depends on the runtime as well: how an INSERT is sent, and an answer read. */
export const EVERY_ENGINE: readonly Engine[] = among(usual);

/** What an age of ClickHouse does it does for both runtimes: one of them asks all, the other the usual one. */
export const ENGINES: readonly Engine[] = ON_BUN ? EVERY_ENGINE : among(named ?? ["26.7"]);

/** As `ENGINES`: whether 26.7 is meant, or 18.16. */
export const AGES: readonly boolean[] = ON_BUN ? [true, false] : [true];

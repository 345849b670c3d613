/** `shishi outbox ddl postgres|mysql|sqlite`: the table that an application writes into, as SQL on stdout. */

import process from "node:process";
import { boolean } from "../settings/kinds.ts";
import { SOURCE_PARAMETERS } from "../settings/source_urls.ts";
import { section, setting } from "../settings/spec.ts";
import { ddlOf, OUTBOX_KINDS } from "../sources/outbox_ddl.ts";
import { type CliCommand, operandOf, settingsOrExitCode } from "./cli.ts";

const USAGE = "shishi outbox ddl postgres|mysql|sqlite [--outbox TABLE] [--FLAG VALUE ...]";
const ABOUT =
  "Prints the table of an outbox, for the database's own tool: an application writes rows into it in " +
  "the transaction of its own data, and a source takes them. Nothing is connected to. mysql is MariaDB " +
  "too. The flags are the parameters of the source's URL, and have to be the same there.\n" +
  "shishi outbox ddl postgres --notify | psql app\n" +
  "shishi --source 'postgres://shishi@db/app?outbox=outbox&table=orders'\n" +
  "Exit code 0, or 2 for unusable flags.";

const { outbox, id, payload, done, "table-column": tableColumn } = SOURCE_PARAMETERS.own.outbox;

const EXTRA = section("Flags", [
  setting({ name: "outbox", kind: outbox.kind, default: "outbox", meaning: "the table's name" }),
  setting({
    name: "id",
    kind: id.kind,
    default: id.default,
    meaning: "its column that orders rows and tells them apart",
  }),
  setting({
    name: "payload",
    kind: payload.kind,
    default: payload.default,
    meaning: "its column for one JSON object, or an array of them",
  }),
  setting({
    name: "table-column",
    kind: tableColumn.kind,
    default: null,
    meaning: "a column that names the table of a row in ClickHouse",
  }),
  setting({
    name: "done",
    kind: done.kind,
    default: done.default,
    meaning: "what becomes of a row that is safe; with a column rows stay, and it gets the time",
  }),
  setting({
    name: "notify",
    kind: boolean,
    default: "false",
    meaning: "postgres: with the trigger that makes new rows known at once",
  }),
]);

export const outboxCommand: CliCommand = {
  name: "outbox",
  summary: "print the table of an outbox (ddl postgres|mysql|sqlite)",
  page: { usage: USAGE, about: ABOUT, words: ["ddl"], only: [], extra: EXTRA },
  run: (argv) => Promise.resolve(run(argv)),
};

/** @returns the exit code. */
function run(argv: readonly string[]): number {
  const { operand: verb, rest } = operandOf(argv, EXTRA);
  const { operand: given, rest: flags } = operandOf(rest, EXTRA);
  const kind = OUTBOX_KINDS.find((name) => name === given);
  if (verb !== "ddl" || kind === undefined) {
    const words = [verb, given].filter((word) => word !== null).join(" ").slice(0, 64);
    const found = words === "" ? "nothing" : JSON.stringify(words);
    console.error(
      `shishi: outbox: expected ddl postgres, ddl mysql or ddl sqlite, got ${found}; see shishi outbox --help`,
    );
    return 2;
  }
  const loaded = settingsOrExitCode(flags, { command: "outbox", only: [], extra: EXTRA });
  if (typeof loaded === "number") return loaded;
  const { extra } = loaded;
  if (extra.notify && kind !== "postgres") {
    console.error(`shishi: outbox: notify: ${kind} has no notifications; leave it out`);
    return 2;
  }
  process.stdout.write(ddlOf(kind, {
    outbox: extra.outbox,
    id: extra.id,
    payload: extra.payload,
    tableColumn: extra["table-column"],
    done: extra.done === "delete" ? null : extra.done,
    notify: extra.notify,
  }));
  return 0;
}

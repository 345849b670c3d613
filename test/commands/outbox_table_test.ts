/**
 * `shishi outbox ddl`: names are quoted as each database has it, and nothing else than a name gets through.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { outboxCommand } from "../../src/commands/outbox_table.ts";

/** What is written, and the exit code. */
async function run(...argv: string[]): Promise<{ out: string; err: string; code: number }> {
  const [write, error] = [process.stdout.write, console.error];
  let [out, err] = ["", ""];
  process.stdout.write = (text) => {
    out += text;
    return true;
  };
  console.error = (line: string) => err += `${line}\n`;
  try {
    return { code: await outboxCommand.run(argv), out, err };
  } finally {
    process.stdout.write = write;
    console.error = error;
  }
}

test("each database gets a table with the names of the flags", async () => {
  const flags = ["--outbox", "app.out", "--id=n", "--payload", "body", "--table-column", "to"];
  const names: Record<string, RegExp> = {
    postgres: /CREATE TABLE "app"\."out" \(\n {2}"n" .*IDENTITY.*\n {2}"to" .*\n {2}"body" json /,
    mysql:
      /CREATE TABLE `app`\.`out` \(\n {2}`n` .*AUTO_INCREMENT.*\n {2}`to` .*\n {2}`body` longtext /,
    sqlite:
      /CREATE TABLE "app"\."out" \(\n {2}"n" .*AUTOINCREMENT.*\n {2}"to" .*\n {2}"body" TEXT /,
  };
  for (const [kind, wanted] of Object.entries(names)) {
    const { out, err, code } = await run("ddl", kind, ...flags);
    assert.equal(code, 0, err);
    assert.match(out, wanted);
    assert.doesNotMatch(out, /TRIGGER|done/);
  }
});

test("done and notify add an index and a trigger", async () => {
  const { out } = await run("ddl", "postgres", "--done", "sent", "--notify");
  assert.match(out, /"sent" timestamptz/);
  assert.match(out, /CREATE INDEX .* \("id"\) WHERE "sent" IS NULL;/);
  assert.match(out, /pg_notify\('shishi_outbox', ''\)/);
  assert.match(out, /CREATE TRIGGER .* AFTER INSERT ON "outbox"/);
});

const REFUSED: readonly [argv: string[], says: RegExp][] = [
  [[], /expected ddl postgres, ddl mysql or ddl sqlite, got nothing/],
  [["ddl", "oracle"], /got "ddl oracle"/],
  [["print", "mysql"], /got "print mysql"/],
  [["ddl", "mysql", "--notify"], /notify: mysql has no notifications/],
  [["ddl", "sqlite", "--outbox", "a;b"], /--outbox: expected the name of a table/],
  [["ddl", "sqlite", "--id", 'a"b'], /--id: expected the name of a column/],
  [["ddl", "mysql", "--tabel-column", "x"], /did you mean --table-column\?/],
];
for (const [argv, says] of REFUSED) {
  test(`refused with exit code 2: ${argv.join(" ") || "nothing"}`, async () => {
    const { out, err, code } = await run(...argv);
    assert.equal(code, 2);
    assert.equal(out, "");
    assert.match(err, says);
  });
}

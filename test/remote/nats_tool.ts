/**
 * As much of the `nats` tool as the lines of docs/nats.md use: `req SUBJECT BODY --replies 0 --timeout 5s
 * -H NAME:VALUE`, to the server of `NATS_URL`. Prints the answers; ends after the second one.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { parseArgs } from "node:util";
import { connect, createInbox, headers } from "nats.ws";

const { values, positionals } = parseArgs({
  args: process.argv.slice(2),
  allowPositionals: true,
  options: {
    replies: { type: "string" },
    timeout: { type: "string" },
    header: { type: "string", short: "H", multiple: true, default: [] },
  },
});
const [verb, subject = "", body = ""] = positionals;
assert.equal(verb, "req");
const carried = headers();
for (const field of values.header) {
  const colon = field.indexOf(":");
  carried.set(field.slice(0, colon), field.slice(colon + 1));
}
const connection = await connect({ servers: process.env["NATS_URL"] ?? "" });
const inbox = createInbox();
const answers = connection.subscribe(inbox, { max: 2 });
connection.publish(subject, body, { reply: inbox, headers: carried });
for await (const answer of answers) {
  console.log(new TextDecoder().decode(answer.data));
  if (JSON.parse(new TextDecoder().decode(answer.data)).ok === false) break;
}
await connection.close();

/**
 * `plain_jetstream.ts URL STREAM COUNT`: reads so many messages through a consumer of its own with the
 * library's iterator, acknowledges each, and tells how long it took until the server has the last one.
 */
import process from "node:process";
import { AckPolicy, connect } from "nats.ws";
import { begin, tell } from "./plain.ts";

const [url = "", stream = "", count] = process.argv.slice(-3);
const costs = begin();
const connection = await connect({ servers: url });
const api = await connection.jetstreamManager();
await api.consumers.add(stream, {
  durable_name: "plain",
  ack_policy: AckPolicy.Explicit,
  max_ack_pending: 10_000,
});
const consumer = await connection.jetstream().consumers.get(stream, "plain");
const messages = await consumer.consume({ max_messages: 1000 });
let left = Number(count);
for await (const message of messages) {
  left--;
  if (left > 0) message.ack();
  else {
    await message.ackAck();
    break;
  }
}
await connection.close();
tell(costs);
process.exit(0);

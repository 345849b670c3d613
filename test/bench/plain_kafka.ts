/** `plain_kafka.ts PORT TOPIC COUNT`: reads so many messages, commits once a second, and tells how long it took. */
import process from "node:process";
import { Consumer } from "@platformatic/kafka";
import { begin, tell } from "./plain.ts";

const [port, topic = "", count] = process.argv.slice(-3);
const consumer = new Consumer({
  clientId: "plain",
  groupId: "plain",
  bootstrapBrokers: [`127.0.0.1:${port}`],
  autocommit: 1000,
  maxBytes: 2 * 1024 * 1024,
  maxBytesPerPartition: 1024 * 1024,
});
const stream = await consumer.consume({
  topics: [topic],
  mode: "committed",
  fallbackMode: "earliest",
  autocommit: 1000,
});
const costs = begin();
let left = Number(count);
for await (const _message of stream) {
  if (--left === 0) break;
}
await consumer.close(true);
tell(costs);
process.exit(0);

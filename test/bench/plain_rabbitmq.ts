/** `plain_rabbitmq.ts URL QUEUE COUNT`: reads so many messages, acknowledges each hundred, and tells how long it took. */
import { AMQPClient } from "@cloudamqp/amqp-client/amqp-socket-client";
import process from "node:process";
import { begin, tell } from "./plain.ts";

const PREFETCH = 1000;
const EACH = 100;

const [url = "", queue = "", count] = process.argv.slice(-3);
const client = new AMQPClient(`${url}?frameMax=131072`, undefined, null);
const costs = begin();
await client.connect();
const channel = await client.channel();
await channel.prefetch(PREFETCH);
let left = Number(count);
await new Promise<void>((resolve) => {
  void channel.basicConsume(queue, { noAck: false }, async (message) => {
    if (--left % EACH !== 0) return;
    await message.ack(true);
    if (left === 0) resolve();
  });
});
// Answered when the server has the acknowledgement.
await channel.prefetch(PREFETCH);
tell(costs);
process.exit(0);

/** RabbitMQ for the benchmark of sources: an exchange that fills two queues, whose messages are persistent and have ids. */
import { AMQPClient } from "@cloudamqp/amqp-client/amqp-socket-client";
import { startRabbitMq } from "../kit/servers.ts";
import { move } from "./cores.ts";
import { TABLE } from "./scenarios.ts";
import type { StartBroker } from "./sources.ts";

/** Messages that are not yet confirmed. */
const BATCH = 1000;

export const rabbitmq: StartBroker = async (stage) => {
  const server = await startRabbitMq();
  stage.keep(server.close);
  await move(server.pid, "load");
  let places = 0;
  return {
    async fill(bodies) {
      const client = new AMQPClient(`${server.url}?frameMax=131072`, undefined, null);
      await client.connect();
      const channel = await client.channel();
      const place = `bench-${++places}`;
      const queues = [`${place}-source`, `${place}-plain`];
      await channel.exchangeDeclare(place, "fanout");
      for (const queue of queues) {
        await channel.queueDeclare(queue);
        await channel.queueBind(queue, place, "");
      }
      await channel.confirmSelect();
      for (let at = 0; at < bodies.length; at += BATCH) {
        await Promise.all(
          bodies.slice(at, at + BATCH).map((body) =>
            channel.basicPublish(place, "", body, {
              deliveryMode: 2,
              messageId: crypto.randomUUID(),
            })
          ),
        );
      }
      await client.close();
      return {
        source: `${server.url}/?queue=${queues[0]}&table=${TABLE}`,
        plain: ["./plain_rabbitmq.ts", server.url, queues[1]!, String(bodies.length)],
      };
    },
  };
};

/** Kafka for the benchmark of sources: a topic with four partitions, whose messages come in batches of a thousand. */
import { Admin, Producer } from "@platformatic/kafka";
import { startKafka } from "../kit/servers.ts";
import { eventually } from "../kit/wait.ts";
import { move } from "./cores.ts";
import { TABLE } from "./scenarios.ts";
import type { StartBroker } from "./sources.ts";

const PARTITIONS = 4;
const BATCH = 1000;

export const kafka: StartBroker = async (stage) => {
  const server = await startKafka();
  stage.keep(server.close);
  await move(server.pid, "load");
  const options = {
    clientId: "bench",
    bootstrapBrokers: [`127.0.0.1:${server.port}`],
    retries: 20,
    retryDelay: 100,
  };
  const admin = new Admin(options);
  const producer = new Producer(options);
  stage.keep(async () => {
    await Promise.all([admin.close(), producer.close()]);
  });
  let topics = 0;
  return {
    async fill(bodies) {
      const topic = `bench-${++topics}`;
      await admin.createTopics({ topics: [topic], partitions: PARTITIONS, replicas: 1 });
      await eventually(() => producer.metadata({ topics: [topic], forceUpdate: true }), {
        withinMs: 10_000,
      });
      for (let at = 0; at < bodies.length; at += BATCH) {
        const partition = at / BATCH % PARTITIONS;
        const messages = bodies.slice(at, at + BATCH)
          .map((body) => ({ topic, partition, value: Buffer.from(body) }));
        await producer.send({ messages, acks: -1 });
      }
      // A group of its own: the member of the run before counts as one of the old one until its session is over.
      return {
        source: `${server.url}/${topic}?table=${TABLE}&group=${topic}`,
        plain: ["./plain_kafka.ts", String(server.port), topic, String(bodies.length)],
      };
    },
  };
};

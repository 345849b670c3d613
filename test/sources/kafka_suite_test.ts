/**
 * What every source promises, on a real Kafka, as a member of a classic group.
 * Runs once: what may differ between the runtimes, connections and codecs, is in kafka_test.ts.
 */

import { openKafka } from "../../src/sources/kafka.ts";
import { startKafka } from "../kit/servers.ts";
import { startTcpProxy, type TcpProxy } from "../kit/tcp_proxy.ts";
import { joinKafka, kafkaAddress, kafkaDeps, makeGroups } from "./kafka_kit.ts";
import { testSource } from "./suite.ts";

testSource("Kafka", async () => {
  let proxy!: TcpProxy;
  const kafka = await startKafka({
    front: async (port) => (proxy = await startTcpProxy(port)).port,
  });
  const others = joinKafka(kafka);
  await makeGroups(others);
  let places = 0;
  return {
    async place() {
      const topic = `t${++places}`;
      await others.makeTopic(topic, 2);
      return {
        open(member, prefetch = 1000) {
          const read = { topics: [topic], group: topic, prefetch, sessionMs: 3_000 };
          const address = kafkaAddress(kafka.port, read);
          return { address, broker: openKafka(address, kafkaDeps({ member })) };
        },
        publish: (bodies) => others.publish(topic, bodies),
        unacknowledged: () => others.unread(topic, topic),
      };
    },
    server: {
      kill: () => kafka.kill(),
      start: () => kafka.start(),
      freeze: () => kafka.freeze(),
      thaw: () => kafka.thaw(),
      cut: () => proxy.cut(),
    },
    // A member with a name that is killed is missed when its session is over.
    traits: { once: true, shared: true, durable: true, againMs: 10_000 },
    async close() {
      await others.close();
      await kafka.close();
      await proxy.close();
    },
  };
});

/**
 * The suite of all sources, on a stream of JetStream.
 * Runs once: jetstream_test.ts has the feed on both runtimes.
 */
import process from "node:process";
import { openNats } from "../../src/sources/nats_source.ts";
import type { NatsError } from "nats.ws";
import { startTcpProxy } from "../kit/tcp_proxy.ts";
import { asAdmin, depsOf, natsSource, publish, startJetStream } from "./nats_kit.ts";
import { testSource } from "./suite.ts";

testSource("JetStream", async () => {
  const server = await startJetStream();
  const proxy = await startTcpProxy(server.natsPort);
  let places = 0;
  return {
    async place() {
      const stream = `S${++places}`;
      const subject = `place.${places}`;
      await asAdmin(server, (_, api) => api.streams.add({ name: stream, subjects: [subject] }));
      const url = `nats://127.0.0.1:${proxy.port}?stream=${stream}&ack-wait=1s`;
      return {
        open(member, prefetch = 1000) {
          const address = natsSource(`${url}&prefetch=${prefetch}`);
          return { address, broker: openNats(address, depsOf(member)) };
        },
        publish: (bodies) => publish(server, subject, bodies),
        unacknowledged: () =>
          asAdmin(server, async (_, api) => {
            try {
              const info = await api.consumers.info(stream, "shishi");
              return info.num_pending + info.num_ack_pending;
            } catch (error) {
              if ((error as NatsError).api_error?.err_code !== 10014) throw error;
              return (await api.streams.info(stream)).state.messages;
            }
          }),
        remove: () =>
          asAdmin(server, async (_, api) => {
            await api.streams.delete(stream);
          }),
      };
    },
    server: {
      kill: () => server.kill(),
      start: () => server.start(),
      freeze: () => void process.kill(server.pid, "SIGSTOP"),
      thaw: () => void process.kill(server.pid, "SIGCONT"),
      cut: () => proxy.cut(),
    },
    traits: { once: true, shared: true, durable: true, againMs: 3_000 },
    async close() {
      await proxy.close();
      await server.close();
    },
  };
});

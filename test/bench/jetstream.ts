/** JetStream for the benchmark of sources: a stream in files, with one consumer for each that reads it. */
import { connect } from "nats.ws";
import { startNats } from "../kit/servers.ts";
import { move } from "./cores.ts";
import { TABLE } from "./scenarios.ts";
import type { StartBroker } from "./sources.ts";

const AT_ONCE = 500;

export const jetstream: StartBroker = async (stage) => {
  const server = await startNats('jetstream { store_dir: "js" }');
  stage.keep(server.close);
  await move(server.pid, "load");
  const connection = await connect({ servers: server.url });
  stage.keep(() => connection.close());
  const api = await connection.jetstreamManager();
  const js = connection.jetstream();
  let streams = 0;
  return {
    async fill(bodies) {
      const stream = `BENCH-${++streams}`;
      await api.streams.add({ name: stream, subjects: [stream] });
      for (let at = 0; at < bodies.length; at += AT_ONCE) {
        await Promise.all(
          bodies.slice(at, at + AT_ONCE).map((body) => js.publish(stream, body)),
        );
      }
      return {
        source: `nats://127.0.0.1:${server.natsPort}?stream=${stream}&table=${TABLE}`,
        plain: ["./plain_jetstream.ts", server.url, stream, String(bodies.length)],
      };
    },
  };
};

/**
 * JetStream in a cluster of three, a stream with three replicas, under load: the leader of the stream is killed, then
 * that of the consumer, and each comes back. Nothing is missing, and nothing is there twice.
 * Runs once: what may differ between the runtimes is in jetstream_test.ts.
 */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { connect, type JetStreamManager, type NatsConnection } from "nats.ws";
import { openNats } from "../../src/sources/nats_source.ts";
import { type NatsNode, startNatsCluster } from "../kit/servers.ts";
import { eventually } from "../kit/wait.ts";
import { depsOf, natsSource } from "./nats_kit.ts";
import { startLoad, startReading } from "./reading.ts";

const SOON = { withinMs: 30_000, everyMs: 100 };
let nodes: readonly NatsNode[];

before(async () => {
  nodes = await startNatsCluster(3);
  const config = { name: "LOAD", subjects: ["load"], num_replicas: 3 };
  // Refused until the cluster has found itself.
  await eventually(() => asAdmin((_, api) => api.streams.add(config)), SOON);
});
after(async () => {
  await Promise.all((nodes ?? []).map((node) => node.close()));
});

/** At any server that is there, on a connection of its own. */
async function asAdmin<T>(
  work: (connection: NatsConnection, api: JetStreamManager) => Promise<T>,
): Promise<T> {
  const servers = nodes.filter(({ pid }) => pid !== 0).map(({ websocketUrl }) => websocketUrl);
  const connection = await connect({ servers, timeout: 2_000, reconnect: false });
  try {
    return await work(
      connection,
      await connection.jetstreamManager({ checkAPI: false, timeout: 2_000 }),
    );
  } finally {
    await connection.close();
  }
}

const leaderOf = (what: "stream" | "consumer") =>
  eventually(async () => {
    const { cluster } = await asAdmin((_, api): Promise<{ cluster?: { leader?: string } }> =>
      what === "stream" ? api.streams.info("LOAD") : api.consumers.info("LOAD", "shishi")
    );
    const node = nodes.find(({ name, pid }) => name === cluster?.leader && pid !== 0);
    assert.ok(node !== undefined, `${cluster?.leader} leads`);
    return node;
  }, SOON);

test("leaders of stream and consumer are killed", { timeout: 170_000 }, async () => {
  const hosts = nodes.map(({ port }) => `127.0.0.1:${port}`).join();
  const address = natsSource(`nats://${hosts}?stream=LOAD&ack-wait=3s`);
  const reading = startReading(address, openNats(address, depsOf()));
  const load = startLoad((bodies) =>
    asAdmin(async (connection) => {
      const stream = connection.jetstream({ timeout: 2_000 });
      // A name that is sent again within two minutes is stored once.
      for (const body of bodies) await stream.publish("load", body, { msgID: body });
    })
  );
  /** What is published from now on is read. */
  const goesOn = async () => {
    const { published } = load;
    await eventually(() => assert.ok(load.published > published + 200), SOON);
    const upTo = load.published;
    await eventually(() => {
      const found = new Set(reading.rows);
      for (let n = published + 1; n <= upTo; n++) {
        assert.ok(found.has(`{"n":${n}}`), `${n}: ${reading.states.join(" → ")}`);
      }
    }, SOON);
  };
  try {
    await goesOn();
    for (const what of ["stream", "consumer"] as const) {
      const leader = await leaderOf(what);
      await leader.kill();
      await goesOn();
      await leader.start();
      await goesOn();
    }
    await load.stop();
    const { messages } = (await asAdmin((_, api) => api.streams.info("LOAD"))).state;
    await eventually(() => assert.ok(reading.rows.length >= messages), SOON);
    await eventually(() => {
      const { lag, unacked } = reading.status();
      assert.deepEqual([lag, unacked], [0, 0]);
    }, SOON);
    const found = new Set(reading.rows);
    assert.equal(reading.rows.length, found.size, "some are there twice");
    assert.equal(found.size, messages);
    for (let n = 1; n <= load.published; n++) assert.ok(found.has(`{"n":${n}}`), `${n}`);
  } finally {
    await load.stop();
    await reading.stop();
  }
});

/** The micro service `shishi`, field by field as NATS' ADR-32 has it, on a real nats-server. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startRemote } from "../../src/remote/remote.ts";
import { COMMANDS } from "../../src/remote/protocol.ts";
import { VERSION } from "../../src/version.ts";
import { type Nats, startNats } from "../kit/servers.ts";
import { eventually } from "../kit/wait.ts";
import { type Asker, asker, clock, connected, fakeControl, remoteOptions } from "./kit.ts";

/** From semver.org, as the ADR asks. */
const SEMVER =
  /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$/;
const STANDARD = ["type", "name", "id", "version", "metadata"];

type Json = Record<string, unknown>;

describe("micro service", () => {
  let nats: Nats;
  let client: Asker;
  before(async () => {
    nats = await startNats();
    client = await asker(nats.url);
  });
  after(async () => {
    await client.close();
    await nats.close();
  });

  async function start(
    group = "eu",
    id = "a",
    more: Parameters<typeof remoteOptions>[2] = {},
  ) {
    const control = fakeControl(group, id);
    const remote = startRemote(remoteOptions([nats.url], control, { group, id, ...more }));
    await connected(remote);
    return { control, remote };
  }

  const endpointsOf = (answer: Json) => answer["endpoints"] as Json[];

  test("PING: the standard fields and no more", async () => {
    const { remote } = await start();
    const answer = await client.ask("$SRV.PING").next();
    assert.deepEqual(Object.keys(answer), STANDARD);
    assert.equal(answer["type"], "io.nats.micro.v1.ping_response");
    assert.equal(answer["name"], "shishi");
    assert.match(String(answer["id"]), /^[A-Za-z0-9_-]{8,}$/);
    assert.match(String(answer["version"]), SEMVER);
    assert.deepEqual(answer["metadata"], { group: "eu", id: "a", runtime: "test" });
    await remote.close();
  });

  test("the version of the program is one", () => assert.match(VERSION, SEMVER));

  test("INFO: one endpoint a command, with its schema, in no queue group", async () => {
    const { remote } = await start("eu", "a", { controlSecret: "s", subject: "ops.shishi" });
    const answer = await client.ask("$SRV.INFO").next();
    assert.deepEqual(Object.keys(answer), [...STANDARD, "description", "endpoints"]);
    assert.equal(answer["type"], "io.nats.micro.v1.info_response");
    assert.ok(String(answer["description"]).length > 0);
    assert.deepEqual(endpointsOf(answer).map((each) => each["name"]), COMMANDS);
    for (const endpoint of endpointsOf(answer)) {
      const name = String(endpoint["name"]);
      assert.deepEqual(Object.keys(endpoint), ["name", "subject", "queue_group", "metadata"]);
      assert.equal(endpoint["subject"], `ops.shishi.${name}.eu.a`);
      assert.equal(endpoint["queue_group"], "");
      const metadata = endpoint["metadata"] as Record<string, string>;
      for (const value of Object.values(metadata)) assert.equal(typeof value, "string");
      assert.equal(metadata["subjects"], `ops.shishi.${name} ops.shishi.${name}.eu`);
      assert.equal(metadata["signed"], "true");
      assert.equal(typeof JSON.parse(metadata["request_schema"] ?? ""), "object");
      const schema = JSON.parse(metadata["response_schema"] ?? "");
      assert.deepEqual(schema.properties.command, { const: name });
    }
    await remote.close();
  });

  test("an answer has what its endpoint's schema requires", async () => {
    const { remote } = await start();
    const info = await client.ask("$SRV.INFO.shishi").next();
    const endpoint = endpointsOf(info).find((each) => each["name"] === "pause");
    const answer = await client.ask(String(endpoint?.["subject"])).next();
    const { response_schema } = endpoint?.["metadata"] as Record<string, string>;
    const schema = JSON.parse(response_schema ?? "");
    for (const name of schema.required) assert.ok(name in answer, name);
    for (const name of schema.properties.ledger.required) {
      assert.equal(typeof (answer["ledger"] as Json)[name], "number", name);
    }
    await remote.close();
  });

  test("STATS: counts, times in nanoseconds, the last error, and the ledger as data", async () => {
    const beforeMs = Date.now();
    const { control, remote } = await start();
    const fresh = await client.ask("$SRV.STATS").next();
    assert.deepEqual(Object.keys(fresh), [...STANDARD, "started", "endpoints"]);
    assert.equal(fresh["type"], "io.nats.micro.v1.stats_response");
    const started = String(fresh["started"]);
    assert.equal(new Date(started).toISOString(), started);
    assert.ok(Date.parse(started) >= beforeMs && Date.parse(started) <= Date.now());
    for (const [at, command] of COMMANDS.entries()) {
      assert.deepEqual(endpointsOf(fresh)[at], {
        name: command,
        subject: `shishi.${command}.eu.a`,
        queue_group: "",
        num_requests: 0,
        num_errors: 0,
        last_error: "",
        data: control.status().ledger,
        processing_time: 0,
        average_processing_time: 0,
      });
    }
    await client.ask("shishi.pause").next();
    await client.ask("shishi.pause.eu").next();
    const flush = client.ask("shishi.flush.eu.a");
    await flush.next();
    control.flushed(false);
    await flush.next();
    const used = await client.ask("$SRV.STATS").next();
    const of = (name: string) => {
      const found = endpointsOf(used).find((each) => each["name"] === name);
      assert.ok(found !== undefined);
      return found;
    };
    const { num_requests, num_errors, last_error, ...pause } = of("pause");
    assert.deepEqual([num_requests, num_errors, last_error], [2, 0, ""]);
    const total = Number(pause["processing_time"]);
    assert.ok(Number.isInteger(total) && total > 0 && total < 60e9, String(total));
    assert.equal(pause["average_processing_time"], Math.trunc(total / 2));
    assert.equal(of("flush")["num_errors"], 1);
    assert.equal(of("flush")["last_error"], "rows were still held after 1234 ms");
    assert.equal(of("stop")["num_requests"], 0);
    await remote.close();
  });

  test("a refused command is an error of its endpoint", async () => {
    const { remote } = await start("eu", "a", { controlSecret: "s" });
    await client.ask("shishi.stop.eu").next();
    const stats = await client.ask("$SRV.STATS.shishi").next();
    const stop = endpointsOf(stats).find((each) => each["name"] === "stop");
    assert.deepEqual([stop?.["num_requests"], stop?.["num_errors"]], [1, 1]);
    assert.match(String(stop?.["last_error"]), /^not signed/);
    await remote.close();
  });

  test("all, by name, by id: who answers; and nobody once closed", async () => {
    const one = await start("eu", "a");
    // The same name by mistake: still two services.
    const two = await start("eu", "a");
    for (const verb of ["PING", "INFO", "STATS"]) {
      for (const subject of [`$SRV.${verb}`, `$SRV.${verb}.shishi`]) {
        const answers = client.ask(subject);
        const ids = [(await answers.next())["id"], (await answers.next())["id"]];
        assert.notEqual(ids[0], ids[1]);
        for (const id of ids) {
          const single = client.ask(`${subject.replace(/\.shishi$/, "")}.shishi.${id}`);
          const answer = await single.next();
          assert.equal(answer["id"], id);
          assert.equal(answer["type"], `io.nats.micro.v1.${verb.toLowerCase()}_response`);
          await client.connection.flush();
          assert.equal(single.all.length, 1);
        }
      }
    }
    await one.remote.close();
    await two.remote.close();
    assert.deepEqual(await client.ask("$SRV.PING.shishi").next(), { noResponders: true });
  });

  test("the library's own client of services understands it", async () => {
    const { control, remote } = await start();
    const services = client.connection.services.client();
    const first = async <T>(found: Promise<AsyncIterable<T>>): Promise<T> => {
      for await (const each of await found) return each;
      throw new Error("no service");
    };
    const { id, metadata } = await first(services.ping("shishi"));
    assert.equal(metadata?.["group"], "eu");
    const info = await first(services.info("shishi", id));
    assert.equal(info.endpoints.length, COMMANDS.length);
    const stats = await first(services.stats("shishi", id));
    assert.deepEqual(stats.endpoints?.[0]?.data, control.status().ledger);
    await remote.close();
  });

  test("after a reconnect: the same id and start, the counts go on, one answer each", async () => {
    const mortal = await startNats();
    const control = fakeControl("eu", "a");
    const remote = startRemote(remoteOptions([mortal.url], control));
    await connected(remote);
    const early = await asker(mortal.url);
    await early.ask("shishi.pause.eu").next();
    const former = await early.ask("$SRV.STATS").next();
    await early.close();
    await mortal.kill();
    await eventually(() => assert.equal(remote.server(), null), { withinMs: 20_000 });
    await mortal.start();
    await connected(remote);
    const late = await asker(mortal.url);
    const answers = late.ask("$SRV.STATS");
    const latter = await answers.next();
    assert.equal(latter["id"], former["id"]);
    assert.equal(latter["started"], former["started"]);
    assert.deepEqual(latter, former);
    await late.connection.flush();
    assert.equal(answers.all.length, 1);
    await late.close();
    await remote.close();
    await mortal.close();
  });

  test("no answer goes to a control subject, nor does a flood cost more than 200 a second", async () => {
    let nowMs = 0;
    const still = { ...clock, monotonicMs: () => nowMs };
    const { control, remote } = await start("eu", "a", { clock: still });
    client.connection.publish("$SRV.PING", "", { reply: "shishi.stop" });
    const heard = await client.listen("_INBOX.ping");
    for (let at = 0; at < 1_000; at++) {
      client.connection.publish("$SRV.PING.shishi", "", { reply: "_INBOX.ping" });
    }
    await client.ask("shishi.status").next();
    assert.equal(heard.all.length, 200);
    nowMs += 1_000;
    await client.ask("$SRV.PING").next();
    assert.deepEqual(control.calls, []);
    await remote.close();
  });
});

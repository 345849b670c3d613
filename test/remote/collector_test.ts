/** A whole collector with a control secret: what it obeys, what it tells, and what it is on NATS. */
import assert from "node:assert/strict";
import { dirname } from "node:path";
import { after, before, describe, test } from "node:test";
import { type FakeClickHouse, startFakeClickHouse } from "../kit/fake_clickhouse.ts";
import { type Nats, startNats } from "../kit/servers.ts";
import { runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { startTcpProxy, type TcpProxy } from "../kit/tcp_proxy.ts";
import { removeDir, tempFile } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { type Answers, type Asker, asker } from "./kit.ts";

const SECRET = "a secret of the fleet";

describe("a collector with a control secret", () => {
  const secretFile = tempFile("control-secret", `${SECRET}\n`);
  let clickhouse: FakeClickHouse;
  let proxy: TcpProxy;
  let nats: Nats;
  let client: Asker;
  before(async () => {
    clickhouse = await startFakeClickHouse();
    clickhouse.createTable("t", { a: "UInt32" });
    proxy = await startTcpProxy(Number(new URL(clickhouse.url).port));
    nats = await startNats();
    client = await asker(nats.url);
  });
  after(async () => {
    await client.close();
    await nats.close();
    await proxy.close();
    await clickhouse.close();
    removeDir(dirname(secretFile));
  });

  async function start(id: string): Promise<{ shishi: Shishi; heard: Answers }> {
    const heard = await client.listen(`shishi.event.eu.${id}`);
    const shishi = await startShishi({
      args: ["--clickhouse-url", proxy.url, "--tables=t", "--insert-timeout=300ms"],
      env: {
        SHISHI_NATS_URL: nats.url,
        SHISHI_CONTROL_SECRET_FILE: secretFile,
        SHISHI_GROUP: "eu",
        SHISHI_ID: id,
        SHISHI_CREATE_TABLE: "false",
        SHISHI_FLUSH_INTERVAL: "50ms",
      },
    });
    assert.equal((await heard.next())["event"], "started");
    return { shishi, heard };
  }

  const row = (shishi: Shishi) => shishi.post({ a: 1 }, { path: "/events/t" });
  const stored = (shishi: Shishi, rows: number) =>
    eventually(async () => assert.equal((await shishi.status()).ledger.stored, rows), {
      withinMs: 20_000,
    });

  test("trouble, its end, a refused stop, a signed stop: each told, counted and in the books", async () => {
    const { shishi, heard } = await start("a");
    assert.equal((await row(shishi)).status, 202);
    await stored(shishi, 1);
    proxy.hang();
    assert.equal((await row(shishi)).status, 202);
    const degraded = await heard.next();
    assert.equal(degraded["event"], "degraded");
    assert.match(String(degraded["reasons"]), /^clickhouse: /);
    proxy.resume();
    proxy.cut();
    assert.equal((await heard.next())["event"], "recovered");
    await stored(shishi, 2);

    const stats = await client.ask("$SRV.STATS.shishi").next();
    const [endpoint] = stats["endpoints"] as Record<string, unknown>[];
    assert.deepEqual(endpoint?.["data"], (await shishi.status()).ledger);

    const control = (env: Record<string, string>, ...argv: string[]) =>
      runShishi([...argv, "--target=eu.a", "--nats-url", nats.url], { env });
    for (const env of [{}, { SHISHI_CONTROL_SECRET: "another secret of it" }]) {
      const { code, stderr } = await control(env, "stop", "--yes");
      assert.equal(code, 1);
      assert.match(stderr, /eu\.a: (not signed|signature wrong)/);
    }
    const { text } = await shishi.get("/metrics");
    assert.match(text, /shishi_control_commands_total\{command="stop",ok="false"\} 2/);

    const signed = { SHISHI_CONTROL_SECRET_FILE: secretFile };
    assert.equal((await control(signed, "status")).code, 0);
    assert.equal((await control({}, "status")).code, 1, "status too");
    const stop = await control(signed, "stop", "--yes");
    assert.equal(stop.code, 0, stop.stderr);
    assert.equal((await heard.next())["event"], "draining");
    const stopped = await heard.next();
    assert.equal(stopped["event"], "stopped");
    assert.deepEqual(stopped["ledger"], {
      received: 2,
      recovered: 0,
      rejected: 0,
      stored: 2,
      dead: 0,
      held: 0,
      lost: 0,
    });
    assert.equal((await shishi.exited).code, 0);
    assert.doesNotMatch(shishi.stderr() + stop.stderr + stop.stdout, new RegExp(SECRET));
    await shishi.close();
  });

  test("stopped by a signal: draining and stopped are told all the same", async () => {
    const { shishi, heard } = await start("b");
    assert.equal((await row(shishi)).status, 202);
    shishi.signal("SIGTERM");
    assert.equal((await heard.next())["event"], "draining");
    const { event, ledger } = await heard.next();
    assert.equal(event, "stopped");
    assert.equal((ledger as Record<string, number>)["stored"], 1);
    assert.equal((await shishi.exited).code, 0);
    await shishi.close();
  });
});

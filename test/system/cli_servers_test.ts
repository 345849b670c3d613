/**
 * Settings and the servers that they name: where settings come from, and that no secret is ever told.
 * Runs once: cli_test.ts has the command line on both runtimes.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { startFakeInflux } from "../kit/fake_influx.ts";
import { type ClickHouse, type Nats, startClickHouse, startNats } from "../kit/servers.ts";
import { runShishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempFile } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { holds, ready, says, stopBy } from "./around.ts";

describe("settings and servers", () => {
  let clickhouse: ClickHouse;
  let nats: Nats;
  before(async () => {
    [clickhouse, nats] = await Promise.all([
      startClickHouse(),
      startNats(`authorization { token: "token-of-nats" }`),
    ]);
  });
  after(async () => {
    await Promise.all([clickhouse.close(), nats.close()]);
  });
  test("flag beats environment beats file beats default", async () => {
    const file = tempFile(
      "shishi.toml",
      `clickhouse-url = "${clickhouse.url}"\ntable = "from_file"\ngroup = "from-file"
flush-interval = "1h"\ntables = ["one", "two"]\n`,
    );
    await clickhouse.query("CREATE TABLE two (n UInt32) ENGINE = MergeTree ORDER BY n");
    const shishi = await startShishi({
      args: ["--config", file, "--id", "from-flag", "--group=flag-group"],
      env: { SHISHI_ID: "from-env", SHISHI_TABLE: "from_env", SHISHI_GROUP: "env-group" },
    });
    try {
      await ready(shishi);
      const { id, group } = await shishi.status();
      assert.deepEqual([id, group], ["from-flag", "flag-group"]);
      assert.equal((await shishi.post({ eventType: "a" })).status, 202);
      assert.equal((await shishi.post({ n: 7 }, { path: "/events/two" })).status, 202);
      // The file's flush interval holds: nothing is sent by itself.
      await holds(shishi, 2);
      assert.equal((await stopBy(shishi)).code, 0);
      assert.equal(await clickhouse.query("SELECT count() FROM from_env"), "1");
      assert.equal(await clickhouse.query("SELECT n FROM two"), "7");
      assert.equal(await clickhouse.query("EXISTS TABLE from_file"), "0");
    } finally {
      await shishi.close();
      removeDir(join(file, ".."));
    }
  });

  test("no secret is ever printed, logged or answered", async () => {
    const names = ["clickhouse", "influx", "nats", "auth-one", "auth-two", "bad-try"];
    const [ch, inf, nat, one, two, bad] = names.map((name) => `s3cret-of-${name}-Zq7x`) as [
      string,
      string,
      string,
      string,
      string,
      string,
    ];
    const withPassword = (url: string, user: string, password: string) =>
      url.replace("://", `://${user}:${password}@`);
    const tokens = tempFile("tokens", `${one},${two}\n`);
    const refusing = await startFakeInflux(null);
    refusing.behave({ status: 401, body: `{"error":"authorization failed"}` });
    const env = {
      SHISHI_CLICKHOUSE_URL: withPassword(clickhouse.url, "default", ch),
      SHISHI_INFLUX_URL: withPassword(refusing.url, "u", inf),
      SHISHI_NATS_URL: nats.url,
      SHISHI_NATS_TOKEN: nat,
      SHISHI_AUTH_TOKENS_FILE: tokens,
    };
    let heard = "";
    const shishi = await startShishi({
      args: [
        ..."--log-level debug --influx-interval 100ms --flush-interval 20ms".split(" "),
        ...["--shutdown-timeout", "300ms"],
      ],
      env,
    });
    try {
      const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
      const answers = [
        await shishi.post({ eventType: "a" }, { headers: bearer(bad) }),
        await shishi.post({ eventType: "a" }, { headers: bearer(one) }),
        await shishi.post({ eventType: "a", oops: 1 }, { headers: bearer(two) }),
        await shishi.get("/api/status", bearer(one)),
        await shishi.get("/metrics", bearer(two)),
        await shishi.get(`/nothing?token=${bad}`, bearer(bad)),
      ];
      assert.deepEqual(answers.map(({ status }) => status), [401, 202, 400, 200, 200, 404]);
      for (const { text, headers } of answers) heard += text + JSON.stringify([...headers]);
      await says(shishi, "nats: not connected, trying again in the background");
      await says(shishi, "InfluxDB does not take the counts; they are kept");
      await eventually(() => assert.match(shishi.stderr(), /Authentication failed/), {
        withinMs: 10_000,
      });
      const late = await shishi.get("/readyz");
      heard += late.text;
      assert.equal((await stopBy(shishi)).code, 0);
      heard += shishi.stderr();

      const runs = await Promise.all([
        runShishi(["check"], { env }),
        runShishi(["stop", "--timeout", "1s"], { env }),
        runShishi(["--ack", "nonsense", "--auth-tokens", `${one} ${two}`], { env }),
        runShishi(["--clickhouse-url", `tcp://u:${ch}@h:9000`, "--nats-tokn", nat]),
        runShishi(["--nats-password", nat, "--influx-url", `http://u:${inf}@h/a/b`]),
      ]);
      assert.deepEqual(runs.map(({ code }) => code), [1, 1, 2, 2, 2]);
      for (const { stdout, stderr } of runs) heard += stdout + stderr;
    } finally {
      await shishi.close();
      await refusing.close();
      removeDir(join(tokens, ".."));
    }
    assert.ok(heard.length > 3_000);
    for (const secret of [ch, inf, nat, one, two, bad]) {
      assert.ok(!heard.includes(secret), around(heard, secret));
    }
    for (const pair of [`default:${ch}`, `u:${inf}`]) {
      assert.ok(!heard.includes(Buffer.from(pair).toString("base64")), pair);
    }
  });
});

function around(text: string, part: string): string {
  const at = text.indexOf(part);
  return text.slice(Math.max(0, at - 200), at + part.length + 100);
}

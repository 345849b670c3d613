/** Who must not hold up a stop: clients that are slow or just stay, InfluxDB, NATS. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  type ClickHouse,
  type Nats,
  startClickHouse,
  startInflux,
  startNats,
} from "../kit/servers.ts";
import { startShishi } from "../kit/shishi.ts";
import { startTcpProxy } from "../kit/tcp_proxy.ts";
import { eventually, patient } from "../kit/wait.ts";
import { events, ledgerAtEnd, rawClient, ready, says, stopBy } from "./around.ts";

/** Beyond a limit: starting timers, ending a process, two busy cores. */
const SLACK_MS = 1_000;

describe("a stop is not held up", () => {
  let clickhouse: ClickHouse;
  let nats: Nats;
  before(async () => {
    [clickhouse, nats] = await Promise.all([startClickHouse(), startNats()]);
  });
  after(async () => {
    await Promise.all([clickhouse.close(), nats.close()]);
  });

  const rowsIn = (table: string) => clickhouse.query(`SELECT count() FROM ${table}`);

  test("a signal that comes with the very first line of the log is obeyed as any other", async () => {
    const env = { SHISHI_CLICKHOUSE_URL: clickhouse.url, SHISHI_NATS_URL: nats.url };
    for (let time = 0; time < 3; time++) {
      const shishi = await startShishi({ env });
      try {
        const { code } = await stopBy(shishi);
        assert.equal(code, 0, shishi.stderr());
        assert.equal(ledgerAtEnd(shishi)["message"], "stopped");
      } finally {
        await shishi.close();
      }
    }
  });

  test("by a slow client or an idle connection", async () => {
    const shishi = await startShishi({
      args: ["--flush-interval", "1h", "--shutdown-timeout", "30s"],
      env: { SHISHI_CLICKHOUSE_URL: clickhouse.url, SHISHI_TABLE: "slow_client" },
    });
    const slow = await rawClient(shishi.url);
    const idle = await rawClient(shishi.url);
    const drip = setInterval(() => slow.send("x"), 1_000);
    try {
      await ready(shishi);
      await shishi.post(events(4));
      slow.send("POST /events HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n{");
      idle.send("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
      await eventually(() => assert.match(idle.received(), /200 OK/), { withinMs: 5_000 });
      const { code, tookMs } = await stopBy(shishi);
      assert.equal(code, 0, shishi.stderr());
      assert.ok(tookMs < patient(2_000 + SLACK_MS), `took ${tookMs} ms`);
      assert.equal(await rowsIn("slow_client"), "4");
    } finally {
      clearInterval(drip);
      await slow.close();
      await idle.close();
      await shishi.close();
    }
  });

  test("by InfluxDB and NATS that hang", async () => {
    const influx = await startInflux();
    const toInflux = await startTcpProxy(influx.port);
    const toNats = await startTcpProxy(nats.port);
    const shishi = await startShishi({
      args: ["--flush-interval", "1h", "--influx-interval", "100ms", "--id", "hung"],
      env: {
        SHISHI_CLICKHOUSE_URL: clickhouse.url,
        SHISHI_TABLE: "all_hang",
        SHISHI_INFLUX_URL: toInflux.url,
        SHISHI_NATS_URL: `ws://127.0.0.1:${toNats.port}`,
      },
    });
    try {
      await ready(shishi);
      await says(shishi, "nats: connected");
      await shishi.post(events(4));
      toInflux.hang();
      toNats.hang();
      const { code, tookMs } = await stopBy(shishi);
      assert.equal(code, 0, shishi.stderr());
      // The last write to InfluxDB has 2 s, NATS has as many.
      assert.ok(tookMs < patient(4_000 + SLACK_MS), `took ${tookMs} ms`);
      assert.equal(await rowsIn("all_hang"), "4");
    } finally {
      await shishi.close();
      await Promise.all([toInflux.close(), toNats.close(), influx.close()]);
    }
  });
});

/**
 * The dashboards beside this file: they can be imported, and each of their queries is answered by
 * the real server that holds what a real collector under load has told it.
 * Runs once: what is tested are dashboards.
 */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { load } from "../kit/load.ts";
import {
  type ClickHouse,
  type Influx,
  type Prometheus,
  startClickHouse,
  startInflux,
  startPrometheus,
} from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { type Dashboard, filledIn, queries, readDashboard, variableQuery } from "./dashboard.ts";

/** Panels that show 0 while all is well. */
const ZEROES = ["Lost", "Books", "Mirror errors"];

describe("a dashboard", () => {
  for (const name of ["prometheus", "influxdb"]) {
    test(`for ${name} can be imported into Grafana 9 and later`, () => {
      const { schemaVersion, uid, title, panels, templating } = readDashboard(name);
      // 37 is Grafana 9's; later ones migrate it by themselves.
      assert.equal(schemaVersion, 37);
      assert.ok(uid !== "" && title !== "");
      assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
      const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
        Array.from({ length: w * h }, (_, n) => `${x + n % w} ${y + Math.floor(n / w)}`)
      );
      assert.equal(new Set(cells).size, cells.length, "no panel lies on another");
      assert.ok(panels.every(({ gridPos: { x, w } }) => x + w <= 24));
      // The data source is chosen in Grafana; none of ours is baked in.
      const text = JSON.stringify({ panels, templating });
      const uids = [...text.matchAll(/"uid":"([^"]*)"/g)].map(([, uid]) => uid);
      assert.deepEqual([...new Set(uids)], ["${datasource}"]);
      const known = templating.list.map(({ name }) => name);
      for (const { title, query } of queries(readDashboard(name))) {
        const used = [...query.matchAll(/\$(?!__|timeFilter)(\w+)/g)].map(([, name]) => name!);
        assert.deepEqual(used.filter((name) => !known.includes(name)), [], title);
      }
    });
  }
});

describe("every query is answered", () => {
  let clickhouse: ClickHouse;
  let influx: Influx;
  let prometheus: Prometheus;
  let shishi: Shishi;
  const startedMs = Date.now();
  const closing = new AbortController();
  let loading: Promise<unknown>;

  before(async () => {
    [clickhouse, influx] = await Promise.all([startClickHouse(), startInflux()]);
    await clickhouse.query("CREATE TABLE plain (n UInt32) ENGINE = MergeTree ORDER BY n");
    shishi = await startShishi({
      // What the door finds by itself never becomes a dead letter.
      args: ["--flush-interval", "600ms", "--influx-interval", "400ms", "--type-check", "off"],
      env: {
        SHISHI_CLICKHOUSE_URL: clickhouse.url,
        SHISHI_TABLES: "plain",
        SHISHI_INFLUX_URL: influx.url,
        SHISHI_ID: "host-1",
        SHISHI_GROUP: "eu",
      },
    });
    prometheus = await startPrometheus([new URL(shishi.url).host]);
    loading = Promise.all([
      flood(400, "/events"),
      // Rows that ClickHouse refuses, and events that the collector does.
      flood(15, "/events/plain", (n) => ({ n: ["no number", n, n][n % 3] })),
      flood(15, "/events", (n) => ({ eventType: ["click", 5, 5][n % 3] })),
    ]);
  });
  after(async () => {
    closing.abort();
    await loading;
    await prometheus?.close();
    await shishi?.close();
    await Promise.all([clickhouse?.close(), influx?.close()]);
  });

  function flood(rowsPerSecond: number, path: string, row?: (n: number) => unknown) {
    return load({
      url: shishi.url,
      clients: 1,
      events: Infinity,
      eventsPerRequest: 3,
      rowsPerSecond,
      path,
      ...(row && { row: (_, n) => row(n) }),
      signal: closing.signal,
    });
  }

  test("by Prometheus", { timeout: 60_000 }, async () => {
    const dashboard = readDashboard("prometheus");
    await eventually(async () => {
      const atS = String(Date.now() / 1000);
      for (const { title, query } of queries(dashboard)) {
        const expr = filledIn(query, { __rate_interval: "3s", instance: ".*" });
        const { result } = await prometheus.api("query", { query: expr, time: atS }) as {
          result: { value: [number, string] }[];
        };
        assertNumbers(title, expr, result.map(({ value: [, text] }) => Number(text)));
      }
    }, { withinMs: 20_000, everyMs: 250 });
    for (const variable of variables(dashboard)) {
      const [, metric, label] = /^label_values\((\w+), (\w+)\)$/.exec(variable) ?? [];
      const values = await prometheus.api(`label/${label}/values`, { "match[]": metric! });
      assert.deepEqual(values, [new URL(shishi.url).host]);
    }
  });

  test("by InfluxDB", { timeout: 60_000 }, async () => {
    const dashboard = readDashboard("influxdb");
    const fill = (query: string) =>
      filledIn(query, {
        __interval: "1s",
        __interval_ms: "1000",
        timeFilter: `time >= ${startedMs}ms AND time <= ${Date.now()}ms`,
        group: "(eu|us)",
        id: ".*",
      });
    await eventually(async () => {
      for (const { title, query } of queries(dashboard)) {
        const q = fill(query);
        const rows = await influx.query("shishi", q);
        const ownTags = ["name", "time", "group", "id", "event_type", "table"];
        const values = rows.flatMap((row) =>
          Object.entries(row).filter(([name]) => !ownTags.includes(name)).map(([, value]) => value)
        );
        assertNumbers(title, q, values.filter((value) => value !== null).map(Number));
      }
    }, { withinMs: 20_000, everyMs: 250 });
    const found = await Promise.all(
      variables(dashboard).map((query) => influx.query("shishi", fill(query))),
    );
    assert.deepEqual(found.map((rows) => rows.map(({ value }) => value)), [["eu"], ["host-1"]]);
  });
});

/** Some, all finite, and not just zeroes where something must be seen. */
function assertNumbers(title: string, query: string, values: readonly number[]): void {
  const which = `${title}: ${query}`;
  assert.ok(values.length > 0, `no answer: ${which}`);
  assert.ok(values.every(Number.isFinite), `${values}: ${which}`);
  assert.equal(values.every((value) => value === 0), ZEROES.includes(title), `${values}: ${which}`);
}

function variables({ templating }: Dashboard): string[] {
  return templating.list.filter(({ type }) => type === "query").map(variableQuery);
}

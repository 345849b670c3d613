/**
 * A 2xx is kept: the collector dies at every step that it takes on disk, and while ClickHouse has its
 * INSERT. Started again it delivers every acknowledged event, once.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { compare, load, storedIds } from "../kit/load.ts";
import { freePort } from "../kit/free_port.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { startShishi } from "../kit/shishi.ts";
import { startTcpProxy } from "../kit/tcp_proxy.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { drained } from "./drained.ts";

/** What the disk was asked, which time, and where in it the process dies. */
const POINTS = [
  "create:1:before",
  "create:2:after",
  "write:1:half",
  "write:3:before",
  "write:20:half",
  "write:20:after",
  "sync:1:before",
  "sync:9:before",
  "sync:9:after",
  "syncFolder:2:before",
  "syncFolder:3:after",
  "close:1:before",
  "close:2:after",
  "remove:1:before",
  "remove:2:after",
  "read:2:before",
  "read:4:after",
];

describe("killed at a named point", () => {
  let clickhouse: ClickHouse;
  let dataDir: string;
  let listen: string;
  const acknowledged = new Set<string>();

  const args = (clickhouseUrl: string) => [
    ...["--clickhouse-url", clickhouseUrl, "--listen", listen, "--data-dir", dataDir],
    ...["--ack", "disk", "--flush-interval", "20ms", "--max-block-size", "300"],
  ];

  const loadUntilDead = async (url: string, died: Promise<unknown>) => {
    const stop = new AbortController();
    const clients = load({
      url,
      clients: 8,
      events: 100_000,
      eventsPerRequest: 7,
      signal: stop.signal,
    });
    await died;
    stop.abort();
    for (const id of (await clients).acknowledged) acknowledged.add(id);
  };

  const allThereOnce = async () => {
    const shishi = await startShishi({ args: args(clickhouse.url) });
    await drained(shishi);
    await shishi.close();
    const { missing, doubled } = compare(
      { acknowledged, refused: new Set(), unanswered: new Set(), statuses: new Map() },
      await storedIds(clickhouse),
    );
    assert.deepEqual({ missing, doubled }, { missing: 0, doubled: 0 });
  };

  before(async () => {
    clickhouse = await startClickHouse();
    dataDir = tempDir("crash");
    listen = `127.0.0.1:${await freePort()}`;
  });
  after(async () => {
    await clickhouse.close();
    removeDir(dataDir);
  });

  for (const point of POINTS) {
    test(`on disk: ${point}`, { timeout: 60_000 }, async () => {
      if (point.startsWith("read")) {
        // Something must wait in the spool to be read: nothing is stored while nobody listens there.
        const away = await startShishi({ args: args(`http://127.0.0.1:${await freePort()}`) });
        const stop = new AbortController();
        const clients = load({
          url: away.url,
          clients: 4,
          events: 3_000,
          eventsPerRequest: 50,
          signal: stop.signal,
        });
        for (const id of (await clients).acknowledged) acknowledged.add(id);
        await away.kill();
        await away.close();
      }
      let shishi;
      try {
        shishi = await startShishi({
          args: args(clickhouse.url),
          env: { KILL_AT: point },
          entry: "test/crash/main.ts",
        });
      } catch {
        // It died before it could say that it listens.
      }
      if (shishi !== undefined) {
        await loadUntilDead(shishi.url, shishi.exited);
        await shishi.close();
      }
      await allThereOnce();
    });
  }

  for (const when of ["before it is sent on", "after it was stored"]) {
    test(`ClickHouse has the INSERT: ${when}`, { timeout: 60_000 }, async () => {
      const proxy = await startTcpProxy(clickhouse.port);
      const shishi = await startShishi({ args: args(proxy.url) });
      if (when.startsWith("before")) proxy.hang();
      else proxy.cutAnswers(1000);
      const cutBefore = proxy.answersToCut();
      const death = eventually(() => {
        if (!when.startsWith("before")) assert.ok(proxy.answersToCut() < cutBefore - 2);
        return pauseThen(300);
      }, { withinMs: 20_000 }).then(() => shishi.kill());
      await loadUntilDead(shishi.url, death);
      await shishi.close();
      await proxy.close();
      await allThereOnce();
    });
  }
});

function pauseThen(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

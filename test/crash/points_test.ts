/**
 * A 2xx is kept: the collector dies at every step that it takes on disk, and while ClickHouse has its
 * INSERT. Started again it delivers every acknowledged event, once.
 */
import assert from "node:assert/strict";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { freePort } from "../kit/free_port.ts";
import { load } from "../kit/load.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { BUILDS, ON_BUN, startShishi } from "../kit/shishi.ts";
import { startTcpProxy } from "../kit/tcp_proxy.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually, pause } from "../kit/wait.ts";
import { crashBinary } from "./binary.ts";
import { drained } from "./drained.ts";
import { Told } from "./told.ts";

/** What the disk was asked, which time, and where in it the process dies. */
const ALL_POINTS = [
  "overwrite:1:before",
  "overwrite:2:after",
  "rename:2:before",
  "rename:3:after",
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
/** One runtime dies at all of them, the other at one of each kind. */
const POINTS = ALL_POINTS.filter((_, at) => ON_BUN || at % 3 === 0);

/** From source, and as the binary: what is compiled and minified is what users run. */
const KINDS = BUILDS.map((binary) =>
  binary
    ? { what: "the binary", program: () => ({ binary: crashBinary() }) }
    : { what: "from source", program: () => ({ entry: "test/crash/main.ts" }) }
);

for (const { what, program } of KINDS) {
  describe(`killed at a named point, ${what}`, () => {
    let clickhouse: ClickHouse;
    let dataDir: string;
    let listen: string;
    let how: ReturnType<typeof program>;
    const told = new Told();

    const start = (clickhouseUrl: string, killAt = "") =>
      startShishi({
        ...how,
        env: { KILL_AT: killAt },
        args: [
          ...["--clickhouse-url", clickhouseUrl, "--listen", listen, "--data-dir", dataDir],
          ...["--ack", "disk", "--flush-interval", "20ms", "--max-block-size", "300"],
        ],
      });

    const loadUntilDead = async (url: string, died: Promise<unknown>) => {
      const stop = new AbortController();
      const loading = told.add(load({
        url,
        clients: 8,
        events: 100_000,
        eventsPerRequest: 7,
        signal: stop.signal,
      }));
      await died;
      stop.abort();
      await loading;
    };

    const allThereOnce = async () => {
      const shishi = await start(clickhouse.url);
      await drained(shishi);
      await shishi.close();
      await told.assertOnce(clickhouse);
      const quarantine = join(dataDir, "quarantine");
      for (const name of readdirSync(quarantine)) {
        assert.ok(statSync(join(quarantine, name)).size > 0, `${name} saves nothing`);
      }
    };

    before(async () => {
      how = program();
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
          const away = await start(`http://127.0.0.1:${await freePort()}`);
          await told.add(load({ url: away.url, clients: 4, events: 3_000, eventsPerRequest: 50 }));
          await away.close();
        }
        let shishi;
        try {
          shishi = await start(clickhouse.url, point);
        } catch (problem) {
          // It may die before it can say that it listens.
          assert.match((problem as Error).message, /it ended/);
        }
        if (shishi !== undefined) {
          await loadUntilDead(shishi.url, shishi.exited);
          assert.equal((await shishi.exited).signal, "SIGKILL", shishi.stderr());
          await shishi.close();
        }
        await allThereOnce();
      });
    }

    for (const when of ["before it is sent on", "after it was stored"]) {
      test(`ClickHouse has the INSERT: ${when}`, { timeout: 60_000 }, async () => {
        const proxy = await startTcpProxy(clickhouse.port);
        const shishi = await start(proxy.url);
        if (when.startsWith("before")) proxy.hang();
        else proxy.cutAnswers(1000);
        const cutBefore = proxy.answersToCut();
        const death = eventually(() => {
          if (!when.startsWith("before")) assert.ok(proxy.answersToCut() < cutBefore - 2);
          return pause(300);
        }, { withinMs: 20_000 }).then(() => shishi.kill());
        await loadUntilDead(shishi.url, death);
        await shishi.close();
        await proxy.close();
        await allThereOnce();
      });
    }
  });
}

/**
 * A 2xx is kept: the collector is killed with SIGKILL at random moments under load from many clients,
 * and started again on its data-dir. In the end every acknowledged event is in ClickHouse, once.
 * `CRASH_ROUNDS` in the environment: kills.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { freePort } from "../kit/free_port.ts";
import { load } from "../kit/load.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { BUILDS, ON_BUN, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { pause } from "../kit/wait.ts";
import { say } from "../system/books.ts";
import { drained } from "./drained.ts";
import { Told } from "./told.ts";

const rounds = Number(process.env.CRASH_ROUNDS ?? (ON_BUN ? 12 : 6));

for (const binary of BUILDS) {
  const what = binary ? "the binary" : "from source";
  describe(`killed under load, ${what}`, () => {
    let clickhouse: ClickHouse;
    let dataDir: string;

    before(async () => {
      clickhouse = await startClickHouse();
      dataDir = tempDir("crash");
    });
    after(async () => {
      await clickhouse.close();
      removeDir(dataDir);
    });

    test(
      `${rounds} times: every acknowledged event is there, once`,
      { timeout: 60_000 + rounds * 3_000 },
      async () => {
        const listen = `127.0.0.1:${await freePort()}`;
        const args = [
          ...["--clickhouse-url", clickhouse.url, "--listen", listen, "--data-dir", dataDir],
          ...["--flush-interval", "50ms", "--max-block-size", "500"],
        ];
        const told = new Told();
        const beganMs = performance.now();
        for (let round = 0; round < rounds; round++) {
          const shishi = await startShishi({ args, binary });
          const stop = new AbortController();
          const loading = told.add(load({
            url: shishi.url,
            clients: 16,
            events: Infinity,
            eventsPerRequest: 1 + (round % 3) * 20,
            signal: stop.signal,
          }));
          await pause(20 + Math.random() * 300);
          await shishi.kill();
          stop.abort();
          await loading;
          await shishi.close();
        }
        const last = await startShishi({ args, binary });
        await drained(last);
        const rows = await told.assertOnce(clickhouse);
        last.signal("SIGTERM");
        assert.equal((await last.exited).code, 0);
        await last.close();
        const acknowledged = told.acknowledged.size;
        assert.ok(acknowledged >= rounds / 2, "the load reached the collector");
        say(`killed under load, ${what}`, {
          rounds,
          acknowledged,
          "in doubt": told.unanswered.size,
          "rows checked": rows,
          s: Math.round((performance.now() - beganMs) / 1000),
        });
      },
    );
  });
}

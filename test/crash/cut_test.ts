/**
 * The INSERT goes through and its answer is lost, over and over, under load: each event is there
 * exactly once, because its batch is sent again under the same token.
 * Runs once: points_test.ts and random_test.ts have the collector on both runtimes.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { load } from "../kit/load.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { startTcpProxy, type TcpProxy } from "../kit/tcp_proxy.ts";
import { eventually } from "../kit/wait.ts";
import { assertDelivered, metrics, say, sum, watch } from "../system/books.ts";
import { Told } from "./told.ts";

const CUTS = 100;
/** Together: those that are cut together wait for one backoff. */
const AT_ONCE = 20;
const BATCH_ROWS = 10;

let clickhouse: ClickHouse;
let proxy: TcpProxy;
let shishi: Shishi;
before(async () => {
  clickhouse = await startClickHouse();
  proxy = await startTcpProxy(clickhouse.port);
  shishi = await startShishi({
    args: [
      ...["--clickhouse-url", proxy.url, "--concurrency", String(AT_ONCE)],
      ...["--flush-interval", "20ms", "--max-block-size", String(BATCH_ROWS)],
    ],
  });
});
after(async () => {
  await shishi.close();
  await proxy.close();
  await clickhouse.close();
});

/** INSERTs that ended without an answer. */
async function unanswered(): Promise<number> {
  return sum(await metrics(shishi), "shishi_insert_errors_total", 'code="0"');
}

test(`${CUTS} answers are lost: every event is there exactly once`, async () => {
  const watching = watch(shishi);
  const told = new Told();
  await told.add(load({ url: shishi.url, clients: 1, events: 10, eventsPerRequest: 10 }));
  await eventually(() => assertDelivered(shishi), { withinMs: 10_000 });
  while (await unanswered() < CUTS) {
    const before = proxy.accepted();
    proxy.hang();
    await told.add(load({
      url: shishi.url,
      clients: 8,
      events: AT_ONCE * BATCH_ROWS,
      eventsPerRequest: 7,
    }));
    await eventually(() => assert.ok(proxy.accepted() >= before + AT_ONCE), {
      withinMs: 10_000,
      everyMs: 5,
    });
    proxy.cutAnswers(AT_ONCE);
    proxy.resume();
    await eventually(() => assertDelivered(shishi), { withinMs: 20_000, everyMs: 5 });
  }
  await watching.end();
  const rows = await told.assertOnce(clickhouse);
  assert.deepEqual([...told.statuses.keys()], [202]);
  assert.equal(rows, told.acknowledged.size);
  say("cut answers", { cut: await unanswered(), rows });
});

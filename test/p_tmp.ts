import { startClickHouse, startRedis } from "./kit/servers.ts";
import { runShishi, startShishi } from "./kit/shishi.ts";
const [r, c] = await Promise.all([startRedis(), startClickHouse()]);
await c.query(
  "CREATE TABLE clicks (n UInt32, _id String, _key String) ENGINE=MergeTree ORDER BY n",
);
for (let n = 1; n <= 5; n++) await r.call("XADD", "clicks", "*", "data", JSON.stringify({ n }));
await r.call("XADD", "clicks", "*", "n", "6");
await r.call("XADD", "clicks", "*", "data", "{oops");
const src = [
  `--source=redis://127.0.0.1:${r.port}?stream=clicks&table=clicks&meta=_id,_key`,
  `--source=redis://127.0.0.1:${r.port}?list=jobs`,
  `--clickhouse-url=${c.url}`,
  "--exit",
  `redis://127.0.0.1:${r.port}?channel=exitCh`,
];
const s = await startShishi({ args: src });
await r.call("LPUSH", "jobs", '{"eventType":"click"}');
await new Promise((r) => setTimeout(r, 2500));
console.log(
  await c.query("SELECT * FROM clicks ORDER BY n"),
  await c.query("SELECT event_type, properties FROM analytics_events"),
);
console.log(JSON.stringify((await s.status()).sources, null, 1));
console.log(await r.call("PUBLISH", "exitCh", "Exit"), "heard");
await new Promise((r) => setTimeout(r, 1000));
s.signal("SIGTERM");
console.log(await s.exited);
console.log(s.stderr());
const ch = await runShishi(["check", ...src]);
console.log(ch.stdout, ch.stderr);
await s.close();
await r.close();
await c.close();

/** `plain_redis.ts URL stream|list KEY COUNT`: reads so many messages, acknowledges them, and tells how long it took. */
import process from "node:process";
import { Redis } from "ioredis";
import { begin, tell } from "./plain.ts";

const [url = "", what, key = "", count] = process.argv.slice(-4);
const BATCH = 1000;

const costs = begin();
const redis = new Redis(url, { protocol: 2 });
if (what === "stream") await redis.xgroup("CREATE", key, "plain", "0");
let left = Number(count);
while (left > 0) left -= await (what === "stream" ? entries() : items());
redis.disconnect();
tell(costs);

async function entries(): Promise<number> {
  const read = await redis.callBuffer(
    "XREADGROUP",
    ...["GROUP", "plain", "c", "COUNT", BATCH, "STREAMS", key, ">"],
  ) as [Buffer, [Buffer, Buffer[]][]][];
  const ids = read[0]![1].map(([id]) => id);
  await redis.xack(key, "plain", ...ids);
  return ids.length;
}

async function items(): Promise<number> {
  const moving = redis.pipeline();
  for (let at = 0; at < BATCH; at++) moving.lmove(key, `${key}-own`, "RIGHT", "LEFT");
  const moved = (await moving.exec() ?? []).filter(([, item]) => item !== null).length;
  await redis.ltrim(`${key}-own`, 0, -(moved + 1));
  return moved;
}

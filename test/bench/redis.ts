/** Redis for the benchmark of sources: a stream, of which each reader has a group of its own, or two equal lists. */
import { Redis } from "ioredis";
import { startRedis } from "../kit/servers.ts";
import { move } from "./cores.ts";
import { TABLE } from "./scenarios.ts";
import type { StartBroker } from "./sources.ts";

const BATCH = 1000;

export const redisStream: StartBroker = (stage) => redis("stream", stage);
export const redisList: StartBroker = (stage) => redis("list", stage);

async function redis(what: "stream" | "list", stage: Parameters<StartBroker>[0]) {
  const server = await startRedis("appendfsync everysec");
  stage.keep(server.close);
  await move(server.pid, "load");
  const client = new Redis(server.url);
  stage.keep(() => {
    client.disconnect();
    return Promise.resolve();
  });
  let places = 0;
  return {
    async fill(bodies: readonly Uint8Array[]) {
      const key = `bench-${++places}`;
      for (let at = 0; at < bodies.length; at += BATCH) {
        const some = bodies.slice(at, at + BATCH).map((body) => Buffer.from(body));
        const pipeline = client.pipeline();
        if (what === "stream") { for (const body of some) pipeline.xadd(key, "*", "data", body); }
        else pipeline.lpush(key, ...some).lpush(`${key}-plain`, ...some);
        await pipeline.exec();
      }
      const plain = what === "stream" ? key : `${key}-plain`;
      return {
        source: `${server.url}?${what}=${key}&table=${TABLE}`,
        plain: ["./plain_redis.ts", server.url, what, plain, String(bodies.length)],
      };
    },
  };
}

/**
 * The suite of all sources, on a list and on a stream of a real Redis: each under one runtime, for what differs
 * between these is the connection, which is the same for both.
 */

import { ON_BUN } from "../kit/shishi.ts";
import { openRedis } from "../../src/sources/redis.ts";
import { type Redis, type Reply, startRedis } from "../servers/redis.ts";
import { redisDeps, redisSource } from "./redis_kit.ts";
import { type Place, testSource } from "./suite.ts";

const CLAIM_MS = 2_000;

for (const what of [ON_BUN ? "list" : "stream"] as const) {
  testSource(`a ${what} of Redis`, async () => {
    const redis = await startRedis();
    let places = 0;
    return {
      place: () => makePlace(redis, what, `${what}${++places}`),
      server: {
        kill: () => redis.kill(),
        start: () => redis.start(),
        freeze: () => redis.freeze(),
        thaw: () => redis.thaw(),
        cut: async () => void await redis.call("CLIENT", "KILL", "TYPE", "normal"),
      },
      traits: {
        once: what === "stream",
        shared: true,
        durable: true,
        againMs: what === "stream" ? 2 * CLAIM_MS : 0,
      },
      close: () => redis.close(),
    };
  });
}

async function makePlace(redis: Redis, what: "list" | "stream", key: string): Promise<Place> {
  if (what === "stream") {
    // It is there, and empty.
    await redis.call("XDEL", key, String(await redis.call("XADD", key, "*", "data", "")));
  }
  return {
    open: (member, prefetch = 1000) => {
      const more = what === "stream" ? `&claim=${CLAIM_MS}ms` : "";
      const address = redisSource(`${redis.url}?${what}=${key}&prefetch=${prefetch}${more}`);
      return { address, broker: openRedis(address, redisDeps(member)) };
    },
    publish: async (bodies) => {
      await Promise.all(
        bodies.map((body) =>
          what === "stream"
            ? redis.call("XADD", key, "*", "data", body)
            : redis.call("LPUSH", key, body)
        ),
      );
    },
    unacknowledged: () => what === "stream" ? inStream(redis, key) : inLists(redis, key),
  };
}

async function inStream(redis: Redis, key: string): Promise<number> {
  const [group] = await redis.call("XINFO", "GROUPS", key) as Reply[][];
  if (group === undefined) return Number(await redis.call("XLEN", key));
  const fields = new Map(group.map((name, at) => [name, group[at + 1]]));
  return Number(fields.get("pending")) + Number(fields.get("lag"));
}

async function inLists(redis: Redis, key: string): Promise<number> {
  const owned = await redis.call("SMEMBERS", `{${key}}:shishi`) as string[];
  const lengths = await Promise.all([key, ...owned].map((list) => redis.call("LLEN", list)));
  return lengths.map(Number).reduce((sum, length) => sum + length);
}

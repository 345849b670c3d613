/**
 * Redis as a source: a list, a stream or a channel; and as an exit channel. Each connection that the loop asks
 * for is made of new ones, and of what is known of a stream nothing outlives it but that it was missing.
 */

import type { Broker, BrokerDeps, ExitChannel, ExitOf, Feed, RedisSource } from "../contracts.ts";
import { inspectRedis } from "./inspect_redis.ts";
import { listenForExit, readChannel } from "./redis_channel.ts";
import { connectRedis } from "./redis_client.ts";
import type { RedisLines } from "./redis_feed.ts";
import { readList } from "./redis_list.ts";
import { readStream, type StreamMemory } from "./redis_stream.ts";

export function openRedis(address: RedisSource, deps: BrokerDeps): Broker {
  const memory: StreamMemory = { wasMissing: false };
  return {
    connect: (signal) => connect(address, deps, memory, signal),
    inspect: () => inspectRedis(address, deps),
  };
}

export function openRedisExit(address: ExitOf<"redis">, deps: BrokerDeps): ExitChannel {
  return {
    async connect(_sinceMs, signal) {
      const connection = await connectRedis(address, deps, signal, false);
      try {
        return await listenForExit(connection, address.channel, deps);
      } catch (error) {
        connection.close();
        throw error;
      }
    },
    async send(text, signal) {
      const connection = await connectRedis(address, deps, signal);
      try {
        await connection.call("PUBLISH", address.channel, text);
      } finally {
        connection.close();
      }
    },
  };
}

async function connect(
  address: RedisSource,
  deps: BrokerDeps,
  memory: StreamMemory,
  signal: AbortSignal,
): Promise<Feed> {
  // What only listens may do so anywhere.
  const reader = await connectRedis(address, deps, signal, address.read.what !== "channel");
  let lines: RedisLines | null = null;
  try {
    if (address.read.what === "channel") return await readChannel(reader, address, deps);
    // The same server, whichever of several has let us in.
    const at = { ...address, hosts: [reader.host] };
    lines = { reader, writer: await connectRedis(at, deps, signal) };
    return address.read.what === "list"
      ? await readList(lines, address, deps)
      : await readStream(lines, address, deps, memory);
  } catch (error) {
    reader.close();
    lines?.writer.close();
    throw error;
  }
}

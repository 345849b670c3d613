/** Sources and exits on a real Redis of a test: addresses as the settings read them, and what a broker is handed. */
import type { Broker, BrokerDeps, Feed, Log, Message, RedisSource } from "../../src/contracts.ts";
import { systemClock } from "../../src/kernel/time.ts";
import { exitUrls, sourceUrls } from "../../src/settings/source_urls.ts";

/** Files are those of `files`, by their path. */
export function redisDeps(
  member = "g.a",
  files: Readonly<Record<string, string>> = {},
  over: Partial<BrokerDeps> = {},
): BrokerDeps {
  return {
    clock: systemClock,
    log: SILENT,
    member,
    readFile: (path) =>
      files[path] === undefined
        ? Promise.reject(new Error(`ENOENT: no such file, open '${path}'`))
        : Promise.resolve(files[path]),
    authorities: () => [],
    openSocket: none,
    openSqlite: none,
    ...over,
  };
}

function none(): never {
  throw new Error("Redis needs nothing of the kind");
}

const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {} };

export function redisSource(url: string): RedisSource {
  const read = sourceUrls.parse(url);
  if (!read.ok) throw new Error(read.found ?? url);
  return read.value[0] as RedisSource;
}

export function redisExit(url: string) {
  const read = exitUrls.parse(url);
  if (!read.ok) throw new Error(read.found ?? url);
  const [address] = read.value;
  if (address?.broker !== "redis") throw new Error(url);
  return address;
}

/** Feeds that are closed in the end. */
export function connections() {
  const open: Feed[] = [];
  return {
    async connect(broker: Broker): Promise<Feed> {
      const feed = await broker.connect(new AbortController().signal);
      open.push(feed);
      return feed;
    },
    closeAll: () => Promise.all(open.map((feed) => feed.close())),
  };
}

export function texts(messages: readonly Message[]): string[] {
  return messages.map(({ body }) => new TextDecoder().decode(body));
}

/** The texts of the next so many messages; `held` gets them, without it they are acknowledged. */
export async function take(
  feed: Feed,
  count: number,
  held: Message[] | null = null,
): Promise<string[]> {
  const taken: Message[] = [];
  while (taken.length < count) {
    const messages = await feed.next();
    taken.push(...messages);
    if (held === null) await feed.acknowledge([messages.at(-1)!]);
    else held.push(...messages);
  }
  return texts(taken);
}

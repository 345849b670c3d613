/** Sources and exits on a real Redis of a test: addresses as the settings read them, and what a broker is handed. */
import type { BrokerDeps, Log, RedisSource } from "../../src/contracts.ts";
import { systemClock } from "../../src/runtime/clock.ts";
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

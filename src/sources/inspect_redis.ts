/**
 * What is wrong with a Redis that is to be read: does it let us in, is what is read of the right kind, and may it
 * lose what it has? Asks only; what a user may not ask is left out.
 */

import type { BrokerDeps, RedisSource } from "../contracts.ts";
import { about, type Finding } from "../kernel/finding.ts";
import {
  connectRedis,
  type RedisConnection,
  RedisRefusal,
  type Reply,
  textOfReply,
  type Words,
} from "./redis_client.ts";
import { messageOf } from "../kernel/errors.ts";
import { listNames } from "./redis_list.ts";
import { fieldsOf } from "./redis_stream.ts";

type Say = ReturnType<typeof about>;

/** A server that says neither yes nor no. */
const CONNECT_MS = 10_000;

/** Never rejects. */
export async function inspectRedis(
  address: RedisSource,
  deps: BrokerDeps,
): Promise<readonly Finding[]> {
  const is = about(`source ${address.label}`);
  let connection: RedisConnection;
  try {
    connection = await connectRedis(address, deps, AbortSignal.timeout(CONNECT_MS));
  } catch (error) {
    return [is.wrong(messageOf(error), todoOf(messageOf(error)))];
  }
  try {
    const info = await infoOf(connection);
    return [
      ...await whatIsRead(connection, address, deps, info, is),
      ...ofTheServer(address, info, is),
      ...await whatMayBeLost(connection, address, info, is),
    ];
  } catch (error) {
    return [is.wrong(messageOf(error), todoOf(messageOf(error)))];
  } finally {
    connection.close();
  }
}

function todoOf(sentence: string): string {
  if (/ENOENT/.test(sentence)) return "correct the path of the file";
  if (/certificate/.test(sentence)) return "correct ca=, cert= and key=";
  if (/refuses|password|users/.test(sentence)) return "correct user and password, or password-file";
  if (/not permitted/.test(sentence)) {
    return "permit it (ACL SETUSER); docs/sources.md has the list";
  }
  if (/no database/.test(sentence)) return "correct the number, the path of the URL";
  if (/ instead/.test(sentence) && !/timed out/.test(sentence)) return "correct the URL";
  return "start it, or correct the address";
}

type Info = ReadonlyMap<string, string>;

/** What the server says of itself; empty where a user may not ask. */
async function infoOf(connection: RedisConnection): Promise<Info> {
  const lines = textOfReply(await asked(connection, "INFO")).split("\r\n");
  return new Map(lines.flatMap((line): [string, string][] => {
    const at = line.indexOf(":");
    return at < 0 || line.startsWith("#") ? [] : [[line.slice(0, at), line.slice(at + 1)]];
  }));
}

/** Null where the server does not answer that. */
async function asked(connection: RedisConnection, ...words: Words): Promise<Reply> {
  try {
    return await connection.call(...words);
  } catch (error) {
    if (error instanceof RedisRefusal && !/^(MOVED|ASK|LOADING)$/.test(error.code)) return null;
    throw error;
  }
}

async function whatIsRead(
  connection: RedisConnection,
  { read }: RedisSource,
  deps: BrokerDeps,
  info: Info,
  is: Say,
): Promise<Finding[]> {
  const version = info.get("redis_version") ?? "of an unknown version";
  if (read.what === "channel") {
    return [is.ok(`${version}, connected; the channel ${read.channel} is at most once`)];
  }
  const { key, what } = read;
  const kind = textOfReply(await asked(connection, "TYPE", key));
  if (kind !== "" && kind !== "none" && kind !== what) {
    return [is.wrong(`${version}, ${key} is a ${kind}, and no ${what}`, `correct ${what}=`)];
  }
  const empty = kind === "none";
  if (read.what === "list") return [await ofList(connection, read, deps, version, is)];
  if (empty) {
    return [is.warning(
      `${version}, there is no stream ${key} yet: it is read when it comes`,
      "correct stream=, if it should be there",
    )];
  }
  return await ofStream(connection, read, version, is);
}

async function ofList(
  connection: RedisConnection,
  read: Extract<RedisSource["read"], { what: "list" }>,
  { member }: BrokerDeps,
  version: string,
  is: Say,
): Promise<Finding> {
  const length = Number(await asked(connection, "LLEN", read.key));
  const { own } = listNames(read.key, member, read.processing);
  const held = Number(await asked(connection, "LLEN", own));
  const taken = held === 0 ? "" : `, ${held} in ${own}`;
  const older = olderThan(version, 6, 2);
  if (older && read.pop === "left") {
    return is.wrong(`${version}, pop=left needs Redis 6.2`, "leave pop= out, and push with LPUSH");
  }
  return is.ok(`${version}, ${length} messages wait in the list ${read.key}${taken}`);
}

async function ofStream(
  connection: RedisConnection,
  { key, group }: Extract<RedisSource["read"], { what: "stream" }>,
  version: string,
  is: Say,
): Promise<Finding[]> {
  const groups = await asked(connection, "XINFO", "GROUPS", key) as Reply[][] | null;
  const own = groups?.map(fieldsOf).find((fields) => textOfReply(fields.get("name")) === group);
  if (own === undefined) {
    return [is.ok(`${version}, the group ${group} of the stream ${key} is made at the start`)];
  }
  const lag = own.get("lag");
  const waiting = typeof lag === "number" ? `${lag} entries wait, ` : "";
  const pending = textOfReply(own.get("pending"));
  return [
    is.ok(`${version}, stream ${key}, group ${group}: ${waiting}${pending} not acknowledged`),
  ];
}

/** What does not hang on what is read. */
function ofTheServer(address: RedisSource, info: Info, is: Say): Finding[] {
  const findings: Finding[] = [];
  const remote = address.hosts.some(({ host }) => !/^(localhost|127\..*|::1)$/.test(host));
  if (!address.tls && address.password !== null && remote) {
    findings.push(is.warning("the password goes over the network unencrypted", "use rediss://"));
  }
  if (info.get("role") === "slave" && address.read.what !== "channel") {
    findings.push(is.wrong("the server is a replica, which takes nothing", "name the primary"));
  }
  if (info.get("cluster_enabled") === "1" && address.read.what !== "channel") {
    findings.push(is.warning(
      "the server is one of a cluster: it is read as long as it keeps this key",
      "use a Redis of its own for the queue",
    ));
  }
  return findings;
}

/** Of a channel nothing is kept anyway. */
async function whatMayBeLost(
  connection: RedisConnection,
  { read }: RedisSource,
  info: Info,
  is: Say,
): Promise<Finding[]> {
  if (read.what === "channel") return [];
  const findings: Finding[] = [];
  const policy = info.get("maxmemory_policy") ?? "noeviction";
  const limited = Number(info.get("maxmemory") ?? 0) > 0;
  if (limited && policy !== "noeviction" && !policy.startsWith("volatile")) {
    findings.push(is.warning(
      `maxmemory-policy is ${policy}: a full server throws the ${read.what} away`,
      "set it to noeviction",
    ));
  }
  const [, snapshots] = (await asked(connection, "CONFIG", "GET", "save") ?? []) as Reply[];
  const none = snapshots !== undefined && textOfReply(snapshots) === "";
  if (info.get("aof_enabled") === "0" && none) {
    findings.push(is.warning(
      `persistence is off: a restart of the server loses the ${read.what}`,
      "set appendonly yes",
    ));
  }
  return findings;
}

function olderThan(version: string, major: number, minor: number): boolean {
  const [, ownMajor, ownMinor] = /^(\d+)\.(\d+)/.exec(version) ?? [];
  if (ownMajor === undefined) return false;
  return Number(ownMajor) < major || (Number(ownMajor) === major && Number(ownMinor) < minor);
}

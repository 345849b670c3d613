/**
 * A stream of Redis, read by a consumer group. What the group has given to this consumer and what was never
 * acknowledged comes first; then what another consumer has left for longer than `claim`, at the start and
 * every half minute; then what is new.
 *
 * Members of a group share a stream, so an old entry of a member that died may come after newer ones: an entry
 * has no position, but an id.
 */

import { Buffer } from "node:buffer";
import type { BrokerDeps, Message, MetaValue, RedisSource } from "../contracts.ts";
import { RedisRefusal, type Reply, textOfReply } from "./redis_client.ts";
import { type Given, memberOf, RedisFeed, type RedisLines } from "./redis_feed.ts";

type StreamOf = Extract<RedisSource["read"], { readonly what: "stream" }>;

/** Looked for entries of others at least so often. */
const CLAIM_EVERY_MS = 30_000;
/** Entries that one XAUTOCLAIM takes over. */
const CLAIM_AT_ONCE = 100;
/** Ids of one command. */
const IDS_AT_ONCE = 1_000;
/** An id before all others, and where XAUTOCLAIM has come to the end. */
const ZERO = "0-0";

/** An entry: its id, and names and values of its fields in turn; null: it was deleted meanwhile. */
type Entry = readonly [id: Uint8Array, fields: readonly Uint8Array[] | null];

/** What a source knows of its stream from one connection to the next. */
export interface StreamMemory {
  /** The stream was not there: what comes into it is new, from its first entry on. */
  wasMissing: boolean;
}

/** Rejects as `Broker.connect` does; the connections are not closed then. */
export async function readStream(
  lines: RedisLines,
  address: RedisSource,
  deps: BrokerDeps,
  memory: StreamMemory,
): Promise<RedisFeed<string>> {
  if (address.read.what !== "stream") throw new Error("no stream");
  await bind(lines, address.read, memberOf(deps), memory);
  return new StreamFeed(lines, address, deps, address.read);
}

/** The group is made when it is missing; the stream never is: what is not there may be a slip of the pen. */
async function bind(
  { writer }: RedisLines,
  { key, group, from }: StreamOf,
  consumer: string,
  memory: StreamMemory,
): Promise<void> {
  const look = ["XREADGROUP", "GROUP", group, consumer, "COUNT", 1, "STREAMS", key, "0"];
  try {
    await writer.call(...look);
    return;
  } catch (error) {
    if (!(error instanceof RedisRefusal && error.code === "NOGROUP")) throw error;
  }
  try {
    const first = from === "first" || memory.wasMissing;
    await writer.call("XGROUP", "CREATE", key, group, first ? "0" : "$");
  } catch (error) {
    if (!(error instanceof RedisRefusal)) throw error;
    if (/requires the key to exist/.test(error.said)) {
      memory.wasMissing = true;
      throw new Error(`${writer.server}: there is no stream ${key} yet`);
    }
    if (error.code !== "BUSYGROUP") throw error;
  }
}

class StreamFeed extends RedisFeed<string> {
  readonly #stream: StreamOf;
  readonly #member: string;
  /** Of what is given: not to be given twice, should it be claimed from ourselves. */
  readonly #held = new Map<string, { sinceMs: number }>();
  /** Up to here what this consumer was given before has been read; null: all of it. */
  #own: string | null = ZERO;
  /** Where XAUTOCLAIM goes on; null: nothing is claimed now. */
  #claim: string | null = ZERO;
  /** Redis < 6.2 has no XAUTOCLAIM. */
  #old = false;
  #shownMs: number;

  constructor(lines: RedisLines, address: RedisSource, deps: BrokerDeps, stream: StreamOf) {
    super(lines, address, deps);
    this.#stream = stream;
    this.#member = memberOf(deps);
    this.#shownMs = deps.clock.monotonicMs();
    this.every(Math.min(CLAIM_EVERY_MS, stream.claimMs), () => {
      this.#claim ??= ZERO;
      return Promise.resolve();
    });
    this.every(stream.claimMs / 3, () => this.#keep());
  }

  protected override async read(most: number): Promise<readonly Given<string>[]> {
    if (this.#own !== null) {
      const entries = await this.#group(most, this.#own);
      const last = entries.at(-1);
      this.#own = last === undefined ? null : textOfReply(last[0]);
      return await this.#messages(entries, true);
    }
    if (this.#claim !== null) {
      const entries = await this.#claimed(Math.min(most, CLAIM_AT_ONCE), this.#claim);
      if (entries.length > 0) return await this.#messages(entries, true);
      if (this.#claim !== null) return [];
    }
    return await this.#messages(await this.#group(most, ">"), false);
  }

  protected override async forget(given: readonly Given<string>[]): Promise<void> {
    const ids = given.map(({ key }) => key);
    await this.#acknowledgeIds(ids);
    for (const id of ids) this.#held.delete(id);
  }

  protected override async countWaiting(): Promise<number | null> {
    const { key, group } = this.#stream;
    const groups = await this.writer.call("XINFO", "GROUPS", key) as Reply[][];
    const own = groups.map(fieldsOf).find((fields) => textOfReply(fields.get("name")) === group);
    const lag = own?.get("lag");
    return typeof lag === "number" ? lag : null;
  }

  /** @param after an id: of what this consumer was given before; `>`: what is new, for which it waits. */
  async #group(count: number, after: string): Promise<readonly Entry[]> {
    const { key, group } = this.#stream;
    const block = after === ">" ? ["BLOCK", 1000] : [];
    const read = await this.reader.call(
      ...["XREADGROUP", "GROUP", group, this.#member, "COUNT", count, ...block],
      ...["STREAMS", key, after],
    ) as [stream: unknown, entries: Entry[]][] | null;
    return read?.[0]?.[1] ?? [];
  }

  /** Takes over what others have left for too long. */
  async #claimed(count: number, after: string): Promise<readonly Entry[]> {
    const { key, group, claimMs } = this.#stream;
    if (this.#old) return await this.#claimedByHand(count, after);
    try {
      const [next, entries] = await this.reader.call(
        ...["XAUTOCLAIM", key, group, this.#member, claimMs, after, "COUNT", count],
      ) as [Uint8Array, (Entry | null)[]];
      const cursor = textOfReply(next);
      this.#claim = cursor === ZERO ? null : cursor;
      return this.#present(entries);
    } catch (error) {
      if (!(error instanceof RedisRefusal && error.isUnknownCommand)) throw error;
      this.#old = true;
      return await this.#claimedByHand(count, after);
    }
  }

  /** As XAUTOCLAIM does. */
  async #claimedByHand(count: number, after: string): Promise<readonly Entry[]> {
    const { key, group, claimMs } = this.#stream;
    const pending = await this.reader.call("XPENDING", key, group, after, "+", count) as [
      id: Uint8Array,
      consumer: Uint8Array,
      idleMs: number,
      deliveries: number,
    ][];
    const last = pending.at(-1);
    this.#claim = pending.length < count ? null : following(textOfReply(last![0]));
    const ids = pending.filter(([, , idleMs]) => idleMs >= claimMs).map(([id]) => id);
    if (ids.length === 0) return [];
    const entries = await this.reader.call("XCLAIM", key, group, this.#member, claimMs, ...ids);
    return this.#present(entries as (Entry | null)[]);
  }

  /** Of deleted entries Redis < 7 has no id here, and keeps them pending: among our own they have one. */
  #present(entries: readonly (Entry | null)[]): readonly Entry[] {
    if (entries.includes(null)) this.#own = ZERO;
    return entries.filter((entry) => entry !== null);
  }

  async #acknowledgeIds(ids: readonly string[]): Promise<void> {
    const { key, group, trim } = this.#stream;
    for (let at = 0; at < ids.length; at += IDS_AT_ONCE) {
      const some = ids.slice(at, at + IDS_AT_ONCE);
      await this.writer.many([
        ["XACK", key, group, ...some],
        ...(trim ? [["XDEL", key, ...some]] : []),
      ]);
    }
  }

  /** What is held for long stays this consumer's: no other claims it. */
  async #keep(): Promise<void> {
    const { key, group, claimMs } = this.#stream;
    const nowMs = this.deps.clock.monotonicMs();
    const awayMs = nowMs - this.#shownMs;
    this.#shownMs = nowMs;
    if (this.#held.size > 0 && awayMs > claimMs) {
      throw new Error(`${this.reader.server}: this process stood still for longer than claim=`);
    }
    const old = [...this.#held].filter(([, { sinceMs }]) => nowMs - sinceMs > claimMs / 4)
      .map(([id]) => id);
    for (let at = 0; at < old.length; at += IDS_AT_ONCE) {
      const some = old.slice(at, at + IDS_AT_ONCE);
      await this.writer.call("XCLAIM", key, group, this.#member, 0, ...some, "JUSTID");
    }
  }

  async #messages(entries: readonly Entry[], again: boolean): Promise<Given<string>[]> {
    const { key, field } = this.#stream;
    const held = { sinceMs: this.deps.clock.monotonicMs() };
    const named = Buffer.from(field);
    const given: Given<string>[] = [];
    const deleted: string[] = [];
    for (const [raw, fields] of entries) {
      const id = latin1(raw);
      if (this.#held.has(id)) continue;
      if (fields === null) {
        deleted.push(id);
        continue;
      }
      this.#held.set(id, held);
      given.push({ message: new EntryMessage(key, id, bodyOf(fields, named), again), key: id });
    }
    if (deleted.length > 0) await this.#acknowledgeIds(deleted);
    return given;
  }
}

class EntryMessage implements Message {
  readonly counted = true;

  /** @param partition the stream's key. */
  constructor(
    readonly partition: string,
    readonly id: string,
    readonly body: Uint8Array,
    readonly again: boolean,
  ) {}

  get address(): string {
    return `redis:${this.partition}@${this.id}`;
  }

  meta(name: string): MetaValue {
    return name === "_key" ? this.partition : name === "_id" ? this.id : null;
  }
}

function latin1(bytes: Uint8Array): string {
  // As the library gives them; a buffer of a buffer would cost more than the text.
  const buffer = Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return buffer.toString("latin1");
}

/** The value of a field; of an entry without it, a row of all of its fields. @param field as bytes. */
export function bodyOf(fields: readonly Uint8Array[], field: Buffer): Uint8Array {
  for (let at = 0; at < fields.length; at += 2) {
    if (field.equals(fields[at]!)) return fields[at + 1]!;
  }
  const parts: string[] = [];
  for (let at = 0; at < fields.length; at += 2) {
    parts.push(`${quoted(fields[at]!)}:${quoted(fields[at + 1]!)}`);
  }
  return Buffer.from(`{${parts.join(",")}}`, "latin1");
}

/** As JSON, each byte a character: what is no UTF-8 stays what it was. */
function quoted(bytes: Uint8Array): string {
  return JSON.stringify(Buffer.from(bytes).toString("latin1"));
}

/** The next id that there may be. */
function following(id: string): string {
  const [ms = "0", count = "0"] = id.split("-");
  return `${ms}-${BigInt(count) + 1n}`;
}

/** Names and values in turn, as Redis answers what XINFO asks. */
export function fieldsOf(flat: readonly Reply[]): ReadonlyMap<string, Reply> {
  const fields = new Map<string, Reply>();
  for (let at = 0; at < flat.length; at += 2) fields.set(textOfReply(flat[at]), flat[at + 1]!);
  return fields;
}

/**
 * A list of Redis as a queue. A message is moved, in one step of Redis', to a list of this collector's own
 * (`{flights}:shishi:GROUP.ID.FOLDER`), where it stays until its rows are safe; so a message is always in one
 * list or the other, whatever dies.
 *
 * At a start the own list comes first: what is in it was taken and never acknowledged. Then the lists of
 * collectors that are gone: each shows with a key of its own (`….alive`) that it lives, and all of them stand
 * in a set (`{flights}:shishi`).
 *
 * A message is removed from the own list by what is in it, not by counting from the end of the list: a command
 * of an earlier connection that arrives late may add to the list, and a count would then remove what was
 * never taken.
 *
 * Both are one command of Redis' for each message. Where the user may run scripts, Redis is asked to do many of
 * them in one go: to write, answer and read each alone costs more than all else that becomes of a message.
 */

import type { BrokerDeps, RedisSource } from "../contracts.ts";
import {
  type RedisConnection,
  RedisRefusal,
  type Reply,
  textOfReply,
  type Words,
} from "./redis_client.ts";
import { type Given, memberOf, RedisFeed, type RedisLines } from "./redis_feed.ts";

/** A collector that has not shown that it lives for so long is gone. */
const ALIVE_MS = 30_000;
const SHOW_MS = 10_000;
const SWEEP_MS = 30_000;
/** Of one read without scripts: so many commands, of which those behind the last message are for nothing. */
const BURST = { least: 8, most: 512 };
/** Of the messages that one script removes, unless one alone has more. */
const REMOVED_BYTES = 1024 * 1024;

/** Of the messages that one script moves: the last of them goes beyond it. */
const MOVED_BYTES = 4 * 1024 * 1024;
/** Keys: from and to. Arguments: how many and how many bytes, from which end; none: Redis is older than LMOVE. */
const MOVE = `local moved, bytes = {}, 0
for at = 1, tonumber(ARGV[1]) do
  local message
  if ARGV[3] then message = redis.call('LMOVE', KEYS[1], KEYS[2], ARGV[3], 'LEFT')
  else message = redis.call('RPOPLPUSH', KEYS[1], KEYS[2]) end
  if not message then break end
  moved[at] = message
  bytes = bytes + #message
  if bytes >= tonumber(ARGV[2]) then break end
end
return moved`;
/** From the end where the oldest are. */
const REMOVE = `for at = 1, #ARGV do redis.call('LREM', KEYS[1], -1, ARGV[at]) end`;

/** The names of what belongs to a list. */
export interface ListNames {
  /** The set of all processing lists. */
  readonly all: string;
  readonly own: string;
}

/** A part in braces keeps keys in one place of a cluster; a key that has one keeps its own. */
export function listNames(key: string, member: string, processing: string | null): ListNames {
  const tagged = /\{[^}]+\}/.test(key) ? key : `{${key}}`;
  return { all: `${tagged}:shishi`, own: processing ?? `${tagged}:shishi:${member}` };
}

/** Rejects as `Broker.connect` does; the connections are not closed then. */
export async function readList(
  lines: RedisLines,
  address: RedisSource,
  deps: BrokerDeps,
): Promise<RedisFeed<Uint8Array>> {
  if (address.read.what !== "list") throw new Error("no list");
  const { key, processing, pop } = address.read;
  const names = listNames(key, memberOf(deps), processing);
  await show(lines.writer, names);
  // Finds what is no list before anything is promised.
  await lines.writer.call("LLEN", key);
  return new ListFeed(lines, address, deps, key, pop, names);
}

/** Says for a while that the own list has a reader. */
async function show(writer: RedisConnection, { all, own }: ListNames): Promise<void> {
  await writer.many([["SET", aliveKey(own), "1", "PX", ALIVE_MS], ["SADD", all, own]]);
}

function aliveKey(list: string): string {
  return `${list}.alive`;
}

class ListFeed extends RedisFeed<Uint8Array> {
  readonly #key: string;
  readonly #pop: "right" | "left";
  readonly #names: ListNames;
  readonly #address: string;
  /** The own list may have what this feed has not given. */
  #ownIsOpen = true;
  #sweepIsDue = true;
  /** Lists of collectors that are gone, not empty yet. */
  #inherited: string[] = [];
  /** Empty ones: forgotten when they still are next time, for the last command of their owner may be on its way. */
  #leftovers = new Set<string>();
  /** There may be more of what was read last. */
  #more = false;
  #burst = BURST.least;
  /** Redis < 6.2 can only pop from the right, by another name. */
  #old = false;
  /** Whether Redis runs scripts for this user, as far as is known. */
  #scripts = true;

  constructor(
    lines: RedisLines,
    address: RedisSource,
    deps: BrokerDeps,
    key: string,
    pop: "right" | "left",
    names: ListNames,
  ) {
    super(lines, address, deps);
    this.#key = key;
    this.#pop = pop;
    this.#names = names;
    this.#address = `redis:${key}`;
    this.every(SHOW_MS, () => show(this.writer, names));
    this.every(SWEEP_MS, () => {
      this.#sweepIsDue = true;
      return Promise.resolve();
    });
  }

  protected override async read(most: number): Promise<readonly Given<Uint8Array>[] | null> {
    if (this.#ownIsOpen) {
      // Acknowledged messages leave the same list.
      if (this.given.length > 0) return null;
      const left = await this.#leftInOwn(most);
      if (left.length > 0) return this.#messages(left);
      this.#ownIsOpen = false;
    }
    if (this.#sweepIsDue) await this.#sweep();
    if (this.#inherited.length > 0) return this.#messages(await this.#inherit(most));
    if (this.#more) {
      const burst = this.#scripts ? most : Math.min(most, this.#burst);
      const { taken, more } = await this.#move(this.#key, this.#pop, burst);
      this.#more = more;
      this.#burst = Math.min(BURST.most, Math.max(BURST.least, 2 * taken.length));
      if (taken.length > 0) return this.#messages(taken);
    }
    const first = await this.#waitForOne();
    this.#more = first !== null;
    return first === null ? [] : this.#messages([first]);
  }

  protected override async forget(given: readonly Given<Uint8Array>[]): Promise<void> {
    const { own } = this.#names;
    for (const some of byBytes(given.map(({ key }) => key), REMOVED_BYTES)) {
      await this.#scripted(
        () => this.writer.call("EVAL", REMOVE, 1, own, ...some),
        () => this.writer.many(some.map((key) => ["LREM", own, -1, key])),
      );
    }
  }

  protected override async countWaiting(): Promise<number> {
    return Number(await this.writer.call("LLEN", this.#key));
  }

  protected override leave(): Promise<unknown> {
    return this.writer.call("DEL", aliveKey(this.#names.own));
  }

  /** The oldest of what is in the own list, oldest first. */
  async #leftInOwn(most: number): Promise<Uint8Array[]> {
    const found = await this.writer.call("LRANGE", this.#names.own, -most, -1);
    return (found as Uint8Array[]).reverse();
  }

  /** Looks for lists that no collector reads any more. */
  async #sweep(): Promise<void> {
    this.#sweepIsDue = false;
    const { all, own } = this.#names;
    const known = this.given.length;
    const [length, members] = await this.writer.many([["LLEN", own], ["SMEMBERS", all]]);
    // A late command of an earlier connection has put something there.
    this.#ownIsOpen = Number(length) > known;
    const others = (members as Reply[]).map(textOfReply).filter((name) => name !== own);
    const asked = await this.writer.many(
      others.flatMap((name): Words[] => [["EXISTS", aliveKey(name)], ["LLEN", name]]),
    );
    const gone = others.filter((_, at) => asked[2 * at] === 0);
    const lengths = new Map(others.map((name, at) => [name, Number(asked[2 * at + 1])]));
    this.#inherited = gone.filter((name) => lengths.get(name)! > 0);
    const empty = gone.filter((name) => lengths.get(name) === 0);
    const forgotten = empty.filter((name) => this.#leftovers.has(name));
    if (forgotten.length > 0) await this.writer.call("SREM", all, ...forgotten);
    this.#leftovers = new Set(empty);
  }

  async #inherit(most: number): Promise<Uint8Array[]> {
    const [list] = this.#inherited;
    const count = Math.min(most, BURST.most);
    const { taken, more } = await this.#move(list!, "right", count);
    if (!more) this.#inherited.shift();
    if (taken.length > 0) {
      this.deps.log.info("a source takes over what another collector has left", {
        source: this.#address,
        list: list!,
        messages: taken.length,
      });
    }
    return taken;
  }

  /** Moves up to so many messages of a list to the own one. @returns with whether there may be more. */
  async #move(list: string, from: "right" | "left", count: number) {
    const { own } = this.#names;
    const end = from.toUpperCase();
    const moved = await this.#inAnyVersion((old) =>
      this.#scripted(
        () =>
          this.reader.call("EVAL", MOVE, 2, list, own, count, MOVED_BYTES, ...(old ? [] : [end])),
        () =>
          this.reader.many(Array.from(
            { length: count },
            (): Words => old ? ["RPOPLPUSH", list, own] : ["LMOVE", list, own, end, "LEFT"],
          )),
      )
    ) as readonly Reply[];
    const taken = moved.filter((body) => body !== null) as Uint8Array[];
    const bytes = taken.reduce((sum, { length }) => sum + length, 0);
    return { taken, more: taken.length === count || bytes >= MOVED_BYTES };
  }

  /**
   * @param script one that is refused has done nothing: its first command is as all others are.
   * @param plainly the same without a script, for a user or a server that has none.
   */
  async #scripted(
    script: () => Promise<Reply>,
    plainly: () => Promise<readonly Reply[]>,
  ): Promise<Reply> {
    if (!this.#scripts) return await plainly();
    try {
      return await script();
    } catch (error) {
      if (!(error instanceof RedisRefusal)) throw error;
    }
    const done = await plainly();
    this.#scripts = false;
    return done;
  }

  async #waitForOne(): Promise<Uint8Array | null> {
    const { own } = this.#names;
    return await this.#inAnyVersion((old) =>
      old
        ? this.reader.call("BRPOPLPUSH", this.#key, own, 1)
        : this.reader.call("BLMOVE", this.#key, own, this.#pop.toUpperCase(), "LEFT", 1)
    ) as Uint8Array | null;
  }

  /** @param work is called a second time for a Redis that does not know what it asked. */
  async #inAnyVersion<T>(work: (old: boolean) => Promise<T>): Promise<T> {
    try {
      return await work(this.#old);
    } catch (error) {
      const older = error instanceof RedisRefusal && error.isUnknownCommand && !this.#old;
      if (!older) throw error;
      if (this.#pop === "left") throw new Error(`${this.reader.server}: pop=left needs Redis 6.2`);
      this.#old = true;
      return await work(true);
    }
  }

  #messages(bodies: readonly Uint8Array[]): Given<Uint8Array>[] {
    const meta = (name: string) => name === "_key" ? this.#key : null;
    return bodies.map((body) => ({
      message: { body, partition: this.#key, address: this.#address, meta },
      key: body,
    }));
  }
}

/** Neighbours of so many bytes at most, or one. */
function* byBytes(bodies: readonly Uint8Array[], most: number): Generator<readonly Uint8Array[]> {
  let [from, bytes] = [0, 0];
  for (const [at, { length }] of bodies.entries()) {
    if (at > from && bytes + length > most) {
      yield bodies.slice(from, at);
      [from, bytes] = [at, 0];
    }
    bytes += length;
  }
  if (from < bodies.length) yield bodies.slice(from);
}

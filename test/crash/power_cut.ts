/**
 * The power of the whole machine fails. A collector under load, killed now and then, on a disk that
 * forgets (`power_disk.ts`), beside a ClickHouse that comes and goes; then many cuts of what it has lived
 * through, each looked at as the machine would be when it is up again: the file system is mounted, the collector started on what
 * it finds, and everything delivered. ClickHouse, another machine, has what it had at that moment. Then
 *
 * - each row that was acknowledged before the cut is there, once, and no row twice;
 * - each key that was answered before the cut is answered as a duplicate, with its count;
 * - a keyed request that had no answer, sent again, is there once and whole, whatever the cut left of it;
 * - each message is there, once, whatever its broker had as acknowledged, and gives again.
 *
 * ClickHouse and the brokers are fake ones: only these can be brought back to an earlier moment.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { SourceStatus } from "../../src/contracts.ts";
import {
  type FakeClickHouse,
  startFakeClickHouse,
  type StoredBlock,
} from "../kit/fake_clickhouse.ts";
import { freePort } from "../kit/free_port.ts";
import { startShishi } from "../kit/shishi.ts";
import { eventually, pause } from "../kit/wait.ts";
import { drained } from "./drained.ts";
import { type Leftover, MountedImage, PowerDisk, type PowerLog } from "./power_disk.ts";
import {
  allRead,
  checkMessages,
  MessageLoad,
  MESSAGES_TABLE,
  sourceArgs,
} from "./power_messages.ts";
import { type Answered, KeyedCrowd, post, TABLES, type Write } from "./soak_keyed.ts";

/** `kill -9` before the power fails: what was written, and not synced, is found by the next process. */
const KILLS = 2;
/** Keys that are asked about after each cut: the last ones before it, and some of all others. */
const LAST_KEYS = 8;
const OTHER_KEYS = 6;

export interface LifeOptions {
  readonly system: string;
  /** Of the collector; sources are read by the one that is made for these tests, which has a path. */
  readonly binary: boolean | string;
  readonly clients: number;
  readonly loadMs: number;
  readonly random: () => number;
}

/** One life: all that is known of it at each position of its disk's log. */
export interface Life {
  readonly log: PowerLog;
  readonly system: string;
  readonly binary: boolean | string;
  /** When the collector was started, and when it was killed. */
  readonly from: number;
  readonly to: number;
  readonly writes: readonly Write[];
  readonly blocks: readonly (StoredBlock & { readonly at: number })[];
  readonly messages: MessageLoad;
  remove(): void;
}

/** A collector under load until it is killed for good. Throws where it breaks a promise before any cut. */
export async function live(options: LifeOptions): Promise<Life> {
  const { system, binary, clients, loadMs, random } = options;
  const disk = await PowerDisk.mount(system);
  const blocks: Life["blocks"][number][] = [];
  const position = () => disk.position();
  const fake = await startFake((block) => blocks.push({ ...block, at: position() }));
  const messages = await MessageLoad.start(position, typeof binary === "string");
  const from = position();
  let log: PowerLog | null = null;
  try {
    const listen = `127.0.0.1:${await freePort()}`;
    const args = [...argsOf(fake.url, listen, disk.path), ...sourceArgs(messages.brokers)];
    let shishi = await startShishi({ args, binary });
    const crowd = new KeyedCrowd({ url: shishi.url, clients, random, position, pauseMs: 15 });
    for (let kills = 0; kills <= KILLS; kills++) {
      const untilMs = performance.now() + loadMs / (KILLS + 1);
      while (performance.now() < untilMs) await comesAndGoes(fake, random);
      if (kills === KILLS) crowd.abandon();
      await shishi.kill();
      await shishi.close();
      if (kills < KILLS) shishi = await startShishi({ args, binary });
    }
    await crowd.stop().catch(() => {});
    const broken = crowd.broken as Error;
    assert.equal(broken.message, "given up", shishi.stderr());
    const to = position();
    log = await disk.cut();
    const { writes } = crowd;
    const remove = () => disk.remove();
    return { log, system, binary, from, to, writes, blocks, messages, remove };
  } finally {
    await messages.stop();
    await fake.close();
    if (log === null) {
      await disk.cut();
      disk.remove();
    }
  }
}

/** Now and then an INSERT gets no answer, stored or not; now and then it is away. */
async function comesAndGoes(fake: FakeClickHouse, random: () => number): Promise<void> {
  await pause(200 + random() * 600);
  if (random() < 0.5) fake.misbehave({ kind: "reset", stored: random() < 0.5 });
  if (random() < 0.7) return;
  fake.pingable = false;
  fake.misbehave({ kind: "reset" }, { kind: "reset" });
  await pause(random() * 700);
  fake.pingable = true;
}

async function startFake(onStored?: (block: StoredBlock) => void): Promise<FakeClickHouse> {
  const fake = await startFakeClickHouse(onStored);
  const event = ["id", "timestamp", "eventType", "userId", "properties"];
  fake.createTable(TABLES[0], Object.fromEntries(event.map((name) => [name, "String"])));
  for (const table of [...TABLES.slice(1), MESSAGES_TABLE]) {
    fake.createTable(table, { id: "String", n: "UInt32", text: "String" });
  }
  return fake;
}

function argsOf(url: string, listen: string, folder: string): string[] {
  return [
    ...["--clickhouse-url", url, "--listen", listen, "--data-dir", join(folder, "data")],
    ...["--tables", TABLES.slice(1).join(), "--flush-interval", "50ms", "--type-check", "off"],
    ...[
      "--create-table",
      "false",
      "--max-block-size",
      "500",
      "--backlog-bytes",
      "1MiB",
      "--insert-timeout",
      "3s",
    ],
  ];
}

/** What one cut was, and what was looked at. */
export interface Cut {
  readonly position: number;
  readonly leftover: Leftover;
  readonly acknowledged: number;
  readonly recovered: number;
  /** Pieces that went to quarantine. */
  readonly torn: number;
  readonly duplicates: number;
  readonly resent: number;
  /** Messages that came again, and were known. */
  readonly repeated: number;
}

/**
 * The power fails when so many records were done; positions are to come in order. Throws what is broken.
 */
export async function cutAt(life: Life, position: number, random: () => number): Promise<Cut> {
  const { image, leftover } = life.log.imageAt(position, random);
  const mounted = new MountedImage(image, join(life.log.dir, "again"), life.system);
  const fake = await startFake();
  for (const block of life.blocks) if (block.at <= position) fake.store(block);
  const brokers = await life.messages.at(position);
  try {
    const shishi = await startShishi({
      args: [...argsOf(fake.url, "127.0.0.1:0", mounted.folder), ...sourceArgs(brokers)],
      binary: life.binary,
    });
    try {
      const before = life.writes.filter(({ sentAt }) => sentAt <= position);
      const known = before.filter(({ acknowledgedAt }) => acknowledgedAt <= position);
      const duplicates = someKeyed(known, random);
      await Promise.all(duplicates.map(async (write) => {
        const answer = await taken(shishi.url, write);
        assert.deepEqual(answer, { status: 202, accepted: write.ids.length, duplicate: true });
      }));
      const open = before.filter((write) => write.key !== null && !known.includes(write));
      await Promise.all(open.map(async (write) => {
        const { status, accepted } = await taken(shishi.url, write);
        assert.deepEqual([status, accepted], [202, write.ids.length]);
      }));
      await allRead(brokers);
      await drained(shishi);
      const { ledger: { recovered, dead }, sources = [] } = await shishi.status();
      assert.equal(dead, 0, "what was sent is no row");
      checkMessages(fake, brokers);
      checkRows(fake, life.writes, new Set([...known, ...open]), new Set(before));
      const torn = shishi.lines().filter((line) => "quarantine" in line).length;
      shishi.signal("SIGTERM");
      assert.equal((await shishi.exited).code, 0);
      return {
        ...{ position, leftover, recovered, torn },
        acknowledged: known.reduce((sum, { ids }) => sum + ids.length, 0),
        duplicates: duplicates.length,
        resent: open.length,
        repeated: sources.reduce((sum: number, { repeated }: SourceStatus) => sum + repeated, 0),
      };
    } catch (problem) {
      console.error(shishi.stderr().slice(-4_000));
      throw problem;
    } finally {
      await shishi.close();
    }
  } finally {
    await Promise.all(brokers.map((broker) => broker.close()));
    await fake.close();
    await mounted.close();
  }
}

/** Sent until there is room for it. */
function taken(url: string, write: Write): Promise<Answered> {
  return eventually(async () => {
    const answer = await post(url, write);
    if (answer.status === 429 || answer.status === 503) throw new Error(`still ${answer.status}`);
    return answer;
  }, { withinMs: 30_000 });
}

function someKeyed(known: readonly Write[], random: () => number): Write[] {
  const keyed = known.filter(({ key }) => key !== null)
    .sort((a, b) => b.acknowledgedAt - a.acknowledgedAt);
  const others = keyed.slice(LAST_KEYS);
  const some = Array.from(
    { length: others.length === 0 ? 0 : OTHER_KEYS },
    () => others[Math.floor(random() * others.length)]!,
  );
  return [...new Set([...keyed.slice(0, LAST_KEYS), ...some])];
}

/** @param there whose rows must be there, once. @param possible whose may be, once. */
function checkRows(
  fake: FakeClickHouse,
  writes: readonly Write[],
  there: ReadonlySet<Write>,
  possible: ReadonlySet<Write>,
): void {
  for (const table of TABLES) {
    const times = new Map<string, number>();
    for (const { id } of fake.rows(table)) {
      times.set(id as string, (times.get(id as string) ?? 0) + 1);
    }
    let [missing, doubled, uninvited] = [0, 0, 0];
    const sent = new Set(writes.flatMap(({ table: of, ids }) => of === table ? ids : []));
    for (const id of times.keys()) if (!sent.has(id)) uninvited++;
    for (const write of writes) {
      if (write.table !== table) continue;
      for (const id of write.ids) {
        const copies = times.get(id) ?? 0;
        if (copies === 0 && there.has(write)) missing++;
        if (copies > 1) doubled++;
        if (copies > 0 && (!possible.has(write) || write.fate === "refused")) uninvited++;
      }
    }
    assert.deepEqual({ table, missing, doubled, uninvited }, {
      ...{ table, missing: 0, doubled: 0, uninvited: 0 },
    });
  }
}

/**
 * Positions for cuts, in order: half of them just before a flush, where most is not safe yet, half
 * anywhere.
 */
export function positionsOf({ log, from, to }: Life, cuts: number, random: () => number): number[] {
  const positions = new Set<number>();
  for (let tries = 0; positions.size < cuts && tries < cuts * 10; tries++) {
    let at = from + Math.floor(random() * (to - from + 1));
    if (tries % 2 === 0) { while (at < to && log.records[at] !== null) at++; }
    positions.add(at);
  }
  return [...positions].sort((a, b) => a - b);
}

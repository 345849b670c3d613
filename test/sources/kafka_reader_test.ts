/** How much the reader asks a broker of Kafka for, and of which partition first. Runs once: the broker is a script. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../src/kernel/time.ts";
import { Reader, type ReaderOptions, type Reading } from "../../src/sources/kafka_reader.ts";

interface Asked {
  readonly maxBytes: number;
  readonly topics: readonly {
    readonly partitions: readonly { readonly partition: number; readonly fetchOffset: bigint }[];
  }[];
}

const PARTITIONS = 3;
const AHEAD = 100;

/** Each partition has messages without end, of so many bytes; an answer has room for as many as were asked for. */
async function readFrom(bytes: number, answers: number) {
  const asked: Asked[] = [];
  const over = Promise.withResolvers<void>();
  const value = Buffer.alloc(bytes);
  const fetch = (request: Asked) => {
    asked.push(request);
    if (asked.length > answers) {
      over.resolve();
      return new Promise(() => {});
    }
    let left = request.maxBytes;
    const partitions = request.topics[0]!.partitions.map(({ partition, fetchOffset }) => {
      const count = Math.floor(left / bytes);
      left -= count * bytes;
      const records = Array.from({ length: count }, (_, offsetDelta) => ({
        ...{ offsetDelta, timestampDelta: 0n, key: null, value, headers: [] },
      }));
      const batch = { firstOffset: fetchOffset, lastOffsetDelta: count - 1, firstTimestamp: 0n };
      return {
        partitionIndex: partition,
        lastStableOffset: 2n ** 40n,
        records: count === 0 ? [] : [{ ...batch, attributes: 0, records }],
      };
    });
    return Promise.resolve({ responses: [{ topicId: "id", partitions }] });
  };
  const known = Array.from({ length: PARTITIONS }, () => ({ leader: 1 }));
  const metadata = () =>
    Promise.resolve({ topics: new Map([["t", { id: "id", partitions: known }]]) });
  const given: number[] = [];
  const reader = new Reader({
    consumer: { fetch, metadata } as unknown as ReaderOptions["consumer"],
    pool: {} as ReaderOptions["pool"],
    clock: systemClock,
    onOutOfRange: (at) => at.next,
    ahead: AHEAD,
    onChange: () =>
      queueMicrotask(() => {
        const taken = reader.take(Infinity);
        for (const { reading } of taken) given.push(reading.index);
      }),
  });
  reader.read(known.map((_, index): Reading => ({
    ...{ topic: "t", topicId: "id", index, partition: `t/${index}`, gone: false },
    ...{ next: 0n, leaderEpoch: -1, end: 0n, given: 0 },
  })));
  await over.promise;
  reader.close();
  return { asked, given };
}

test("an answer has about twice as many messages as are fetched ahead, or a megabyte", async () => {
  const last = async (bytes: number) => (await readFrom(bytes, 12)).asked.at(-1)!.maxBytes;
  assert.equal(await last(100), 64 * 1024);
  assert.ok(Math.abs(await last(1000) - 2 * AHEAD * 1000) < 10_000);
  assert.equal(await last(100_000), 1024 * 1024);
});

test("each partition is read, also where the first that is asked for fills the answer", async () => {
  const { given } = await readFrom(1000, 9);
  const counts = Array.from(
    { length: PARTITIONS },
    (_, at) => given.filter((index) => index === at).length,
  );
  assert.ok(Math.min(...counts) * 2 > Math.max(...counts), String(counts));
});

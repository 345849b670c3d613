/**
 * A broker beside the model, and the source that reads it: messages of three partitions, with positions, with ids,
 * and with both. What was not acknowledged at the broker comes again with each connection, in other groups
 * than before, and what the pump says of it is held against the books.
 */

import assert from "node:assert/strict";
import type { Chunk, TakenMark } from "../../src/contracts.ts";
import { comparePositions } from "../../src/kernel/positions.ts";
import { chunkOf } from "../kit/chunks.ts";
import type { Command } from "./disk_commands.ts";
import type { Run } from "./disk_model.ts";
import type { Request, Row } from "./disk_rows.ts";

const SOURCE = "s";

interface Message {
  readonly lines: readonly object[];
  readonly rows: readonly Row[];
  readonly position: string;
  readonly id: string;
}

/** What the broker knows of a partition. */
class BrokerPartition {
  readonly messages: Message[] = [];
  /** So many are acknowledged, for certain. */
  committed = 0;

  constructor(readonly name: string, readonly positions: boolean, readonly ids: boolean) {}
}

export class ModelBroker {
  readonly partitions = [
    new BrokerPartition("positions", true, false),
    new BrokerPartition("ids", false, true),
    new BrokerPartition("both", true, true),
  ];
}

/** Of one process. */
export class ModelSource {
  /** Null while it asks. */
  #marks: ReadonlyMap<string, TakenMark> | null = null;
  #connection = 0;
  /** So many of each partition are dealt with, and of these so many are safe. */
  readonly #read = [0, 0, 0];
  readonly #safe = [0, 0, 0];
  /** A chunk of each partition is on its way. */
  readonly #busy = [false, false, false];

  constructor(readonly run: Run) {
    this.connect();
  }

  /** What was read and is not committed comes again. */
  connect(): void {
    const connection = ++this.#connection;
    this.#marks = null;
    const asked = this.run.life.parts.pump.marks(SOURCE);
    void asked.then((marks) => {
      if (connection !== this.#connection) return;
      this.#marks = marks;
      this.run.broker.partitions.forEach(({ committed }, at) => {
        this.#read[at] = this.#safe[at] = committed;
      });
    });
  }

  /** @param told whether the process lives to hear it. */
  commit({ partition: at, told }: Command & { do: "commit" }): void {
    // What was safe before a connection was lost is not acknowledged by the next one.
    if (this.#marks === null) return;
    const { run } = this;
    const partition = run.broker.partitions[at]!;
    partition.committed = Math.max(partition.committed, this.#safe[at]!);
    const last = partition.messages[partition.committed - 1];
    if (!told || !partition.positions || last === undefined) return;
    run.life.parts.pump.committed(SOURCE, { partition: partition.name, position: last.position });
  }

  async poll(command: Command & { do: "poll" }): Promise<void> {
    const { run } = this;
    const at = command.partition;
    if (this.#marks === null || this.#busy[at]) return;
    const partition = run.broker.partitions[at]!;
    const from = this.#read[at]!;
    while (partition.messages.length < from + command.count) this.#publish(partition, command.pads);
    const polled = partition.messages.slice(from, from + command.count);
    const connection = this.#connection;
    this.#busy[at] = true;
    const known = partition.ids
      ? await run.life.parts.pump.taken(SOURCE, polled.map(({ id }) => id))
      : new Map();
    this.#busy[at] = false;
    if (run.life.crashed || run.life.abandoned || connection !== this.#connection) return;
    const mark = this.#marks.get(partition.name)?.position;
    const isKnown = ({ position, id }: Message) =>
      known.has(id) ||
      partition.positions && mark !== undefined && comparePositions(position, mark) <= 0;
    const fresh = polled.filter((message) => !isKnown(message));
    const repeated = polled.filter(isKnown);
    for (const message of repeated) this.#repeated(message);
    // In order: those that are known come first, or their marks would say too much.
    const firstFresh = polled.findIndex((message) => !isKnown(message));
    assert.ok(fresh.length === 0 || polled.slice(firstFresh).every((message) => !isKnown(message)));
    if (fresh.length === 0) {
      this.#read[at] = from + polled.length;
      if (run.disk) this.#safe[at] = this.#read[at]!;
      return;
    }
    this.#give(at, partition, fresh, from + polled.length);
  }

  #publish(partition: BrokerPartition, pads: readonly number[]): void {
    const { run } = this;
    const number = partition.messages.length + 1;
    const first = run.rows.length;
    const lines = pads.map((pad, at) => ({
      eventType: `type${pad % 3}`,
      n: first + at,
      bad: pad % 7 === 6,
      table: "m",
      pad: "ü".repeat(pad),
    }));
    const request = requestWith([], run.lives, 0, () => chunkOf([]));
    const rows = lines.map((line): Row => {
      const bytes = new TextEncoder().encode(JSON.stringify(line) + "\n").length;
      return { n: line.n, bad: line.bad, bytes, request };
    });
    run.rows.push(...rows);
    // Numbers of several digits and parts, so that to compare them as text would be wrong.
    const position = `${Math.floor(number / 3)}-${number % 3}`;
    partition.messages.push({ lines, rows, position, id: `${partition.name}${number}` });
  }

  /** The pump says that it was taken: it is on disk, or in this process's memory. */
  #repeated({ rows }: Message): void {
    const { run } = this;
    run.messagesKnown++;
    for (const { request } of rows) {
      assert.ok(request.rows.length > 0, "known, but never given");
      const back = run.undoFailed && request.life !== run.lives;
      assert.ok(request.state !== "refused" || back, "known, though it was refused");
      assert.ok(run.disk || request.life === run.lives, "of memory that is gone");
      // It is acknowledged now: from here on it must not be missing.
      request.state = "kept";
    }
  }

  #give(at: number, partition: BrokerPartition, messages: readonly Message[], read: number): void {
    const { run } = this;
    const rows = messages.flatMap(({ rows }) => rows);
    for (const { request } of rows) {
      const gone = !run.disk && request.life !== run.lives;
      assert.ok(
        request.state !== "kept" && request.state !== "open" || gone,
        `taken again, although ${request.state}`,
      );
    }
    const lines = messages.flatMap(({ lines }) => lines);
    const chunk = (): Chunk => ({
      ...chunkOf(lines, { table: "m" }),
      messages: {
        source: SOURCE,
        marks: partition.positions
          ? [{ partition: partition.name, position: messages.at(-1)!.position }]
          : [],
        ids: partition.ids ? messages.map(({ id }) => id) : [],
      },
    });
    const time = Math.max(...rows.map(({ request }) => request.time)) + 1;
    if (time > 1) run.messagesAgain++;
    const request = requestWith(rows, run.lives, time, chunk);
    const ticket = run.give(request);
    if (ticket === null) return;
    const kept = () => {
      this.#read[at] = read;
      if (run.disk) this.#safe[at] = read;
    };
    if (ticket.kept === null) return kept();
    this.#busy[at] = true;
    const connection = this.#connection;
    void ticket.kept.then((refused) => {
      this.#busy[at] = false;
      if (refused === null && connection === this.#connection) kept();
    });
  }
}

function requestWith(rows: Row[], life: number, time: number, chunk: () => Chunk): Request {
  return { life, rows, state: "unsure", cut: false, whole: true, key: null, time, chunk };
}

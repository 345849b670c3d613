/**
 * A model of a pump with a disk that knows nothing of segments and queues, only of promises: it obeys
 * commands, through as many processes as it takes, and keeps its own books of every row. What must be
 * true is in `disk_promises.ts`.
 */

import assert from "node:assert/strict";
import type { Refused, Taken } from "../../src/contracts.ts";
import { RequestTicket } from "../../src/batch/batch.ts";
import { within } from "../../src/kernel/time.ts";
import { FaultyFiles } from "../kit/faulty_files.ts";
import { settle } from "../kit/manual_clock.ts";
import { busy, tableTrouble, unanswered } from "../kit/scripted_sink.ts";
import { ModelBroker, ModelSource } from "./disk_broker.ts";
import type { Answer, Command, Config } from "./disk_commands.ts";
import { Life } from "./disk_life.ts";
import { type Request, requestAgain, requestOf, type Row } from "./disk_rows.ts";
import {
  checkCrash,
  checkDuplicate,
  checkEnd,
  checkStep,
  checkTaken,
  followTicket,
} from "./disk_promises.ts";
import { type Sent, SimulatedClickHouse } from "./simulated_clickhouse.ts";

export class Run {
  readonly clickhouse = new SimulatedClickHouse();
  readonly requests: Request[] = [];
  readonly rows: Row[] = [];
  /** Acknowledged with `memory` and lost as that is told: by a crash, or as `lost`. */
  readonly gone = new Set<Row>();
  files = new FaultyFiles(1);
  lives = 0;
  /** In some life a failed write could not be taken back. */
  undoFailed = false;
  crashes = 0;
  sent = 0;
  failures = 0;
  waiting = 0;
  /** Requests that came again and were taken; and that were duplicates. */
  repeated = 0;
  duplicates = 0;
  /** Messages that came again and were known; chunks of some that were taken again. */
  messagesKnown = 0;
  messagesAgain = 0;
  problem: unknown = null;
  readonly broker = new ModelBroker();
  source!: ModelSource;
  life!: Life;
  #crashHow: "process" | "power" = "process";
  #landed = 0;

  private constructor(readonly config: Config) {
    this.files = new FaultyFiles(config.chance);
  }

  static async start(config: Config): Promise<Run> {
    const run = new Run(config);
    await run.#begin(Date.UTC(2024, 0, 1), false);
    return run;
  }

  get disk(): boolean {
    return this.config.ack === "disk";
  }

  async #begin(startMs: number, slowStart: boolean): Promise<void> {
    this.lives++;
    this.life = await Life.start({
      config: this.config,
      files: this.files,
      clickhouse: this.clickhouse,
      startMs,
      chance: this.config.chance + this.lives,
      slowStart,
      onSent: () => this.#sent(),
      onProblem: (problem) => this.problem ??= new Error(problem),
    });
    this.source = new ModelSource(this);
    await settle();
  }

  async obey(command: Command): Promise<void> {
    const { life } = this;
    const { gate, sink, pump, clock } = life.parts;
    switch (command.do) {
      case "take":
        this.#take(command);
        break;
      case "again":
        this.#again(command.which);
        break;
      case "poll":
        void this.source.poll(command).catch((problem) => this.problem ??= problem);
        break;
      case "commit":
        this.source.commit(command);
        break;
      case "reconnect":
        this.source.connect();
        break;
      case "advance":
        await clock.advance(command.ms);
        break;
      case "answer": {
        const { inFlight } = sink;
        if (inFlight.length > 0) {
          this.answer(inFlight[command.which % inFlight.length]!, command.with);
        }
        break;
      }
      case "answerAll":
        for (const sent of sink.inFlight) {
          this.answer(sent, command.with);
          await settle();
        }
        break;
      case "flush":
        void pump.flush(1000);
        break;
      case "probe":
        void pump.probeDisk();
        break;
      case "shut":
        gate.shut = true;
        life.calm = false;
        break;
      case "open":
        gate.open();
        break;
      case "release":
        for (const which of command.which) {
          gate.release(which);
          await settle();
        }
        break;
      case "fault":
        // What recovery makes of errors is tested where it lives.
        if (!life.recovered && command.on === "read") break;
        life.faulty = true;
        this.files.fail(command);
        break;
      case "full":
        life.faulty = true;
        this.files.capacityBytes = used(this.files) + command.freeBytes;
        break;
      case "readOnly":
        life.faulty = true;
        this.files.readOnly = true;
        break;
      case "heal":
        this.heal();
        break;
      case "crash":
        this.#crashHow = command.how;
        this.#landed = command.landed;
        if (command.after === null) life.crashed = true;
        else this.files.crashAt(this.files.operations + command.after);
        break;
      case "stop":
        await this.#stop(command);
        break;
      case "abandon":
        await this.#end(command.landed);
        break;
    }
    await settle();
    if (this.life.crashed) await this.#crash();
    checkStep(this);
  }

  heal(): void {
    this.files.heal();
    this.files.capacityBytes = Infinity;
    this.files.readOnly = false;
  }

  // -------------------------------------------------------------- commands

  #take(command: Command & { do: "take" }): void {
    const request = requestOf(command, this.rows.length, this.lives);
    this.rows.push(...request.rows);
    this.requests.push(request);
    const taken = this.#offered(request);
    if (taken.kind === "refused") request.state = "refused";
    else this.#taken(request, taken.ticket as RequestTicket, command.waitMs);
  }

  /** Messages of a source. @returns null where they are refused at once. */
  give(request: Request): RequestTicket | null {
    request.state = "open";
    for (const row of request.rows) row.request = request;
    this.requests.push(request);
    const taken = this.#offered(request);
    if (taken.kind === "refused") {
      request.state = "refused";
      return null;
    }
    this.#taken(request, taken.ticket as RequestTicket, null);
    return taken.ticket as RequestTicket;
  }

  /** Its sender got no answer, or a refusal, or merely repeats itself. */
  #again(which: number): void {
    // With `ack=memory` a key is known as long as its process lives.
    const keyed = this.requests.filter((request) =>
      request.key !== null && request.rows[0]!.request === request &&
      (this.disk || request.life === this.lives)
    );
    const doubtful = keyed.filter(({ state }) => state === "unsure" || state === "refused");
    const some = which % 3 > 0 && doubtful.length > 0 ? doubtful : keyed;
    if (some.length === 0) return;
    const before = some[which % some.length]!;
    const taken = this.#offered(before);
    if (taken.kind === "refused") return;
    if (taken.before !== undefined) {
      checkDuplicate(this, before, taken.before);
      // It is acknowledged now, if it never was; one that is open has the same answer coming.
      if (taken.ticket.kept === null) before.state = "kept";
      return;
    }
    if (before.state === "kept" || before.state === "open") {
      this.problem ??= new Error(`taken again, although ${before.state}`);
    }
    const request = requestAgain(before, this.lives);
    this.requests.push(request);
    this.repeated++;
    this.#taken(request, taken.ticket as RequestTicket, null);
  }

  #offered(request: Request): Taken {
    const chunk = request.chunk();
    const mayRefuse = checkTaken(this, request, chunk);
    const taken = this.life.parts.pump.take(chunk);
    if (taken.kind === "refused" && !mayRefuse) {
      this.problem ??= new Error(`refused without a reason: ${taken.reason}`);
    }
    return taken;
  }

  #taken(request: Request, ticket: RequestTicket, waitMs: number | null): void {
    this.life.offered += request.rows.length;
    request.cut = ticket.spans.length > 1;
    if (request.cut && request.whole) this.problem ??= new Error("what comes again was cut");
    const answered = (unkept: Refused | null) => {
      request.state = unkept === null ? "kept" : "refused";
      if (unkept === null && waitMs !== null) followTicket(this, ticket, request, waitMs);
    };
    if (ticket.kept === null) answered(null);
    else ticket.kept.then(answered, (problem) => this.problem ??= problem);
  }

  answer(sent: Sent, kind: Answer): void {
    if (kind !== "stored") this.life.calm = false;
    const { sink } = this.life.parts;
    switch (kind) {
      case "stored":
        return sink.settle(sent);
      case "cut":
        this.clickhouse.insert(sent.batch.id, sent.rows);
        return sent.answer(unanswered());
      case "silent":
        return sent.answer(unanswered());
      case "busy":
        return sent.answer(busy());
      case "table":
        return sent.answer(tableTrouble);
      case "bug":
        return sent.crash();
    }
  }

  #sent(): void {
    this.sent++;
    if (this.life.abandoned) this.problem ??= new Error("sent after it was given up");
  }

  // -------------------------------------------------------------- ends

  #count(): void {
    const { gate } = this.life.parts;
    this.undoFailed ||= gate.undoFailed;
    this.failures += gate.failures;
  }

  /** What is under way when a process ends may have gone through all the same. */
  #land(landed: number): void {
    this.life.parts.sink.inFlight.forEach((sent, at) => {
      if ((landed >> (at % 16)) & 1) this.clickhouse.insert(sent.batch.id, sent.rows);
    });
  }

  async #crash(): Promise<void> {
    this.crashes++;
    this.#land(this.#landed);
    this.#count();
    this.waiting = 0;
    for (const request of this.requests) if (request.state === "open") request.state = "unsure";
    this.files = this.files.crash(this.#crashHow);
    checkCrash(this);
    await this.#begin(this.life.parts.clock.nowMs() + 1000, (this.#landed & 1) === 1);
  }

  /** As `control.stop` does it. */
  async #stop(command: Command & { do: "stop" }): Promise<void> {
    const { timeoutMs, with: kind, releases, midway, landed } = command;
    const { pump, clock, sink, gate } = this.life.parts;
    pump.close();
    let drained: boolean | null = null;
    void pump.drained(timeoutMs).then((all) => drained = all);
    await settle();
    for (const sent of sink.inFlight) if (kind !== null) this.answer(sent, kind);
    await clock.advance(timeoutMs + 1);
    if (this.life.crashed) return;
    let spilled = true;
    if (drained === false) {
      spilled = false;
      void pump.spill().then(() => spilled = true);
      await settle();
      for (const [at, which] of releases.entries()) {
        gate.release(which);
        await settle();
        if (midway === null || at !== releases.length >> 1) continue;
        for (const sent of sink.inFlight) this.answer(sent, midway);
        await settle();
      }
    }
    await this.#end(landed, spilled);
  }

  /** Gives up what is held; then the next process begins on the same disk. */
  async #end(landed: number, spilled = false): Promise<void> {
    const { life } = this;
    const { pump, gate, disk, letters, clock } = life.parts;
    if (life.crashed) return;
    const hasRecovered = life.recovered;
    this.#land(landed);
    pump.abandon();
    life.abandoned = true;
    await settle();
    let closed = false;
    void within(clock, 2_000, letters.idle(), undefined)
      .then(() => disk.close()).then(() => closed = true);
    await settle();
    if (closed) assert.deepEqual(gate.changes, [], "closed before the disk was done");
    gate.open();
    await clock.advance(400_000);
    if (life.crashed) return;
    assert.ok(closed, "the disk was not closed");
    this.#count();
    checkEnd(this, hasRecovered, spilled);
    this.heal();
    this.files.crashAt(Infinity);
    await this.#begin(clock.nowMs() + 1000, (landed & 1) === 1);
  }
}

function used(files: FaultyFiles): number {
  return files.paths().reduce((sum, path) => sum + files.get(path)!.length, 0);
}

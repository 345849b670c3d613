/**
 * A NATS made of nothing and collectors that listen to it, under a clock of the test's own: so a
 * fleet's minutes pass at once and in one order.
 */

import { controlFleet } from "../../src/fleet/fleet.ts";
import type { FleetIo } from "../../src/fleet/talk.ts";
import type { Command, Status } from "../../src/contracts.ts";
import { INSTANCE_HEADER, writeAnswer } from "../../src/remote/protocol.ts";
import { subjectsOf } from "../../src/remote/protocol.ts";
import type { Message, Wire } from "../../src/kernel/nats.ts";
import { done, failed } from "../../src/kernel/result.ts";
import { ManualClock } from "../kit/manual_clock.ts";

type Listener = (message: Message) => void;

/** Delivers at once; subjects may end in `*`. */
export class Bus {
  readonly clock = new ManualClock();
  /** Subjects that were published by a command, in order. */
  readonly published: string[] = [];
  reachable = true;
  #listeners: { subject: string; onMessage: Listener }[] = [];
  #cuts = new Set<() => void>();

  subscribe(subject: string, onMessage: Listener): void {
    this.#listeners.push({ subject, onMessage });
  }

  unsubscribe(onMessage: Listener): void {
    this.#listeners = this.#listeners.filter((each) => each.onMessage !== onMessage);
  }

  /** @returns how many took it. */
  publish(subject: string, payload: Uint8Array, reply = "", instance = ""): number {
    const message: Message = {
      subject,
      payload,
      reply,
      header: (name) => name === INSTANCE_HEADER ? instance : "",
      noResponders: false,
    };
    const takers = this.#listeners.filter((each) => matches(each.subject, subject));
    for (const { onMessage } of takers) onMessage(message);
    return takers.length;
  }

  /** Ends every connection. */
  cut(): void {
    for (const cut of this.#cuts) cut();
  }

  readonly dial: NonNullable<FleetIo["dial"]> = () => {
    if (!this.reachable) return Promise.resolve(failed("bus: away"));
    const closed = Promise.withResolvers<string>();
    const own: Listener[] = [];
    let open = true;
    const end = (why: string) => {
      open = false;
      for (const listener of own) this.unsubscribe(listener);
      this.#cuts.delete(cut);
      closed.resolve(why);
    };
    const cut = () => end("cut");
    this.#cuts.add(cut);
    const wire: Wire = {
      server: "bus:1",
      closed: closed.promise,
      subscribe: (subject, onMessage) => {
        own.push(onMessage);
        this.subscribe(subject, onMessage);
      },
      publish: (subject, payload, reply = "") => {
        if (!open) return false;
        this.published.push(subject);
        if (this.publish(subject, payload, reply) === 0 && reply !== "") {
          const nobody = { subject: reply, payload: new Uint8Array(), reply: "" };
          const message = { ...nobody, header: () => "", noResponders: true };
          for (const each of [...own]) {
            if (this.#listensTo(each, reply)) each(message);
          }
        }
        return true;
      },
      flush: () => Promise.resolve(open),
      close: () => {
        end("connection closed");
        return Promise.resolve();
      },
    };
    return Promise.resolve(done(wire));
  };

  #listensTo(listener: Listener, subject: string): boolean {
    return this.#listeners.some((each) =>
      each.onMessage === listener && matches(each.subject, subject)
    );
  }
}

function matches(pattern: string, subject: string): boolean {
  return pattern === subject ||
    pattern.endsWith(".*") && subject.startsWith(pattern.slice(0, -1)) &&
      !subject.slice(pattern.length - 1).includes(".");
}

export interface Habits {
  /** Rows at the start; they go down evenly while it drains. */
  readonly held?: number;
  /** How long it drains; Infinity: for ever. */
  readonly drainMs?: number;
  /** Rows lost at the end of a stop. */
  readonly loses?: number;
  /** Refuses everything but status, with this reason. */
  readonly refuses?: string;
  /** Each of its answers arrives so often. */
  readonly times?: number;
  /** Does not say which process it is. */
  readonly anonymous?: boolean;
}

export interface Fake {
  /** What it was told to do, without status. */
  readonly told: Command[];
  /** Takes no more messages. */
  leave(): void;
}

/** A collector `GROUP.ID` on the bus. */
export function collector(bus: Bus, name: string, habits: Habits = {}): Fake {
  const { held = 100, drainMs = 0, loses = 0, times = 1 } = habits;
  const [group = "", id = ""] = name.split(".");
  const subjects = subjectsOf("shishi", group, id);
  const instance = habits.anonymous ? "" : crypto.randomUUID();
  const told: Command[] = [];
  let drainingMs: number | null = null;
  let ended = false;

  const status = (): Status => {
    const passedMs = drainingMs === null ? 0 : bus.clock.monotonicMs() - drainingMs;
    const gone = ended ? 1 : drainMs === Infinity ? 0 : Math.min(1, passedMs / (drainMs || 1));
    const left = Math.round(held * (1 - gone));
    return {
      group,
      id,
      state: ended ? "stopped" : drainingMs === null ? "running" : "draining",
      version: "1.2.3",
      runtime: "test",
      uptime_s: 60,
      ledger: {
        ...{ received: held, recovered: 0, rejected: 0, dead: 0 },
        ...{ stored: held - left - (ended ? loses : 0), held: left, lost: ended ? loses : 0 },
      },
      oldest_s: 1,
      memory_bytes: 0,
      spool_bytes: 0,
      recovering: false,
      tables: {},
    };
  };
  const listen = (message: Message) => {
    const command = subjects.get(message.subject);
    if (command === undefined || ended) return;
    const answer = (state: string, error: string | null = null) => {
      const words = writeAnswer(command, status(), state, error);
      for (let n = 0; n < times; n++) bus.publish(message.reply, words, "", instance);
    };
    if (command === "status") return answer(status().state);
    told.push(command);
    if (habits.refuses !== undefined) return answer("running", habits.refuses);
    if (command !== "stop") return answer(command === "pause" ? "paused" : "running");
    drainingMs ??= bus.clock.monotonicMs();
    answer("draining");
    if (drainMs === Infinity) return;
    bus.clock.after(drainMs, () => {
      ended = true;
      answer("stopped");
    });
  };
  for (const subject of subjects.keys()) bus.subscribe(subject, listen);
  return { told, leave: () => bus.unsubscribe(listen) };
}

export interface Run {
  readonly out: string[];
  readonly err: string[];
  readonly code: Promise<number>;
  /** Lets time pass until it ends, at most an hour. @returns the exit code. */
  end(): Promise<number>;
}

/** Runs a command on the bus. */
export function run(bus: Bus, command: Command, more: Partial<FleetIo> = {}): Run {
  const out: string[] = [];
  const err: string[] = [];
  const code = controlFleet(command, {
    servers: ["ws://bus:1"],
    auth: { kind: "none" },
    subject: "shishi",
    target: "all",
    timeoutMs: 30_000,
    json: false,
    clock: bus.clock,
    out: (line) => out.push(line),
    err: (line) => err.push(line),
    dial: bus.dial,
    ...more,
  });
  const end = async () => {
    let ended: number | null = null;
    void code.then((result) => ended = result);
    for (let s = 0; s < 3_600 && ended === null; s++) await bus.clock.advance(1_000);
    if (ended === null) throw new Error(`still running\n${out.join("\n")}\n${err.join("\n")}`);
    return ended;
  };
  return { out, err, code, end };
}

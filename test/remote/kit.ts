/** A collector made of nothing, a log that remembers, and a client that asks. */
import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { connect, createInbox, headers, type MsgHdrs, type NatsConnection } from "nats.ws";
import type { Control, LedgerTotals, Log, LogFields, State, Status } from "../../src/contracts.ts";
import type { RemoteOptions } from "../../src/remote/remote.ts";
import { systemClock } from "../../src/kernel/time.ts";
import { eventually } from "../kit/wait.ts";

export const clock = systemClock;

export interface Lines extends Log {
  readonly lines: string[];
}

/** A log whose lines hold everything that was passed. */
export function remember(): Lines {
  const lines: string[] = [];
  const at = (level: string) => (message: string, fields?: LogFields) => {
    lines.push(`${level} ${message} ${JSON.stringify(fields ?? {})}`);
  };
  return {
    lines,
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
  };
}

const TOTALS: LedgerTotals = {
  received: 7,
  recovered: 0,
  rejected: 0,
  stored: 4,
  dead: 1,
  held: 2,
  lost: 0,
};

export interface FakeControl extends Control {
  readonly calls: string[];
  /** Ends all stops. */
  stopped(): void;
  /** Ends all flushes that wait. */
  flushed(all: boolean): void;
  /** The state from outside: trouble comes and goes. */
  become(state: State): void;
  watch(listener: () => void): () => void;
}

/** Stops and flushes last until the test ends them. */
export function fakeControl(group: string, id: string): FakeControl {
  const calls: string[] = [];
  const stop = Promise.withResolvers<void>();
  const flushes: ((all: boolean) => void)[] = [];
  const listeners: (() => void)[] = [];
  let state: State = "running";
  const change = (to: State) => {
    state = to;
    for (const listener of listeners) listener();
  };
  return {
    calls,
    watch(listener) {
      listeners.push(listener);
      return () => void listeners.splice(listeners.indexOf(listener), 1);
    },
    become: (to) => void (state = to),
    stopped: () => {
      change("stopped");
      stop.resolve();
    },
    flushed: (all) => flushes.splice(0).forEach((end) => end(all)),
    status: (): Status => ({
      group,
      id,
      state,
      version: "1.2.3",
      runtime: "test",
      uptime_s: 3700,
      ledger: TOTALS,
      oldest_s: 3,
      memory_bytes: 10,
      spool_bytes: 0,
      recovering: false,
      tables: { analytics_events: { ...TOTALS, state: "ok" } },
    }),
    hurry: () => false,
    unready: () => (state === "degraded" ? ["clickhouse: away"] : []),
    pause: () => {
      calls.push("pause");
      change("paused");
    },
    resume: () => {
      calls.push("resume");
      change("running");
    },
    flush: (waitMs) => {
      calls.push(`flush ${waitMs}`);
      return new Promise((resolve) => flushes.push(resolve));
    },
    stop: (why) => {
      calls.push(`stop ${why}`);
      if (state !== "stopped") change("draining");
      return stop.promise;
    },
  };
}

export interface CountedCommands {
  readonly counted: string[];
  control(command: string, ok: boolean): void;
}

export function countCommands(): CountedCommands {
  const counted: string[] = [];
  return { counted, control: (command, ok) => void counted.push(`${command} ${ok}`) };
}

/** Options of a collector `eu.a` unless told otherwise. */
export function remoteOptions(
  servers: string[],
  control: Control & Partial<Pick<FakeControl, "watch">>,
  more: Partial<RemoteOptions> = {},
): RemoteOptions {
  return {
    servers,
    subject: "shishi",
    auth: { kind: "none" },
    group: "eu",
    id: "a",
    control,
    ...(control.watch === undefined ? {} : { watch: control.watch }),
    ledger: countCommands(),
    clock,
    log: remember(),
    flushTimeoutMs: 1234,
    ...more,
  };
}

export interface Asker {
  readonly connection: NatsConnection;
  /** Publishes with a reply subject; the answers come one by one. */
  ask(
    subject: string,
    payload?: string | Uint8Array,
    headers?: Readonly<Record<string, string>>,
  ): Answers;
  /** Every JSON message on `subject` from here on. */
  listen(subject: string): Promise<Answers>;
  close(): Promise<void>;
}

export interface Answers {
  readonly all: Record<string, unknown>[];
  /** Of the answer at this place. */
  headers(at: number): MsgHdrs | undefined;
  /** The next one; fails after 10 s. */
  next(): Promise<Record<string, unknown>>;
}

/** A client that has nothing to do with the code under test but the library. */
export async function asker(url: string, auth: Record<string, unknown> = {}): Promise<Asker> {
  const connection = await connect({ servers: url, ...auth });
  return {
    connection,
    ask(subject, payload = "", fields) {
      const inbox = createInbox();
      const answers = gather(connection, inbox, subject);
      const carried = headers();
      for (const [name, value] of Object.entries(fields ?? {})) carried.set(name, value);
      connection.publish(subject, payload, {
        reply: inbox,
        ...(fields === undefined ? {} : { headers: carried }),
      });
      return answers;
    },
    async listen(subject) {
      const answers = gather(connection, subject, subject);
      await connection.flush();
      return answers;
    },
    close: () => connection.close(),
  };
}

function gather(connection: NatsConnection, from: string, what: string): Answers {
  const all: Record<string, unknown>[] = [];
  const seen: (MsgHdrs | undefined)[] = [];
  let taken = 0;
  connection.subscribe(from, {
    callback: (_, message) => {
      const text = new TextDecoder().decode(message.data);
      all.push(text === "" ? { noResponders: true } : JSON.parse(text));
      seen.push(message.headers);
    },
  });
  return {
    all,
    headers: (at) => seen[at],
    next: () =>
      eventually(() => {
        const answer = all[taken];
        if (answer === undefined) throw new Error(`nothing came on ${what}`);
        taken++;
        return answer;
      }, { withinMs: 10_000, everyMs: 5 }),
  };
}

/** Resolves once `remote` has its subscriptions on the server. */
export function connected(remote: { server(): string | null }, withinMs = 20_000): Promise<void> {
  return eventually(() => {
    if (remote.server() === null) throw new Error("no connection to NATS");
  }, { withinMs, everyMs: 10 });
}

/** Resolves once every thread of the process stands still: on a busy machine some run on for a while. */
export async function freeze(pid: number): Promise<void> {
  process.kill(pid, "SIGSTOP");
  const tasks = `/proc/${pid}/task`;
  await eventually(() => {
    for (const task of readdirSync(tasks)) {
      const state = /\) (\w)/.exec(readFileSync(`${tasks}/${task}/stat`, "utf8"))?.[1];
      if (state !== "T") throw new Error(`thread ${task} is in state ${state}`);
    }
  }, { withinMs: 10_000, everyMs: 5 });
}

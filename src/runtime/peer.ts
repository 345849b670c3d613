/**
 * Two processes that call each other over a pair of pipes: one JSON line a message. Either side calls,
 * either answers. A call settles: with the answer, or rejected by the other side's error, by its end,
 * or by the time that it is given. Lines that are no message are passed over.
 *
 * The other process is this very program again: the same binary, or the same source on the same runtime,
 * spoken to over its stdin and stdout; its stderr is this process's.
 */

import { spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { systemClock } from "./clock.ts";
import { ownCommand } from "./program.ts";

/** What may be called; the argument and the answer are what JSON can carry. */
// deno-lint-ignore no-explicit-any
export type Methods = Readonly<Record<string, (given: any) => unknown>>;

export interface Peer {
  /** @param withinMs rejects after this; for ever unless given. */
  call<T>(method: string, given?: unknown, withinMs?: number): Promise<T>;
  /** Resolves when the other side has ended, or closed its pipe. */
  readonly gone: Promise<void>;
}

export interface Child extends Peer {
  readonly pid: number;
  /** Ends it at once (SIGKILL). */
  kill(): void;
  /** Resolves with how it ended, for people: `exit code 1`, `SIGKILL`. Never rejects. */
  readonly exited: Promise<string>;
}

interface Message {
  readonly id: number;
  readonly call?: string;
  readonly given?: unknown;
  readonly answer?: unknown;
  readonly error?: string;
}

interface Waiting {
  readonly resolve: (answer: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly cancel: () => void;
}

export function createPeer(input: Readable, output: Writable, methods: Methods): Peer {
  const waiting = new Map<number, Waiting>();
  let lastId = 0;
  let ended = false;
  const { promise: gone, resolve: tellGone } = Promise.withResolvers<void>();

  const send = (message: Message) => void output.write(JSON.stringify(message) + "\n");
  const end = () => {
    ended = true;
    for (const { reject, cancel } of waiting.values()) {
      cancel();
      reject(new Error("the other process has ended"));
    }
    waiting.clear();
    tellGone();
  };
  // A pipe that breaks says so here too; its end is seen in the other direction.
  output.on("error", () => {});
  input.on("error", end);
  createInterface({ input, crlfDelay: Infinity }).on("line", take).on("close", end);

  function take(line: string): void {
    const message = parse(line);
    if (message?.call !== undefined) return void serve(message);
    const call = message && waiting.get(message.id);
    if (!call) return;
    waiting.delete(message.id);
    call.cancel();
    if (message.error === undefined) call.resolve(message.answer);
    else call.reject(new Error(message.error));
  }

  async function serve({ id, call = "", given }: Message): Promise<void> {
    try {
      const method = methods[call];
      if (method === undefined) throw new Error(`nothing to call by the name ${call}`);
      send({ id, answer: await method(given) ?? null });
    } catch (error) {
      send({ id, error: error instanceof Error ? error.message : String(error) });
    }
  }

  return {
    gone,
    call<T>(method: string, given?: unknown, withinMs?: number) {
      return new Promise<T>((resolve, reject) => {
        if (ended) return reject(new Error("the other process has ended"));
        const id = ++lastId;
        const cancel = withinMs === undefined ? () => {} : systemClock.after(withinMs, () => {
          waiting.delete(id);
          reject(new Error(`no answer within ${withinMs} ms`));
        });
        waiting.set(id, { resolve: resolve as (answer: unknown) => void, reject, cancel });
        send({ id, call: method, given });
      });
    },
  };
}

function parse(line: string): Message | null {
  if (!line.startsWith("{")) return null;
  try {
    const message = JSON.parse(line) as Message;
    return typeof message.id === "number" ? message : null;
  } catch {
    return null;
  }
}

/** @param words a command. @param env of the process; this one's unless given. */
export function spawnSelf(
  words: readonly string[],
  methods: Methods,
  env: NodeJS.ProcessEnv = process.env,
): Child {
  const [program = "", ...before] = ownCommand();
  const child = spawn(program, [...before, ...words], {
    stdio: ["pipe", "pipe", "inherit"],
    env,
  });
  const exited = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  return {
    ...createPeer(child.stdout, child.stdin, methods),
    pid: child.pid ?? 0,
    kill: () => void child.kill("SIGKILL"),
    exited,
  };
}

/** The process that started this one with `spawnSelf`. */
export function parent(methods: Methods): Peer {
  return createPeer(process.stdin, process.stdout, methods);
}

/**
 * A running collector is followed by a new process of the program, the one that now lies in its place,
 * on the same port and in the same data folder: SIGUSR2.
 *
 * 1. The old one starts the new one with its own arguments and environment, and goes on.
 * 2. The new one listens on the same port, and says so. From then on it gets every new connection.
 * 3. The old one takes what still comes on its connections, and ends each with its answer, so that no
 *    client finds a connection closed that it was about to use. Then it stops as always: what it holds
 *    goes to ClickHouse, or stays in the spool.
 * 4. The new one takes over the folder: dead letters and whatever the spool still holds.
 *
 * A new one that does not get as far as 3 changes nothing: the old one goes on. A pause or a stop of the
 * old one holds for the new one too, whenever it came.
 *
 * Where other collectors listen on the port (share-port) there is no handover: what steers connections to
 * the new one would take those of the others, and they take connections while this one is restarted.
 */

import { spawn } from "node:child_process";
import { resolve } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import type { Clock, Control, Log, Order } from "../contracts.ts";
import { sleep, systemClock, within } from "../kernel/time.ts";
import { ownCommand } from "./host.ts";
import type { Listeners } from "./listeners.ts";
import { stopListening } from "./server.ts";
import { type SharedPort, sharedPort } from "./shared_port.ts";

/** Set for the new process alone; `commands/serve.ts` looks for it. */
const FOLLOWS = "FOLLOWS_PID";
const START_WITHIN_MS = 30_000;
const ASK_WITHIN_MS = 5_000;

/** The collector that is followed. */
export interface Followed {
  readonly control: Control;
  readonly listening: Listeners;
  /** `listener` is called with what was asked for whenever something is. */
  watch(listener: (asked?: Order) => void): () => void;
  /** Why it cannot be followed at this moment, a sentence; null where nothing is in the way. */
  unsettled(): string | null;
}

export interface HandoverOptions {
  readonly collector: Followed;
  readonly dataDir: string;
  /** Other collectors may listen on the same port. */
  readonly sharePort: boolean;
  /** What follows `serve`. */
  readonly argv: readonly string[];
  readonly log: Log;
  /** From now on the process `pid` is the service. */
  readonly onReplaced: (pid: number) => void;
}

/** What the old one tells the new one. */
interface Told {
  readonly port: number;
  /** How many sockets listen there: of this version always 1, of 0.1 with workers more. */
  readonly listeners: number;
  readonly dataDir: string;
  readonly paused: boolean;
}

// ── The old one.

/**
 * Resolves when the collector has begun to stop, or when it goes on after all. Never rejects.
 * @returns why it cannot be asked for again, a sentence, or null.
 */
export async function handOver(options: HandoverOptions): Promise<string | null> {
  const { collector, log } = options;
  const { control, listening } = collector;
  const refuse = (why: string): null => {
    log.error(`not followed by a new process: ${why}`);
    return null;
  };
  const unfit = options.sharePort ? SHARED : await goodMoment({
    unsettled: () => collector.unsettled(),
    stopping: () => ["draining", "stopped"].includes(control.status().state),
    clock: systemClock,
    log,
  }) ?? await letIn(listening);
  if (unfit !== null) return refuse(unfit);

  const next = startNext(options);
  log.info("starting a new process to follow this one", { pid: next.child.pid });
  const stopped = Promise.withResolvers<"stopped">();
  // What stops or pauses the collector is meant for both processes, whichever it reaches.
  const pass = (asked?: Order) => {
    if (asked === undefined) return;
    next.child.call(asked).catch(() => {});
    if (asked !== "stop") return;
    next.letGo();
    stopped.resolve("stopped");
  };
  const forget = collector.watch(pass);
  const exited = next.child.exited.then((how) => `it has ended (${how})`);
  const began = await within(
    systemClock,
    START_WITHIN_MS,
    Promise.race([next.listens, exited, stopped.promise]),
    `it does not start within ${START_WITHIN_MS / 1000} s`,
  );
  const left = began === "listens" ? leave(listening, log).then(() => "left" as const) : began;
  const outcome = await Promise.race([left, exited, stopped.promise]);
  if (outcome === "stopped") return null;
  if (outcome !== "left") {
    forget();
    if (began === "listens") listening.lastAnswers(false);
    next.child.kill();
    return refuse(`${outcome}; mend what its own lines tell, then send SIGUSR2 again`);
  }
  options.onReplaced(next.child.pid);
  await stopListening(listening);
  next.letGo();
  forget();
  void control.stop(`followed by process ${next.child.pid}`);
  // No event can come any more.
  control.hurry();
  collector.watch(pass);
  return `process ${next.child.pid} follows this one; send it to that one`;
}

const SHARED =
  "other collectors may listen on its port (share-port); restart it instead: they take " +
  "the connections meanwhile";

interface Next {
  readonly child: Child;
  readonly listens: Promise<"listens">;
  /** Tells it that the old one takes no more connections. */
  letGo(): void;
}

function startNext({ argv, collector, dataDir }: HandoverOptions): Next {
  const listens = Promise.withResolvers<"listens">();
  const over = Promise.withResolvers<void>();
  const env: NodeJS.ProcessEnv = { ...process.env, [FOLLOWS]: String(process.pid) };
  // It was meant for this process.
  delete env["WATCHDOG_PID"];
  const { control, listening: { port } } = collector;
  const child = spawnSelf(["serve", ...argv], {
    told: (): Told => ({
      port,
      listeners: 1,
      dataDir: resolve(dataDir),
      paused: control.status().state === "paused",
    }),
    listens() {
      listens.resolve("listens");
      return over.promise;
    },
  }, env);
  return { child, listens: listens.promise, letGo: () => over.resolve() };
}

/** What the one before it may take to end. */
const MOMENT_WITHIN_MS = 30_000;
const LOOK_MS = 50;

export interface MomentDeps {
  /** What is in the way, a sentence, or null. */
  readonly unsettled: () => string | null;
  readonly stopping: () => boolean;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Waits until a collector can be followed: not while it takes over a spool itself. That passes, so it is
 * waited for, for a while.
 * @returns why no good moment has come and what to do, a sentence, or null. Never rejects.
 */
export async function goodMoment(deps: MomentDeps): Promise<string | null> {
  const { unsettled, stopping, clock, log } = deps;
  const seconds = MOMENT_WITHIN_MS / 1000;
  const untilMs = clock.monotonicMs() + MOMENT_WITHIN_MS;
  for (let told = false;; told = true) {
    if (stopping()) return "this process is stopping; start it again when it has ended";
    const reason = unsettled();
    if (reason === null) return null;
    if (clock.monotonicMs() >= untilMs) {
      return `${reason}, for ${seconds} s; send SIGUSR2 again when that is over, or restart`;
    }
    if (!told) {
      log.info("SIGUSR2: waiting until this process can be followed", {
        reason,
        at_most_s: seconds,
      });
    }
    await sleep(clock, LOOK_MS);
  }
}

/** The new one may listen on the port too from now on. @returns why not, a sentence, or null. */
async function letIn(listening: Listeners): Promise<string | null> {
  // A server from before a renewed certificate would get what is meant for the new process.
  await listening.alone();
  for (const { port, hostname } of listening.addresses) {
    if (await sharedPort(port, hostname) === null) {
      return "this system cannot share a port; restart it instead";
    }
  }
  return null;
}

/** A handshake may be under way when the new one gets the port. */
const LINGER_MS = 500;
/** Connections that carry no request are ended after this. */
const IDLE_MS = 10_000;

/** New connections are for the new one. Resolves when no other is left, or none that is used. */
async function leave(listening: Listeners, log: Log): Promise<void> {
  const mine = await Promise.all(
    listening.addresses.map(({ port, hostname }) => sharedPort(port, hostname)),
  );
  for (const port of mine) {
    if (!port?.giveWay()) log.warn("new connections may be reset while this process ends");
  }
  listening.lastAnswers(true);
  const fromMs = systemClock.monotonicMs();
  for (;;) {
    await sleep(systemClock, LOOK_MS);
    const passedMs = systemClock.monotonicMs() - fromMs;
    if (passedMs > IDLE_MS || passedMs > LINGER_MS && mine.every(unused)) return;
  }
}

function unused(port: SharedPort | null): boolean {
  return port !== null && port.connections() === 0;
}

// ── The new one.

/** The collector that another one follows, as the one that follows sees it. */
export interface Predecessor {
  /**
   * Has `control` paused if that one is, and from then on paused, resumed and stopped whenever that one is.
   * To be called before anything is answered.
   */
  lead(control: Control): void;
  /** Tells it that this one listens; resolves when it takes no more connections. */
  listening(): Promise<void>;
  /** Its process has ended. */
  readonly gone: Promise<void>;
}

/**
 * The collector that has started this process to follow it, and the port it listens on. Rejects with why it
 * cannot be followed, a sentence.
 * @param dataDir the folder of this process, which has to be that one's.
 */
export async function follow(
  dataDir: string,
): Promise<{ readonly predecessor: Predecessor; readonly port: number }> {
  delete process.env[FOLLOWS];
  const { promise: control, resolve: tellControl } = Promise.withResolvers<Control>();
  const led = (act: (control: Control) => unknown) => () => void control.then(act);
  const old = parent({
    stop: led((control) => control.stop("the previous process is stopping")),
    pause: led((control) => control.pause()),
    resume: led((control) => control.resume()),
  });
  const told = await old.call<Told>("told", null, ASK_WITHIN_MS);
  if (resolve(dataDir) !== told.dataDir) {
    throw new Error(
      `data-dir: expected that of the running collector (${told.dataDir}), restart it`,
    );
  }
  if (told.listeners !== 1) {
    throw new Error("the running collector is several processes (workers), restart it");
  }
  return {
    port: told.port,
    predecessor: {
      lead(control) {
        if (told.paused) control.pause();
        // What came meanwhile comes after that.
        tellControl(control);
      },
      // One that is gone meanwhile has let go of everything as well.
      listening: () => old.call<void>("listens").catch(() => {}),
      gone: old.gone,
    },
  };
}

// ── The two processes call each other over a pair of pipes: one JSON line a message. Either side calls,
// either answers. A call settles: with the answer, or rejected by the other side's error, by its end,
// or by the time that it is given. Lines that are no message are passed over.
//
// The other process is this very program again: the same binary, or the same source on the same runtime,
// spoken to over its stdin and stdout; its stderr is this process's.

/** What may be called; the argument and the answer are what JSON can carry. */
// deno-lint-ignore no-explicit-any
export type Methods = Readonly<Record<string, (given: any) => unknown>>;

export interface Peer {
  /** @param withinMs rejects after this; for ever unless given. */
  call<T>(method: string, given?: unknown, withinMs?: number): Promise<T>;
  /** Resolves when the other side has ended, or closed its pipe. */
  readonly gone: Promise<void>;
}

interface Child extends Peer {
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
function spawnSelf(
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
function parent(methods: Methods): Peer {
  return createPeer(process.stdin, process.stdout, methods);
}

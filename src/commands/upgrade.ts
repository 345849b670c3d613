/**
 * A running collector is followed by a new process of the program, the one that now lies in its place,
 * on the same port and in the same data folder: SIGUSR2.
 *
 * 1. The old one starts the new one with its own arguments and environment, and goes on.
 * 2. The new one listens on the same port, and says so. From then on it gets every new connection.
 * 3. The old one takes what still comes on its connections, and ends each with its answer; then it stops
 *    as always: what it holds goes to ClickHouse, or stays in the spool.
 * 4. The new one takes over the folder: dead letters and whatever the spool still holds.
 *
 * A new one that does not get as far as 3 changes nothing: the old one goes on. What somebody has decided
 * of the old one, a pause or a stop, holds for the new one too, whenever it was said.
 */

import { resolve } from "node:path";
import process from "node:process";
import type { Collector } from "../collector.ts";
import type { Control, Log, Order } from "../contracts.ts";
import type { Predecessor } from "../predecessor.ts";
import { systemClock } from "../runtime/clock.ts";
import { parent, spawnSelf } from "../runtime/self.ts";
import type { Notices } from "../systemd/notices.ts";
import type { Settings } from "../settings/settings.ts";
import { goodMoment } from "./moment.ts";

/** Set for the new process alone. */
const FOLLOWS = "FOLLOWS_PID";
const START_WITHIN_MS = 30_000;
const ASK_WITHIN_MS = 5_000;

export interface Running {
  readonly collector: Collector;
  readonly settings: Settings;
  /** What follows `serve`. */
  readonly argv: readonly string[];
  readonly notices: Notices | null;
  readonly log: Log;
}

/** What the old one tells the new one. */
interface Told {
  readonly port: number;
  /** How many sockets listen there: of this version always 1, of 0.1 with workers more. */
  readonly listeners: number;
  readonly dataDir: string;
  readonly paused: boolean;
}

/**
 * Resolves when the collector has begun to stop, or when it goes on after all. Never rejects.
 * @returns why it cannot be asked for again, a sentence, or null.
 */
export async function upgrade(running: Running): Promise<string | null> {
  const { log, collector, collector: { control }, notices } = running;
  const { dataDir, sharePort } = running.settings;
  const refuse = (why: string) => {
    log.error(`not followed by a new process: ${why}`);
    return null;
  };
  if (sharePort) {
    return refuse(
      "other collectors may listen on its port (share-port); restart it instead: they take the " +
        "connections meanwhile",
    );
  }
  const isIn = (...states: string[]) => states.includes(control.status().state);
  const unfit = await goodMoment({
    unsettled: () => collector.unsettled(),
    stopping: () => isIn("draining", "stopped"),
    clock: systemClock,
    log,
  });
  if (unfit !== null) return refuse(unfit);
  const door = await collector.door();
  const unshared = await door.share();
  if (unshared !== null) return refuse(`${unshared}; restart it instead`);
  let tellListens = () => {};
  const listens = new Promise<"listens">((resolve) => tellListens = () => resolve("listens"));
  let tellOver = () => {};
  const over = new Promise<void>((resolve) => tellOver = resolve);
  const env: NodeJS.ProcessEnv = { ...process.env, [FOLLOWS]: String(process.pid) };
  // It was meant for this process.
  delete env["WATCHDOG_PID"];
  const { port } = door;
  const child = spawnSelf(["serve", ...running.argv], {
    told: (): Told => ({ port, listeners: 1, dataDir: resolve(dataDir), paused: isIn("paused") }),
    listens: () => {
      tellListens();
      return over;
    },
  }, env);
  log.info("starting a new process to follow this one", { pid: child.pid });
  const exited = child.exited.then((how) => `it has ended (${how})`);
  let tellStopped = () => {};
  const stopped = new Promise<"stopped">((resolve) => tellStopped = () => resolve("stopped"));
  // Whoever stops or pauses the collector means both processes, whichever he reaches.
  const both = (asked?: Order) => {
    if (asked === undefined) return;
    child.call(asked).catch(() => {});
    if (asked !== "stop") return;
    tellOver();
    tellStopped();
  };
  const forget = collector.watch(both);
  const late = sleep(START_WITHIN_MS).then(() =>
    `it does not start within ${START_WITHIN_MS / 1000} s`
  );
  const began = await Promise.race([listens, exited, stopped, late]);
  const left = began === "listens" ? door.leave().then(() => "left" as const) : began;
  const outcome = await Promise.race([left, exited, stopped]);
  if (outcome === "stopped") return null;
  if (outcome !== "left") {
    forget();
    if (began === "listens") door.stay();
    child.kill();
    return refuse(`${outcome}; mend what its own lines tell, then send SIGUSR2 again`);
  }
  notices?.replacedBy(child.pid);
  await door.close();
  tellOver();
  forget();
  void control.stop(`followed by process ${child.pid}`);
  collector.watch(both);
  return `process ${child.pid} follows this one; send it to that one`;
}

/**
 * The collector that has started this process to follow it, and the settings as they are then; or why it
 * cannot be followed, a sentence.
 */
export async function follow(
  settings: Settings,
): Promise<{ readonly predecessor: Predecessor; readonly settings: Settings }> {
  delete process.env[FOLLOWS];
  let tellControl = (_control: Control) => {};
  const control = new Promise<Control>((resolve) => tellControl = resolve);
  const heeds = (act: (control: Control) => unknown) => () => void control.then(act);
  const old = parent({
    stop: heeds((control) => control.stop("the one before was told to stop")),
    pause: heeds((control) => control.pause()),
    resume: heeds((control) => control.resume()),
  });
  const { port, listeners, dataDir, paused } = await old.call<Told>("told", null, ASK_WITHIN_MS);
  if (resolve(settings.dataDir) !== dataDir) {
    throw new Error(`data-dir: expected that of the running collector (${dataDir}), restart it`);
  }
  if (listeners !== 1) {
    throw new Error("the running collector is several processes (workers); restart it");
  }
  const { listen } = settings;
  return {
    settings: { ...settings, listen: { ...listen, port: listen.port || port } },
    predecessor: {
      heed(control) {
        if (paused) control.pause();
        // What came meanwhile comes after that.
        tellControl(control);
      },
      // One that is gone meanwhile has let go of everything as well.
      listening: () => old.call<void>("listens").catch(() => {}),
      gone: old.gone,
    },
  };
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => void systemClock.after(ms, resolve));
}

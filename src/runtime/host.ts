/**
 * Which runtime this is, and this program as a process of the system. The only room that knows two
 * runtimes exist; everything else meets web standards and `node:` modules, which both provide.
 */

import { fstatSync, realpathSync, statSync } from "node:fs";
import process from "node:process";

interface BunLike {
  readonly version: string;
  /** The entry. */
  readonly main: string;
  serve(options: unknown): unknown;
}
interface DenoLike {
  readonly version: { readonly deno: string };
  readonly build: { readonly standalone?: boolean };
  serve(options: unknown, handler: unknown): unknown;
  createHttpClient?(options: unknown): unknown;
  listen(options: unknown): { readonly addr: { readonly port: number }; close(): void };
  /** There only with `--unstable-net`, or that in the settings file. */
  readonly listenDatagram?: unknown;
  dlopen?(name: string, symbols: unknown): { readonly symbols: unknown };
  readonly UnsafePointer: {
    of(bytes: Uint8Array): unknown;
    value(pointer: unknown): bigint;
  };
}

const globals = globalThis as unknown as { Bun?: BunLike; Deno?: DenoLike };

/** Set on Bun (and in the compiled binary), else undefined. */
export const bun: BunLike | undefined = globals.Bun;
/** Set on Deno, else undefined. */
export const deno: DenoLike | undefined = globals.Bun ? undefined : globals.Deno;

/** Why several collectors cannot listen on one address here, for `share-port`; null where they can. */
export function unshareable(): string | null {
  if (process.platform !== "linux") {
    return `expected Linux, where the system distributes connections, got ${process.platform}`;
  }
  // Asked to without the flag, it ends the process.
  return deno === undefined || deno.listenDatagram !== undefined
    ? null
    : "expected Deno to be started with --unstable-net";
}

/** For `--version`, metrics and status, e.g. `bun 1.4.5`. */
export const runtimeName: string = bun
  ? `bun ${bun.version}`
  : deno
  ? `deno ${deno.version.deno}`
  : `node ${process.versions.node}`;

// ── This program as a process of the system: the command that starts it again, the signals that it takes,
// alike on every runtime, and whether people read what it writes.

/** Where a compiled binary of Bun keeps its entry. */
const COMPILED = /^(?:\/\$bunfs\/|[A-Z]:[\\/]~BUN[\\/])/;
/** Linux appends this to the path of a program that was replaced; the new one is meant. */
const REPLACED = / \(deleted\)$/;

/** The command that runs this program, in front of the words of a command. */
export function ownCommand(): readonly string[] {
  return [process.execPath.replace(REPLACED, ""), ...ownArguments()];
}

/**
 * What is to be run, by `process.execPath`, in front of the words of a command. Deno knows
 * `reusePort` only by that flag; a binary that it compiles has to be compiled with it.
 */
function ownArguments(): string[] {
  const [, entry = ""] = process.argv;
  if (bun !== undefined) return COMPILED.test(bun.main) ? [] : [entry];
  if (deno?.build.standalone) return [];
  return deno === undefined ? [entry] : ["run", "-A", "-q", "--unstable-net", entry];
}

/** How large Bun takes the machine's memory to be, bytes. It is read before any code of this program runs. */
const RAM_SIZE = "BUN_JSC_forceRAMSize";
const RAM_BYTES = 400_000_000;

/**
 * Bounds what Bun's heap holds beside what lives. As long as that is less than a quarter of the machine's
 * memory it may grow to twice as much, then by a half, then by a quarter: with 400 MB, 200 tables at full speed
 * were 170 to 210 MB instead of 205 to 310, and 1 GiB of rows 1.4 GB instead of 1.8, by turns as fast. Bun reads
 * that from the environment alone; so the binary takes its own place with it: the same process, with the same
 * descriptors, whose first answer comes 4 to 7 ms later. (That its allocator gives back at once what was freed,
 * `MIMALLOC_PURGE_DELAY=0`, is 10 MB less, for 7 % more CPU.)
 *
 * Comes back where nothing is to be done (any other runtime or system, or the environment says it already), and
 * where the system does not allow it.
 */
export function boundHeap(): void {
  const { argv0, argv, env, execPath, platform, execve } = process as typeof process & {
    execve?: (path: string, argv: readonly string[], env: NodeJS.ProcessEnv) => void;
  };
  const isOurs = bun !== undefined && COMPILED.test(bun.main) && platform === "linux";
  if (!isOurs || execve === undefined || env[RAM_SIZE] !== undefined) return;
  // Where it is refused Bun says soon after that the call is an experimental one, between the lines of the log.
  const printers = process.listeners("warning");
  process.removeAllListeners("warning");
  try {
    // Its name in lists of processes is the last part of the path that is given here.
    const isPath = argv0.includes("/") && realpathSync(argv0) === execPath;
    const path = isPath ? argv0 : execPath;
    execve.call(process, path, [argv0, ...argv.slice(2)], {
      ...env,
      [RAM_SIZE]: String(RAM_BYTES),
    });
  } catch {
    setImmediate(() => printers.forEach((printer) => process.on("warning", printer)));
  }
}

/** SIGHUP does not end the process from now on, but calls `handler` each time it comes. */
export function onReloadSignal(handler: () => void): void {
  process.on("SIGHUP", handler);
}

/** Calls `handler` at SIGINT and SIGTERM, each time one comes; the answer takes the handlers away. */
export function onStopSignal(handler: (signal: string) => void): () => void {
  const names = ["SIGINT", "SIGTERM"] as const;
  for (const name of names) process.on(name, handler);
  return () => {
    for (const name of names) process.off(name, handler);
  };
}

/** Calls `handler` at SIGUSR2, each time one comes, where there is such a signal. */
export function onUpgradeSignal(handler: () => void): void {
  if (process.platform !== "win32") process.on("SIGUSR2", handler);
}

/**
 * Whether colours are wanted: on a terminal that has some, unless the user says otherwise.
 * `NO_COLOR`: see no-color.org; empty counts as not set.
 */
export function wantsColor(isTerminal: boolean): boolean {
  const { NO_COLOR = "", TERM = "" } = process.env;
  return isTerminal && NO_COLOR === "" && TERM !== "dumb";
}

/**
 * Whether stderr is a terminal. The runtime's own `isTTY` loads its streams, which takes 10 ms of a
 * start: it is only asked where there may be one.
 */
export function onTerminal(): boolean {
  return mayBeTerminal() && process.stderr.isTTY === true;
}

/** Services, containers and pipelines have a pipe, a socket, a file or `/dev/null`. */
function mayBeTerminal(): boolean {
  try {
    const stat = fstatSync(2);
    return stat.isCharacterDevice() && stat.rdev !== statSync("/dev/null").rdev;
  } catch {
    return true;
  }
}

/**
 * The collector as users run it: a process of its own, on the runtime that runs the test. Bun's is the compiled
 * binary, Deno's the source. Its current folder is an empty temporary one.
 */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { startGuard } from "../servers/process.ts";
import { removeDir, tempDir } from "./temp.ts";
import { eventually } from "./wait.ts";

export interface Start {
  /** Flags of `serve`; `--listen 127.0.0.1:0` is added unless they say where to listen. */
  readonly args?: readonly string[];
  /** Its settings file says where it listens. */
  readonly listens?: boolean;
  /** Told at once, before anything is known of the process. */
  readonly onSpawn?: (pid: number) => void;
  /** Added to an environment without any `SHISHI_…`. */
  readonly env?: Readonly<Record<string, string>>;
  /** `dist/shishi`, or the binary of that path; false: the source. On Bun the binary unless given. */
  readonly binary?: boolean | string;
  /** Of the source, another entry than `src/main.ts`, e.g. `test/crash/main.ts`. */
  readonly entry?: string;
  /** When to give up a start; 10 s unless given. */
  readonly withinMs?: number;
}

/** An answer whose body has been read. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The body parsed; null where it is no JSON. */
  // deno-lint-ignore no-explicit-any
  readonly json: any;
}

export interface PostInit {
  /** `/events` unless given. */
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** How a process ended. */
export interface Exit {
  readonly code: number | null;
  readonly signal: string | null;
}

export interface Shishi {
  /** `http://127.0.0.1:PORT`. */
  readonly url: string;
  readonly pid: number;
  /** Its current folder; `shishi-data` lies in it unless it was told otherwise. */
  readonly dir: string;
  /** POSTs text and bytes as they are, anything else as JSON. */
  post(body: unknown, init?: PostInit): Promise<Answer>;
  get(path: string, headers?: Readonly<Record<string, string>>): Promise<Answer>;
  /** The body of `GET /api/status`. */
  status(): Promise<Answer["json"]>;
  /** All that was written to stderr so far. */
  stderr(): string;
  /** The log lines so far, parsed; lines that are no JSON are left out. */
  lines(): Record<string, unknown>[];
  signal(name: NodeJS.Signals): void;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
  /** Resolves when the process is gone and its stderr has been read to the end. */
  readonly exited: Promise<Exit>;
  /** `kill`, and deletes its folder. */
  close(): Promise<void>;
}

/** What a command that ends by itself left behind. */
export interface Finished extends Exit {
  readonly stdout: string;
  readonly stderr: string;
}

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** Which runtime runs the test. */
export const ON_BUN = process.versions.deno === undefined;
/**
 * The collector of the runtime that runs the test, as `binary`. On Bun it is the binary, which is that source and
 * that runtime in one file: what users run, and three times as fast to start.
 */
export const BUILDS: readonly boolean[] = [ON_BUN];
/** Also the source on Bun: for what a program finds by its own path, its arguments, or files beside it. */
export const EVERY_BUILD: readonly boolean[] = ON_BUN ? [false, true] : [false];
const BINARY = join(ROOT, "dist/shishi");
const START_WITHIN_MS = 10_000;

/** Starts `shishi` and returns when it says that it listens; throws its stderr when it does not. */
export async function startShishi(start: Start): Promise<Shishi> {
  const args = [...(start.args ?? [])];
  const listens = start.listens === true || start.env?.SHISHI_LISTEN !== undefined ||
    args.some((arg) => /^--listen(=|$)/.test(arg));
  if (!listens) {
    args.push("--listen", "127.0.0.1:0");
  }
  const dir = tempDir("shishi");
  const child = launch(args, start, dir);
  start.onSpawn?.(child.pid);
  const guard = startGuard(child.pid, dir);
  const kill = async () => {
    await guard.end();
    child.process.kill("SIGKILL");
    await child.exited;
  };
  let ended: Exit | null = null;
  const exited = child.exited.then(async (exit) => {
    ended = exit;
    await guard.end();
    return exit;
  });

  let url: string;
  try {
    url = await eventually(() => {
      const line = parseLines(child.stderr()).find((line) => line.message === "listening");
      if (line === undefined && ended === null) throw new Error("it does not say that it listens");
      return typeof line?.url === "string" ? line.url : "";
    }, { withinMs: start.withinMs ?? START_WITHIN_MS, everyMs: 5 });
    if (url === "") throw new Error("it ended, or said no url");
  } catch (problem) {
    await kill();
    removeDir(dir);
    throw new Error(`shishi did not start: ${(problem as Error).message}\n${child.stderr()}`);
  }

  const get = (path: string, headers: Readonly<Record<string, string>> = {}) =>
    fetch(url + path, { headers }).then(read);
  return {
    url,
    pid: child.pid,
    dir,
    get,
    post: (body, { path = "/events", ...init } = {}) =>
      fetch(url + path, { ...init, method: "POST", body: encode(body) }).then(read),
    status: async () => (await get("/api/status")).json,
    stderr: child.stderr,
    lines: () => parseLines(child.stderr()),
    signal: (name) => {
      // Not child.kill(): after that one Deno tells the signal as the end, whatever the process did.
      if (ended === null) process.kill(child.pid, name);
    },
    kill,
    exited,
    close: async () => {
      await kill();
      removeDir(dir);
    },
  };
}

/** Runs a command that ends by itself, e.g. `["check"]`; killed after `withinMs`. */
export async function runShishi(
  args: readonly string[],
  { env, binary, withinMs = 30_000 }: Omit<Start, "args"> & { readonly withinMs?: number } = {},
): Promise<Finished> {
  const dir = tempDir("shishi");
  const child = launch(args, { ...(env && { env }), ...(binary !== undefined && { binary }) }, dir);
  const guard = startGuard(child.pid, dir);
  const limit = setTimeout(() => child.process.kill("SIGKILL"), withinMs);
  const exit = await child.exited;
  clearTimeout(limit);
  await guard.end();
  removeDir(dir);
  return { ...exit, stdout: child.stdout(), stderr: child.stderr() };
}

/** A command that goes on until it is told, or stdin ends. */
export interface Command {
  readonly pid: number;
  /** Its stdin. */
  readonly stdin: Writable;
  stderr(): string;
  signal(name: NodeJS.Signals): void;
  /** Resolves when the process is gone and its stderr has been read to the end. */
  readonly exited: Promise<Exit>;
}

/** Starts a command, e.g. `["pipe", "logs"]`; it is killed when this process ends. */
export function startCommand(
  args: readonly string[],
  start: Pick<Start, "env" | "binary"> = {},
): Command {
  const dir = tempDir("shishi");
  const child = launch(args, start, dir, "pipe");
  const guard = startGuard(child.pid, dir);
  const stdin = child.process.stdin!;
  // It may end before it has read everything.
  stdin.on("error", () => {});
  return {
    pid: child.pid,
    stdin,
    stderr: child.stderr,
    signal: (name) => void process.kill(child.pid, name),
    exited: child.exited.then(async (exit) => {
      await guard.end();
      removeDir(dir);
      return exit;
    }),
  };
}

function launch(
  args: readonly string[],
  start: Start,
  dir: string,
  stdin: "ignore" | "pipe" = "ignore",
) {
  const { env = {}, entry = "src/main.ts" } = start;
  const { binary = ON_BUN && start.entry === undefined } = start;
  const path = binary === true ? freshBinary() : binary;
  const [command, ...before] = path === false ? fromSource(entry) : [path];
  const clean = Object.entries(process.env).filter(([name]) => !name.startsWith("SHISHI_"));
  const child = spawn(command!, [...before, ...args], {
    cwd: dir,
    env: { ...Object.fromEntries(clean), ...env },
    stdio: [stdin, "pipe", "pipe"],
    // Ctrl-C in a terminal reaches only who started it, who then decides.
    detached: true,
  });
  if (child.pid === undefined) throw new Error(`${command} cannot be run (npm run build?)`);
  let stdout = "";
  let stderr = "";
  child.stdout!.setEncoding("utf8").on("data", (text: string) => stdout += text);
  child.stderr!.setEncoding("utf8").on("data", (text: string) => stderr += text);
  const exited = new Promise<Exit>((resolve) => {
    child.once("close", (code, signal) => resolve({ code, signal }));
  });
  return { process: child, pid: child.pid, exited, stdout: () => stdout, stderr: () => stderr };
}

/** Path of the binary; throws when it is not what the source would give. */
function freshBinary(): string {
  newerThanBinary ??= newerThan(existsSync(BINARY) ? statSync(BINARY).mtimeMs : 0);
  if (newerThanBinary === "") return BINARY;
  throw new Error(`dist/shishi is missing or older than ${newerThanBinary}: npm run build`);
}

/** A file of the source that is newer than the binary, "" where none is; asked once. */
let newerThanBinary: string | null = null;

function newerThan(builtMs: number): string {
  const names = readdirSync(join(ROOT, "src"), { recursive: true, encoding: "utf8" });
  return names.map((name) => join("src", name)).find((name) => {
    const file = statSync(join(ROOT, name));
    return file.isFile() && file.mtimeMs > builtMs;
  }) ?? "";
}

function fromSource(entry: string): string[] {
  const main = join(ROOT, entry);
  return process.versions.deno === undefined
    ? [process.execPath, main]
    : [process.execPath, "run", "-A", "-q", "--config", join(ROOT, "deno.json"), main];
}

function encode(body: unknown): BodyInit {
  return typeof body === "string" || body instanceof Uint8Array
    ? body as BodyInit
    : JSON.stringify(body);
}

async function read(response: Response): Promise<Answer> {
  const text = await response.text();
  const [json] = parse(text);
  return { status: response.status, headers: response.headers, text, json: json ?? null };
}

function parseLines(text: string): Record<string, unknown>[] {
  return text.split("\n").flatMap((line) => parse(line)) as Record<string, unknown>[];
}

/** The value in an array, or an empty array where `text` is no JSON object or array. */
function parse(text: string): unknown[] {
  if (!/^\s*[[{]/.test(text)) return [];
  try {
    return [JSON.parse(text)];
  } catch {
    return [];
  }
}

/**
 * A server as a process of its own: started, waited for, killed, started again on the same port and
 * folder.
 *
 * Nothing may be left behind when the tests crash, whatever the server is. So beside each server
 * runs a guard: a shell that reads from a pipe which this process holds. When this process is gone,
 * however that came about, the pipe ends and the guard kills the server and deletes its folder.
 * Server and guard have their own session: Ctrl-C in a terminal reaches only who started them.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { removeDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";

export interface Server {
  readonly url: string;
  readonly port: number;
  /** Of the running process; 0 while it is killed. */
  readonly pid: number;
  /** SIGKILL; the data stays. Resolves when the process is gone. */
  kill(): Promise<void>;
  /** Starts again on the same port and folder. Resolves when it answers. */
  start(): Promise<void>;
  /** `kill`, then deletes the data. */
  close(): Promise<void>;
}

export interface Launch {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** Temporary folder of the server; deleted by `close`. The output goes to `output.log` in it. */
  readonly dir: string;
  readonly url: string;
  readonly port: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Returns when the server answers, throws while it does not. */
  readonly probe: () => Promise<void>;
  readonly withinMs?: number;
}

const GUARD = 'cat >/dev/null; kill -9 "$1" 2>/dev/null; sleep 0.2; rm -rf "$2"';

/** Starts what `launch` describes. Throws with the end of its output when it does not come up. */
export async function startServer(launch: Launch): Promise<Server> {
  const logPath = join(launch.dir, "output.log");
  let child: ChildProcess | null = null;
  let guard: Guard | null = null;
  let gone: Promise<void> = Promise.resolve();

  const start = async () => {
    if (child !== null) throw new Error(`${launch.name} is running already`);
    const log = openSync(logPath, "a");
    const born = spawn(launch.command, launch.args, {
      cwd: launch.dir,
      env: { ...process.env, ...launch.env },
      stdio: ["ignore", log, log],
      detached: true,
    });
    closeSync(log);
    let problem: string | null = null;
    gone = new Promise<void>((resolve) => {
      born.once("exit", (code, signal) => {
        problem ??= `ended with ${signal ?? code}`;
        resolve();
      });
      born.once("error", (error) => {
        problem ??= error.message;
        resolve();
      });
    });
    if (born.pid === undefined) {
      await gone;
      throw new Error(`${launch.name} could not be started: ${problem}`);
    }
    child = born;
    guard = startGuard(born.pid, launch.dir);
    try {
      await eventually(async () => {
        if (problem === null) await launch.probe();
      }, { withinMs: launch.withinMs ?? 20_000 });
      if (problem !== null) throw new Error(problem);
    } catch (cause) {
      await kill();
      throw new Error(
        `${launch.name} did not come up: ${(cause as Error).message}\n${tail(logPath)}`,
      );
    }
  };

  const kill = async () => {
    const dying = child;
    if (dying === null) return;
    child = null;
    await guard?.end();
    guard = null;
    dying.kill("SIGKILL");
    await gone;
  };

  try {
    await start();
  } catch (problem) {
    removeDir(launch.dir);
    throw problem;
  }
  return {
    url: launch.url,
    port: launch.port,
    get pid() {
      return child?.pid ?? 0;
    },
    kill,
    start,
    close: async () => {
      await kill();
      removeDir(launch.dir);
    },
  };
}

/** Servers that are started together: where one does not start, the others end, and its reason is thrown. */
export async function allOrNone<S extends Server>(starting: readonly Promise<S>[]): Promise<S[]> {
  const started = await Promise.allSettled(starting);
  const servers = started.flatMap((one) => one.status === "fulfilled" ? [one.value] : []);
  const failed = started.find((one) => one.status === "rejected");
  if (failed === undefined) return servers;
  await Promise.all(servers.map((server) => server.close()));
  throw failed.reason;
}

/**
 * The first of `paths` that exists; throws with the Debian package to install when none does. Another version is
 * tried by naming its program: `SHISHI_REDIS_SERVER=/path` for the package redis-server.
 */
export function programAt(paths: readonly string[], debianPackage: string): string {
  const named = process.env[`SHISHI_${debianPackage.toUpperCase().replaceAll("-", "_")}`];
  if (named !== undefined) return named;
  const found = paths.find((path) => existsSync(path));
  if (found === undefined) {
    throw new Error(`${paths[0]} is missing: sudo apt-get install ${debianPackage}`);
  }
  return found;
}

export interface Guard {
  /** Ends the guard and nothing else; to be awaited before the guarded process is ended. */
  end(): Promise<void>;
}

/** Kills process `pid` and deletes `dir` as soon as the calling process is gone. */
export function startGuard(pid: number, dir: string): Guard {
  const guard = spawn("/bin/sh", ["-c", GUARD, "guard", String(pid), dir], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  const gone = new Promise<void>((resolve) => guard.once("exit", () => resolve()));
  return {
    end: async () => {
      // SIGKILL, not the end of the pipe: at that one the guard does its work.
      guard.kill("SIGKILL");
      await gone;
      guard.stdin?.destroy();
    },
  };
}

function tail(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8").slice(-4000) : "";
}

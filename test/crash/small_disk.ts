/**
 * A disk of its own that can be filled, set read-only and emptied: a tmpfs in a temporary folder. To
 * mount one takes root. A guard unmounts it when this process is gone, however that came about.
 */
import { spawn, spawnSync } from "node:child_process";
import { appendFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";

export interface SmallDisk {
  readonly path: string;
  /** Somebody else's file takes all the room that is left. */
  fill(): void;
  /** That file is gone. */
  makeRoom(): void;
  /** Waits for a moment in which no file is open for writing. */
  readOnly(): Promise<void>;
  writable(): void;
  close(): void;
}

const GUARD = 'cat >/dev/null; umount -l "$1"; rmdir "$1"';

/** Throws a sentence where this process may not mount. */
export function mountSmallDisk(size: string): SmallDisk {
  const path = tempDir("disk");
  const problem = run("mount", "-t", "tmpfs", "-o", `size=${size},mode=700`, "tmpfs", path);
  if (problem !== null) {
    removeDir(path);
    throw new Error(
      `these tests need a small disk, and mounting a tmpfs (size=${size}) failed: ${problem}; ` +
        "run them as root, in a container with CAP_SYS_ADMIN",
    );
  }
  const guard = spawn("/bin/sh", ["-c", GUARD, "guard", path], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  const ballast = join(path, "ballast");
  return {
    path,
    fill() {
      writeFileSync(ballast, "");
      for (let bytes = 1 << 20; bytes > 0; bytes >>= 1) {
        for (;;) {
          try {
            appendFileSync(ballast, new Uint8Array(bytes));
          } catch {
            break;
          }
        }
      }
    },
    makeRoom() {
      truncateSync(ballast, 0);
      rmSync(ballast);
    },
    readOnly: () =>
      eventually(() => {
        const problem = run("mount", "-o", "remount,ro", path);
        if (problem !== null) throw new Error(problem);
      }, { withinMs: 10_000, everyMs: 3 }),
    writable() {
      const problem = run("mount", "-o", `remount,rw`, path);
      if (problem !== null) throw new Error(problem);
    },
    close() {
      guard.kill("SIGKILL");
      guard.stdin?.destroy();
      run("umount", "-l", path);
      removeDir(path);
    },
  };
}

/** Null when it went well, else what the program said. */
function run(command: string, ...args: readonly string[]): string | null {
  const { status, stderr, error } = spawnSync(command, args, { encoding: "utf8" });
  if (status === 0) return null;
  return error?.message ?? (stderr.trim() || `${command} ended with ${status}`);
}

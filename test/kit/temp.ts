/**
 * Temporary folders and files of tests. All names begin with `shishi-test-`, so that whatever a
 * crash left behind is recognised.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A new empty folder. */
export function tempDir(label = "dir"): string {
  return mkdtempSync(join(tmpdir(), `shishi-test-${label}-`));
}

/** A new file with `content` in a folder of its own. */
export function tempFile(name: string, content: string | Uint8Array): string {
  const path = join(tempDir("file"), name);
  writeFileSync(path, content);
  return path;
}

/** Deletes a folder and all in it; silent when it is gone already. */
export function removeDir(path: string): void {
  rmSync(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
}

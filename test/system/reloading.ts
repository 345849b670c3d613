/** A collector whose settings are in a file, and that is told to read them again. */
import assert from "node:assert/strict";
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Shishi, type Start, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";

/** Names and values as a TOML file has them. */
export type Wishes = Readonly<Record<string, string | number | boolean | readonly string[]>>;
export type Line = Record<string, unknown>;

const WITHIN_MS = 30_000;
/** What ends a reload. */
const ENDS = /^(reloaded$|reload: (nothing|unusable|not taken|no settings|the collector))/;

export interface Reloading {
  readonly shishi: Shishi;
  readonly dir: string;
  /** Puts a file beside the settings; the path. */
  file(name: string, text: string): string;
  /** The settings of the next reload. */
  write(wishes: Wishes): void;
  /** SIGHUP; the lines that it brought, when it has ended. */
  reload(): Promise<Line[]>;
  /** Both; throws unless all of it was taken, or waits for a restart. */
  set(wishes: Wishes): Promise<Line[]>;
  close(): Promise<void>;
}

/** @param base what each `write` begins with. */
export async function startReloading(
  base: (file: Reloading["file"]) => Wishes,
  start: Start = {},
): Promise<Reloading> {
  const dir = tempDir("reload");
  const path = join(dir, "shishi.toml");
  const file = (name: string, text: string) => {
    const path = join(dir, name);
    // As certbot and kubelet do: whole, or not at all.
    writeFileSync(`${path}.new`, text);
    renameSync(`${path}.new`, path);
    return path;
  };
  const always = base(file);
  const write = (wishes: Wishes) => {
    const all = Object.entries({ ...always, ...wishes });
    file(
      "shishi.toml",
      all.map(([name, value]) => `${name} = ${JSON.stringify(value)}\n`).join(""),
    );
  };
  write({});
  const args = [...start.args ?? [], "--config", path];
  const shishi = await startShishi({ ...start, args });

  async function reload(): Promise<Line[]> {
    const before = shishi.lines().length;
    shishi.signal("SIGHUP");
    return await eventually(() => {
      const lines = shishi.lines().slice(before);
      assert.ok(lines.some(({ message }) => ENDS.test(String(message))), shishi.stderr());
      return lines;
    }, { withinMs: WITHIN_MS, everyMs: 5 });
  }

  return {
    shishi,
    dir,
    file,
    write,
    reload,
    async set(wishes) {
      write(wishes);
      const lines = await reload();
      assert.deepEqual(lines.filter(({ level }) => level === "error"), []);
      return lines;
    },
    async close() {
      await shishi.close();
      removeDir(dir);
    },
  };
}

/** The fields of the lines with this message. */
export function told(lines: readonly Line[], message: string): Line[] {
  return lines.filter((line) => line["message"] === message);
}

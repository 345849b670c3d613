/**
 * The data folder: there or can be made, whose it is, whose lock, and the disk below it. A file of a few
 * kilobytes is written beside the others and removed at once; that is the only trace, and a short one.
 */

import { stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import process from "node:process";
import { codeOf, reasonOf } from "../../kernel/errors.ts";
import { holderOf as ownerOfLock } from "../../spool/lock.ts";
import type { Settings } from "../../settings/settings.ts";
import { lookAtDisk } from "./disk.ts";
import { about, type Finding } from "./finding.ts";

export async function lookAtDataDir(settings: Settings): Promise<Finding[]> {
  const { dataDir } = settings;
  const is = about(`data-dir ${dataDir}`);
  let there;
  try {
    there = await stat(dataDir);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") return [is.wrong(reasonOf(error), whatToDo(error, dataDir))];
    return await lookAbove(settings);
  }
  if (!there.isDirectory()) return [is.wrong("is no folder", "name another one")];
  const lock = await lookAtLock(dataDir);
  return [...ownerOf(there, dataDir), ...lock, ...await lookAtDisk(dataDir, settings)];
}

/** The folder is not there yet: then the one above has to take it. */
async function lookAbove(settings: Settings): Promise<Finding[]> {
  const { dataDir } = settings;
  const is = about(`data-dir ${dataDir}`);
  let above = dirname(resolve(dataDir));
  while (true) {
    try {
      await stat(above);
      return [is.ok(`not there; will be made in ${above}`), ...await lookAtDisk(above, settings)];
    } catch (error) {
      if (codeOf(error) === "ENOENT" && dirname(above) !== above) above = dirname(above);
      else return [is.wrong(`cannot be made: ${reasonOf(error)}`, whatToDo(error, dataDir))];
    }
  }
}

function ownerOf({ uid, mode }: { uid: number; mode: number }, dataDir: string): Finding[] {
  // Windows tells neither whose a folder is nor who else may write there.
  if (process.getuid === undefined) return [];
  const is = about(`data-dir ${dataDir}`);
  const bits = (mode & 0o777).toString(8).padStart(3, "0");
  const me = process.getuid();
  const findings = [
    uid === me ? is.ok(`mine, mode ${bits}`) : is.warning(
      `belongs to user ${uid}, and this runs as ${me}: files that one makes may be closed to the other`,
      `run shishi as user ${uid}, or chown -R ${me} ${dataDir}`,
    ),
  ];
  if ((mode & 0o022) !== 0) {
    findings.push(is.warning(`others may write there (mode ${bits})`, `chmod 700 ${dataDir}`));
  }
  return findings;
}

async function lookAtLock(dataDir: string): Promise<Finding[]> {
  const is = about(`lock of ${dataDir}`);
  const holder = await holderOf(dataDir);
  if (holder === null) return [];
  if ("problem" in holder) return [is.wrong(holder.problem)];
  const { pid, alive, host } = holder;
  if (alive === "unknown") {
    return [
      is.ok(
        `held by pid ${pid} in another container or on ${host}, which cannot be seen from here`,
      ),
    ];
  }
  return [
    is.ok(
      alive ? `held by a running collector, pid ${pid}` : `left by pid ${pid}, gone; taken over`,
    ),
  ];
}

export interface Holder {
  readonly pid: number;
  readonly host: string;
  readonly alive: boolean | "unknown";
}

/** Who holds the folder; null when nobody does. */
export async function holderOf(
  dataDir: string,
): Promise<Holder | { readonly problem: string } | null> {
  try {
    const owner = await ownerOfLock(dataDir);
    return owner && { ...owner, host: owner.host || "another host" };
  } catch (error) {
    return { problem: reasonOf(error) };
  }
}

/** For an error of the disk. */
export function whatToDo(error: unknown, dataDir: string): string {
  const user = process.getuid?.() ?? "the user that runs shishi";
  switch (codeOf(error)) {
    case "EACCES":
    case "EPERM":
      return `chown -R ${user} ${dataDir}, or name another data-dir`;
    case "EROFS":
      return "mount that disk writable, or name another data-dir";
    case "ENOSPC":
    case "EDQUOT":
      return "make room there, or name another data-dir";
    default:
      return "name another data-dir";
  }
}

/**
 * The soak of power cuts: on each file system one life with the binary that users run and one with journal
 * files of 64 KiB, so that they are recycled, and many cuts of each.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { seeded } from "../kit/faulty_bytes.ts";
import { crashBinary } from "./binary.ts";
import { type Cut, cutAt, live, positionsOf } from "./power_cut.ts";
import { FILE_SYSTEMS } from "./power_disk.ts";

const PREPARE = fileURLToPath(new URL("../kit/prepare.mjs", import.meta.url));
const CLIENTS = 16;
const LOAD_MS = 6_000;
const TELL_MS = 5_000;

export interface SoakPower {
  readonly systems: readonly string[];
  /** Of each life. */
  readonly cuts: number;
  readonly seed: number;
}

/** @returns the exit code. */
export async function soakPower({ systems, cuts, seed }: SoakPower): Promise<number> {
  const odd = systems.filter((system) => !FILE_SYSTEMS.includes(system));
  if (odd.length > 0) {
    console.error(`soak: --file-system wants some of ${FILE_SYSTEMS.join()}, got ${odd.join()}`);
    return 2;
  }
  const packages = ["--servers=e2fsprogs,xfsprogs,btrfs-progs,mount,python3-pip"];
  const { status } = spawnSync("node", [PREPARE, ...packages], { stdio: "inherit" });
  if (status !== 0) return 1;
  console.log(`soak: seed ${seed}, ${cuts} power cuts of each life, on ${systems.join()}`);
  for (const system of systems) {
    for (const small of [false, true]) {
      if (!await cutsOf({ system, small, cuts, seed })) return 1;
    }
  }
  console.log(`soak: all that was acknowledged is there, once, after each cut; seed ${seed}`);
  return 0;
}

interface Lived {
  readonly system: string;
  /** Journal files are. */
  readonly small: boolean;
  readonly cuts: number;
  readonly seed: number;
}

/** @returns whether all went well. */
async function cutsOf({ system, small, cuts, seed }: Lived): Promise<boolean> {
  const random = seeded(seed);
  const binary = small ? crashBinary() : true;
  const what = `${system}, journal files of ${small ? "64 KiB" : "16 MiB"}`;
  const life = await live({ system, binary, clients: CLIENTS, loadMs: LOAD_MS, random });
  const flushes = life.log.records.slice(life.from, life.to).filter((write) => write === null);
  console.log(
    `soak: ${what}: ${life.to - life.from} records on disk, ${flushes.length} of them flushes, ` +
      `${life.writes.length} requests, ${life.blocks.length} blocks stored`,
  );
  const seen: Cut[] = [];
  const beganMs = performance.now();
  let toldMs = beganMs;
  const tell = () => console.log(`soak: ${what}: ${figures(seen, performance.now() - beganMs)}`);
  try {
    for (const position of positionsOf(life, cuts, random)) {
      const chance = seeded(seed + position);
      try {
        seen.push(await cutAt(life, position, chance));
      } catch (problem) {
        console.error(`soak: FAILED at record ${position} of ${what}, --seed ${seed}:`, problem);
        return false;
      }
      if (performance.now() - toldMs < TELL_MS) continue;
      toldMs = performance.now();
      tell();
    }
    tell();
    return true;
  } finally {
    life.log.close();
    life.remove();
  }
}

function figures(seen: readonly Cut[], tookMs: number): string {
  const sum = (of: (cut: Cut) => number) => seen.reduce((total, cut) => total + of(cut), 0);
  const most = seen.reduce((most, { acknowledged }) => Math.max(most, acknowledged), 0);
  return `${seen.length} cuts in ${Math.round(tookMs / 1000)} s; ` +
    `${sum(({ leftover }) => leftover.unsafe)} unsafe writes, ` +
    `${sum(({ leftover }) => leftover.unsafe > 0 ? 1 : 0)} cuts with some; ` +
    `acknowledged ${most} at most, recovered ${sum(({ recovered }) => recovered)}, ` +
    `torn ${sum(({ torn }) => torn)}, ` +
    `duplicates ${sum(({ duplicates }) => duplicates)}, resent ${sum(({ resent }) => resent)}`;
}

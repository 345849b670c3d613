/**
 * The collector with a disk that kills the process: before, or right after, the n-th operation of a
 * kind. `KILL_AT=sync:3:after` in the environment; everything else as in `shishi serve`.
 */
import process from "node:process";
import type { Files, OpenFile, PlacedFile } from "../../src/contracts.ts";
import { startCollector } from "../../src/collector.ts";
import { settingsOrExitCode } from "../../src/commands/cli.ts";
import { nodeFiles } from "../../src/runtime/files.ts";
import { createLog } from "../../src/runtime/log.ts";
import { openBroker } from "../../src/sources/brokers.ts";
import { openTcpBroker } from "./tcp_broker.ts";

const [operation = "", times = "1", when = "before"] = (process.env.KILL_AT ?? "").split(":");
let left = Number(times);

/** Runs `work`; the process may not see its end. */
async function killing<T>(name: string, work: () => Promise<T>): Promise<T> {
  const due = name === operation && --left === 0;
  if (due && when === "before") process.kill(process.pid, "SIGKILL");
  const result = await work();
  if (due) process.kill(process.pid, "SIGKILL");
  return result;
}

function deadly(file: OpenFile): OpenFile {
  return {
    get bytes() {
      return file.bytes;
    },
    write: (data) => {
      if (operation === "write" && when === "half" && --left === 0) {
        return file.write(data.subarray(0, data.length >> 1))
          .then(() => void process.kill(process.pid, "SIGKILL"));
      }
      return killing("write", () => file.write(data));
    },
    sync: () => killing("sync", () => file.sync()),
    truncate: (bytes) => killing("truncate", () => file.truncate(bytes)),
    close: () => killing("close", () => file.close()),
  };
}

function deadlyPlaced(file: PlacedFile): PlacedFile {
  const write = (data: Uint8Array, at: number) => {
    if (operation === "write" && when === "half" && --left === 0) {
      return file.write(data.subarray(0, data.length >> 1), at)
        .then(() => void process.kill(process.pid, "SIGKILL"));
    }
    return killing("write", () => file.write(data, at));
  };
  return {
    get bytes() {
      return file.bytes;
    },
    write,
    // In two steps, between which the process may end as well.
    writeSafe: async (data, at) => {
      await write(data, at);
      await killing("sync", () => file.sync());
    },
    sync: () => killing("sync", () => file.sync()),
    close: () => killing("close", () => file.close()),
  };
}

const files: Files = {
  ...nodeFiles,
  create: (path) => killing("create", async () => deadly(await nodeFiles.create(path))),
  append: (path) => killing("append", async () => deadly(await nodeFiles.append(path))),
  overwrite: (path) =>
    killing("overwrite", async () => deadlyPlaced(await nodeFiles.overwrite(path))),
  readPart: (path, from, to) => killing("read", () => nodeFiles.readPart(path, from, to)),
  read: (path) => killing("read", () => nodeFiles.read(path)),
  rename: (from, to) => killing("rename", () => nodeFiles.rename(from, to)),
  remove: (path) => killing("remove", () => nodeFiles.remove(path)),
  syncFolder: (path) => killing("syncFolder", () => nodeFiles.syncFolder(path)),
};

/** A function, because a binary with bytecode has no `await` outside of one. */
async function main(): Promise<number> {
  const loaded = settingsOrExitCode(process.argv.slice(2));
  if (typeof loaded === "number") return loaded;
  const collector = await startCollector({
    settings: loaded.settings,
    log: createLog("info", "json"),
    files,
    // So small that files are recycled within a test.
    journalFileBytes: 64 * 1024,
    // Databases are the real ones.
    openBroker: (address, deps) =>
      address.broker === "outbox"
        ? openBroker(address, deps)
        : Promise.resolve(openTcpBroker(address.hosts[0]!.port)),
  });
  process.once("SIGTERM", () => void collector.control.stop("SIGTERM"));
  await collector.finished;
  return 0;
}

void main().then((code) => process.exit(code));

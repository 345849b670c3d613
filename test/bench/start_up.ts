/** The collector with nothing to do: how soon it answers, what memory it takes, how large it is. */
import { spawn } from "node:child_process";
import { statSync } from "node:fs";
import { connect } from "node:net";
import { freePort } from "../kit/free_port.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { pause } from "../kit/wait.ts";
import { startGuard } from "../servers/process.ts";
import { on, residentBytes } from "./cores.ts";
import type { Sink } from "./sinks.ts";
import type { Stage } from "./stage.ts";
import { argsFor, BINARY, startCollector } from "./subjects.ts";

export interface StartSample {
  readonly starts: number;
  readonly firstAnswerMinMs: number;
  readonly firstAnswerMedianMs: number;
  /** Of the other build, in turns; null where none was asked for. */
  readonly otherMedianMs: number | null;
  readonly idleRssBytes: number;
  readonly binaryBytes: number;
}

const ANSWERS_WITHIN_MS = 20_000;

export async function measureStart(
  sink: Sink,
  { starts, idleMs }: { readonly starts: number; readonly idleMs: number },
  stage: Stage,
  other: string | null,
): Promise<StartSample> {
  const times: number[] = [], otherTimes: number[] = [];
  for (let n = 0; n < starts; n++) {
    times.push(await firstAnswerMs(sink, stage, BINARY));
    if (other !== null) otherTimes.push(await firstAnswerMs(sink, stage, other));
  }
  for (const list of [times, otherTimes]) list.sort((a, b) => a - b);
  const collector = await startCollector(sink, "disk", stage);
  await pause(idleMs);
  const idleRssBytes = residentBytes(collector.pid).bytes;
  await collector.close();
  return {
    starts,
    firstAnswerMinMs: times[0]!,
    firstAnswerMedianMs: times[Math.floor(times.length / 2)]!,
    otherMedianMs: otherTimes[Math.floor(otherTimes.length / 2)] ?? null,
    idleRssBytes,
    binaryBytes: statSync(BINARY).size,
  };
}

/** From before the process is made until `/healthz` has answered 200; an empty data folder. */
async function firstAnswerMs(sink: Sink, stage: Stage, binary: string): Promise<number> {
  const port = await freePort();
  const dir = tempDir("start");
  const [command, args] = on("server", binary, [
    ...argsFor(sink, "disk"),
    ...["--listen", `127.0.0.1:${port}`],
  ]);
  const beganMs = performance.now();
  const child = spawn(command, args, { cwd: dir, stdio: "ignore", detached: true });
  let ended = false;
  const gone = new Promise<void>((resolve) => {
    for (const event of ["exit", "error"]) {
      child.once(event, () => {
        ended = true;
        resolve();
      });
    }
  });
  const guard = child.pid === undefined ? null : startGuard(child.pid, dir);
  const end = stage.keep(async () => {
    await guard?.end();
    child.kill("SIGKILL");
    await gone;
    removeDir(dir);
  });
  let takenMs = Infinity;
  while (!ended && performance.now() - beganMs < ANSWERS_WITHIN_MS) {
    if (await answers(port)) {
      takenMs = performance.now() - beganMs;
      break;
    }
    await pause(0);
  }
  await end();
  if (takenMs === Infinity) throw new Error("dist/shishi did not answer after its start");
  return takenMs;
}

/** A socket of our own: what a client library does before the first byte is no part of the start. */
function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => {
      socket.write("GET /healthz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    });
    const done = (yes: boolean) => {
      socket.destroy();
      resolve(yes);
    };
    socket.once("data", (data) => done(String(data).startsWith("HTTP/1.1 200")));
    socket.once("error", () => done(false));
    socket.once("close", () => done(false));
  });
}

/** `worker.ts URL`: squares numbers until it hears `Exit`. */
import process from "node:process";
import { NUMBERS, openWork, SQUARES } from "./work.ts";

const work = openWork(process.argv[2] ?? "");
const { exit } = await work.listen();
await work.turn(
  NUMBERS,
  SQUARES,
  (text) => JSON.stringify({ n: Number(text), square: Number(text) ** 2 }),
);
console.log("ready");
await exit;
await work.close();
console.log("told to exit");

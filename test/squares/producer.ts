/** `producer.ts URL FROM TO`: numbers, in packs, for the workers. */
import process from "node:process";
import { NUMBERS, openWork } from "./work.ts";

const [url = "", from, to] = process.argv.slice(2);
const work = openWork(url);
for (let n = Number(from); n <= Number(to); n += 100) {
  const last = Math.min(n + 99, Number(to));
  await work.give(NUMBERS, Array.from({ length: last - n + 1 }, (_, at) => String(n + at)));
}
await work.close();

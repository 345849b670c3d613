/**
 * `kafka_stray.ts [own]`: the Kafka client throws in a timer of its own, and with `own` this script does so too.
 * Tells what was logged, and whether it lives.
 */
import process from "node:process";
import { loadLibrary } from "../../src/sources/kafka_client.ts";

const silent = () => {};
const error = (message: string) => console.log(`logged: ${message}`);
const { Consumer } = await loadLibrary({ debug: silent, info: silent, warn: silent, error });
const consumer = new Consumer({
  clientId: "stray",
  groupId: "stray",
  bootstrapBrokers: ["127.0.0.1:1"],
  retries: 0,
});
consumer.isActive = () => {
  throw new RangeError("Maximum call stack size exceeded");
};
consumer.startLagMonitoring({ topics: ["t"] }, 1);
setTimeout(() => {
  console.log("alive");
  consumer.stopLagMonitoring();
  if (process.argv.includes("own")) setTimeout(() => JSON.parse("{"), 1);
  setTimeout(() => process.exit(0), 200);
}, 100);

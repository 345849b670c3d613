/**
 * Several Kafkas that are one cluster: each is broker and controller, what groups have committed lies on all of
 * them, and a partition may be replicated to all.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { freePort } from "../kit/free_port.ts";
import { tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { isFetched, javaArguments, makeFolder, settingsOf } from "./kafka_jars.mjs";
import { allOrNone, programAt, type Server, startServer } from "./process.ts";
import { reach } from "./reach.ts";

export interface KafkaNode extends Server {
  /** `node.id`, from 1 on. */
  readonly id: number;
  /** An orderly end (SIGTERM): it hands over what it leads first. Resolves when the process is gone. */
  stop(): Promise<void>;
}

/** They find each other while they start, so all are begun at once. */
export async function startKafkaCluster(count = 3): Promise<readonly KafkaNode[]> {
  const java = programAt(
    ["/usr/lib/jvm/java-17-openjdk-amd64/bin/java", "/usr/bin/java"],
    "openjdk-17-jre-headless",
  );
  if (!isFetched()) throw new Error("Kafka is missing: node test/kit/prepare.mjs --kafka");
  const ports = await Promise.all(Array.from({ length: 2 * count }, freePort));
  const controllers = ports.splice(0, count);
  const shared = `
controller.quorum.voters=${controllers.map((port, at) => `${at + 1}@127.0.0.1:${port}`).join(",")}
controller.quorum.fetch.timeout.ms=1000
controller.quorum.election.timeout.ms=500
offsets.topic.replication.factor=${count}
default.replication.factor=${count}
min.insync.replicas=1
replica.lag.time.max.ms=2000
replica.fetch.wait.max.ms=100`;
  return await allOrNone(ports.map(async (port, at): Promise<KafkaNode> => {
    const id = at + 1;
    const dir = tempDir("kafka");
    makeFolder(
      dir,
      settingsOf({ plain: port, controller: controllers[at] }, port, `node.id=${id}${shared}`),
    );
    // The folder was formatted for one that is alone.
    const meta = join(dir, "data/meta.properties");
    const own = readFileSync(meta, "utf8").replace(/^node\.id=.*$/m, `node.id=${id}`)
      .replace(/^directory\.id=.*$/m, `directory.id=${"A".repeat(20)}${id}w`);
    writeFileSync(meta, own);
    const server = await startServer({
      name: `Kafka ${id}`,
      command: java,
      args: javaArguments("kafka.Kafka", "server.properties"),
      dir,
      url: `kafka://127.0.0.1:${port}`,
      port,
      probe: () => reach(port),
      withinMs: 60_000,
    });
    const stop = async () => {
      const { pid } = server;
      process.kill(pid, "SIGTERM");
      // One that has ended is there for as long as it is not waited for.
      await eventually(() => {
        if (!/^\d+ \([^)]*\) Z/.test(statOf(pid))) throw new Error(`Kafka ${id} has not ended`);
      }, { withinMs: 30_000 });
      await server.kill();
    };
    return Object.defineProperties({ id, stop } as KafkaNode, {
      ...Object.getOwnPropertyDescriptors(server),
    });
  }));
}

/** Of a process that is gone as of one that has ended. */
function statOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return "0 () Z";
  }
}

/** Several nats-servers that are one cluster, with JetStream: a stream may be on all of them. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../kit/free_port.ts";
import { tempDir } from "../kit/temp.ts";
import { allOrNone, programAt, type Server, startServer } from "./process.ts";
import { reach } from "./reach.ts";

export interface NatsNode extends Server {
  /** As the cluster calls it: `n1`, … */
  readonly name: string;
  /** `nats://127.0.0.1:PORT`. */
  readonly url: string;
  readonly websocketUrl: string;
}

/** Each answers; whether the cluster has a leader yet is another question. */
export async function startNatsCluster(count = 3): Promise<readonly NatsNode[]> {
  const command = programAt(["/usr/sbin/nats-server", "/usr/bin/nats-server"], "nats-server");
  const routes = await Promise.all(Array.from({ length: count }, freePort));
  const all = routes.map((port) => `"nats://127.0.0.1:${port}"`).join(", ");
  return await allOrNone(routes.map(async (route, at): Promise<NatsNode> => {
    const name = `n${at + 1}`;
    const dir = tempDir("nats");
    const [port, websocket] = [await freePort(), await freePort()];
    const file = join(dir, "nats.conf");
    writeFileSync(
      file,
      `server_name: ${name}
listen: "127.0.0.1:${port}"
websocket { listen: "127.0.0.1:${websocket}", no_tls: true }
jetstream { store_dir: "js" }
cluster { name: test, listen: "127.0.0.1:${route}", routes: [${all}] }
`,
    );
    const server = await startServer({
      name: `nats-server ${name}`,
      command,
      args: ["-c", file],
      dir,
      url: `nats://127.0.0.1:${port}`,
      port,
      probe: () => reach(port),
    });
    const own = { name, websocketUrl: `ws://127.0.0.1:${websocket}` };
    return Object.defineProperties(own as NatsNode, {
      ...Object.getOwnPropertyDescriptors(server),
    });
  }));
}

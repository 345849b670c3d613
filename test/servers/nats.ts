/** nats-server with its websocket open; `config` is appended to its configuration. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../kit/free_port.ts";
import { tempDir } from "../kit/temp.ts";
import { programAt, type Server, startServer } from "./process.ts";
import { reach } from "./reach.ts";

export interface Nats extends Server {
  /** `ws://127.0.0.1:PORT`; `port` is the same one. */
  readonly url: string;
  /** Where clients without websocket connect. */
  readonly natsPort: number;
}

/**
 * Starts a server, e.g. with `config` = `authorization { token: "t" }`. Without JetStream, which in
 * operator mode needs a system account; `config` may open it. @param websocket may bring TLS.
 */
export async function startNats(config = "", websocket = "no_tls: true"): Promise<Nats> {
  const command = programAt(["/usr/sbin/nats-server", "/usr/bin/nats-server"], "nats-server");
  const dir = tempDir("nats");
  const port = await freePort();
  const natsPort = await freePort();
  const file = join(dir, "nats.conf");
  writeFileSync(
    file,
    `listen: "127.0.0.1:${natsPort}"
websocket { listen: "127.0.0.1:${port}", ${websocket} }
${config}
`,
  );
  const server = await startServer({
    name: "nats-server",
    command,
    args: ["-c", file],
    dir,
    url: `ws://127.0.0.1:${port}`,
    port,
    probe: async () => {
      await reach(natsPort);
      await reach(port);
    },
  });
  return Object.defineProperties({ natsPort } as Nats, {
    ...Object.getOwnPropertyDescriptors(server),
  });
}

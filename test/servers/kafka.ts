/**
 * Apache Kafka, one node that is broker and controller, with a listener for each way in: PLAIN, SASL over TLS
 * (SCRAM and PLAIN), TLS with client certificates, OAUTHBEARER. Topics are made when they are asked for first,
 * with two partitions.
 */
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { CERTIFICATE, SIGNED_CERTIFICATE, SIGNED_KEY } from "../kit/certificate.ts";
import { CLIENT_CA } from "../kit/client_certificate.ts";
import { freePort } from "../kit/free_port.ts";
import { tempDir } from "../kit/temp.ts";
import { isFetched, javaArguments, makeFolder, settingsOf, USER } from "./kafka_jars.mjs";
import { programAt, type Server, startServer } from "./process.ts";
import { reach } from "./reach.ts";

export interface Kafka extends Server {
  /** `kafka://127.0.0.1:PORT`: no login, no TLS. */
  readonly url: string;
  /** TLS by the authority `CERTIFICATE`; SCRAM-SHA-256, SCRAM-SHA-512 and PLAIN know `user`. */
  readonly saslPort: number;
  /** TLS that asks for a certificate of `CLIENT_CA`. */
  readonly tlsPort: number;
  /** Unsigned tokens (`alg` none). */
  readonly oauthPort: number;
  readonly user: { readonly name: string; readonly password: string };
  /** Stops it where it stands (SIGSTOP): connections stay, nothing is answered. */
  freeze(): void;
  thaw(): void;
  /** Runs one of Kafka's own tools in a JVM of its own; what it printed. Throws that when it fails. */
  tool(main: string, args: readonly string[], input?: string): Promise<string>;
}

/**
 * @param options.settings more lines of its `server.properties`, which count over those that are there.
 * @param options.front what stands before the port without login, e.g. a proxy; is told that port and says its own, the
 * one that clients use.
 */
export async function startKafka(
  { settings = "", front = (port) => Promise.resolve(port) }: {
    readonly settings?: string;
    readonly front?: (port: number) => Promise<number>;
  } = {},
): Promise<Kafka> {
  const java = programAt(
    ["/usr/lib/jvm/java-17-openjdk-amd64/bin/java", "/usr/bin/java"],
    "openjdk-17-jre-headless",
  );
  if (!isFetched()) throw new Error("Kafka is missing: node test/kit/prepare.mjs --kafka");
  const dir = tempDir("kafka");
  const [port, saslPort, tlsPort, oauthPort, controller] = await Promise.all(
    Array.from({ length: 5 }, freePort),
  );
  const ports = { plain: port, sasl: saslPort, tls: tlsPort, oauth: oauthPort, controller };
  const shown = await front(port!);
  makeFolder(dir, settingsOf(ports, shown, settings));
  writeFileSync(join(dir, "server.pem"), SIGNED_CERTIFICATE + CERTIFICATE + SIGNED_KEY);
  writeFileSync(join(dir, "clients.pem"), CLIENT_CA);
  const server = await startServer({
    name: "Kafka",
    command: java,
    args: javaArguments("kafka.Kafka", "server.properties"),
    dir,
    url: `kafka://127.0.0.1:${shown}`,
    port: shown,
    // It listens when all else is done.
    probe: () => reach(port!),
    withinMs: 40_000,
  });
  const signal = (name: "SIGSTOP" | "SIGCONT") => {
    if (server.pid !== 0) process.kill(server.pid, name);
  };
  const own = {
    saslPort,
    tlsPort,
    oauthPort,
    user: USER,
    freeze: () => signal("SIGSTOP"),
    thaw: () => signal("SIGCONT"),
    tool: (main: string, args: readonly string[], input = "") =>
      run(java, javaArguments(main, ...args), dir, input),
  };
  return Object.defineProperties(own as Kafka, { ...Object.getOwnPropertyDescriptors(server) });
}

function run(
  command: string,
  args: readonly string[],
  cwd: string,
  input: string,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, stdio: ["pipe", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => output += text);
    }
    child.stdin.on("error", () => {}).end(input);
    child.once("error", reject);
    child.once("close", (code) => code === 0 ? resolve(output) : reject(new Error(output)));
  });
}

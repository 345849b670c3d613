/**
 * RabbitMQ, one node that knows no other, with a port in the clear and one with TLS, and a way to ask inside of
 * it: `rabbitmqctl` would take two seconds of a core for each question, Erlang's own small client takes none.
 *
 * A node is found by a daemon of Erlang's, epmd, which is a process of its own here, with its own port.
 */
import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { CERTIFICATE, SIGNED_CERTIFICATE, SIGNED_KEY } from "../kit/certificate.ts";
import { CLIENT_CA } from "../kit/client_certificate.ts";
import { freePort } from "../kit/free_port.ts";
import { tempDir } from "../kit/temp.ts";
import { programAt, type Server, startServer } from "./process.ts";
import { reach } from "./reach.ts";

export interface RabbitMq extends Server {
  /** `amqp://USER:PASSWORD@127.0.0.1:PORT`: the vhost `/`. */
  readonly url: string;
  /** TLS by the authority `CERTIFICATE`; a certificate of `CLIENT_CA` is taken and not asked for. */
  readonly tlsPort: number;
  /** May do everything; there is no `guest`. */
  readonly user: { readonly name: string; readonly password: string };
  /** Stops it where it stands (SIGSTOP): connections stay, nothing is answered. */
  freeze(): void;
  thaw(): void;
  /** The value of an expression in Erlang, evaluated inside of it, as Erlang writes it. Throws what it throws. */
  erlang(expression: string): Promise<string>;
  /** Messages of a queue of the vhost `/` that are not acknowledged, given to a consumer or not. */
  messages(queue: string): Promise<number>;
  /** Ends every connection, as an operator does. */
  cut(): Promise<void>;
}

const USER = { name: "shishi", password: "geheim" };
/** Of nobody else's node, which must not be found either. */
const COOKIE = `shishi-test-${process.pid}`;

/** @param config more lines of its `rabbitmq.conf`. */
export async function startRabbitMq(config = ""): Promise<RabbitMq> {
  // Debian's own script in front of it would change the user.
  const command = programAt(["/usr/lib/rabbitmq/bin/rabbitmq-server"], "rabbitmq-server");
  const ask = programAt(["/usr/bin/erl_call", "/usr/lib/erlang/bin/erl_call"], "erlang-base");
  const [port, tlsPort, nodes, epmdPort] = await Promise.all(
    Array.from({ length: 4 }, freePort),
  ) as [number, number, number, number];
  const node = `shishi${port}@localhost`;
  const epmd = await startEpmd(epmdPort);
  const dir = tempDir("rabbitmq");
  const env = { ERL_EPMD_ADDRESS: "127.0.0.1", ERL_EPMD_PORT: String(epmdPort), HOME: dir };
  const server = await startServer({
    name: "RabbitMQ",
    command,
    args: [],
    dir,
    url: `amqp://${USER.name}:${USER.password}@127.0.0.1:${port}`,
    port,
    env: { ...env, ...settle(dir, { node, port, tlsPort, nodes, config }) },
    // The port for TLS is the last thing that it opens.
    probe: () => reach(tlsPort),
    withinMs: 60_000,
  }).catch(async (problem) => {
    await epmd.close();
    throw problem;
  });
  const signal = (name: "SIGSTOP" | "SIGCONT") => {
    if (server.pid !== 0) process.kill(server.pid, name);
  };
  const erlang = async (expression: string) => {
    const args = ["-sname", node, "-c", COOKIE, "-e"];
    const answer = await run(ask, args, { ...process.env, ...env }, `${expression}.\n`);
    const value = /^\{ok, ([\s\S]*)\}\s*$/.exec(answer)?.[1];
    if (value === undefined) throw new Error(`${expression}: ${answer}`);
    return value;
  };
  const own = {
    tlsPort,
    user: USER,
    freeze: () => signal("SIGSTOP"),
    thaw: () => signal("SIGCONT"),
    erlang,
    async messages(queue: string) {
      const name = `rabbit_misc:r(<<"/">>, queue, <<"${queue}">>)`;
      const found =
        `{ok, Q} = rabbit_amqqueue:lookup(${name}), rabbit_amqqueue:info(Q, [messages])`;
      const text = await erlang(found);
      return Number(/messages,\s*(\d+)/.exec(text)?.[1] ?? NaN);
    },
    async cut() {
      const each = "P <- rabbit_networking:local_connections()";
      await erlang(`[rabbit_networking:close_connection(P, "cut by the test") || ${each}]`);
    },
  };
  return Object.defineProperties(own as RabbitMq, {
    ...Object.getOwnPropertyDescriptors(server),
    close: {
      value: async () => {
        await server.close();
        await epmd.close();
      },
    },
  });
}

function startEpmd(port: number): Promise<Server> {
  return startServer({
    name: "epmd",
    command: programAt(["/usr/bin/epmd", "/usr/lib/erlang/bin/epmd"], "erlang-base"),
    args: ["-port", String(port), "-address", "127.0.0.1"],
    dir: tempDir("epmd"),
    url: "",
    port,
    probe: () => reach(port),
  });
}

/** Writes its files. @returns what its environment has to say. */
function settle(dir: string, { node, port, tlsPort, nodes, config }: {
  readonly node: string;
  readonly port: number;
  readonly tlsPort: number;
  /** Where other nodes would come in. */
  readonly nodes: number;
  readonly config: string;
}): Record<string, string> {
  const at = (name: string) => join(dir, name);
  mkdirSync(at("mnesia"));
  mkdirSync(at("log"));
  writeFileSync(at("server.pem"), SIGNED_CERTIFICATE + CERTIFICATE);
  writeFileSync(at("server.key"), SIGNED_KEY);
  writeFileSync(at("clients.pem"), CLIENT_CA);
  writeFileSync(at("plugins"), "[].");
  writeFileSync(at("env.conf"), "");
  writeFileSync(
    at("rabbitmq.conf"),
    `listeners.tcp.1 = 127.0.0.1:${port}
listeners.ssl.1 = 127.0.0.1:${tlsPort}
ssl_options.certfile = ${at("server.pem")}
ssl_options.keyfile = ${at("server.key")}
ssl_options.cacertfile = ${at("clients.pem")}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
default_user = ${USER.name}
default_pass = ${USER.password}
vm_memory_high_watermark.absolute = 2GB
disk_free_limit.absolute = 1MB
raft.wal_max_size_bytes = 4000000
${config}
`,
  );
  return {
    RABBITMQ_NODENAME: node,
    RABBITMQ_NODE_PORT: String(port),
    RABBITMQ_DIST_PORT: String(nodes),
    RABBITMQ_CONF_ENV_FILE: at("env.conf"),
    RABBITMQ_CONFIG_FILE: at("rabbitmq.conf"),
    RABBITMQ_ENABLED_PLUGINS_FILE: at("plugins"),
    RABBITMQ_MNESIA_BASE: at("mnesia"),
    RABBITMQ_LOG_BASE: at("log"),
    RABBITMQ_LOGS: "-",
    // The script becomes the server, whose process it then is, instead of keeping it as a child.
    RABBITMQ_ALLOW_INPUT: "1",
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS:
      `-noinput +S 1:1 -setcookie ${COOKIE} -kernel inet_dist_use_interface {127,0,0,1}`,
  };
}

function run(
  command: string,
  args: readonly string[],
  env: Record<string, string | undefined>,
  input: string,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env, stdio: ["pipe", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => output += text);
    }
    child.stdin.on("error", () => {}).end(input);
    child.once("error", reject);
    child.once("close", () => resolve(output));
  });
}

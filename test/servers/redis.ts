/**
 * Redis with its append-only file on, one port in the clear and one with TLS, a user `USER` beside the default
 * one (which has no password), and a client of a few lines that owes nothing to the library under test.
 */
import { existsSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { CERTIFICATE, SIGNED_CERTIFICATE, SIGNED_KEY } from "../kit/certificate.ts";
import { CLIENT_CA } from "../kit/client_certificate.ts";
import { freePort } from "../kit/free_port.ts";
import { tempDir } from "../kit/temp.ts";
import { OLD_REDIS } from "./old_redis.mjs";
import { programAt, type Server, startServer } from "./process.ts";

/** What Redis says; an error is thrown. */
export type Reply = string | number | null | Reply[];

export interface Redis extends Server {
  /** `redis://127.0.0.1:PORT`. */
  readonly url: string;
  /** TLS by the authority `CERTIFICATE`; a certificate of `CLIENT_CA` is taken and not asked for. */
  readonly tlsPort: number;
  /** May do everything. */
  readonly user: { readonly name: string; readonly password: string };
  /** Stops it where it stands (SIGSTOP): connections stay, nothing is answered. */
  freeze(): void;
  thaw(): void;
  /** Runs a command as the default user; several may be under way. */
  call(...command: (string | number | Uint8Array)[]): Promise<Reply>;
}

const USER = { name: "shishi", password: "geheim" };

/** @param config more lines of its `redis.conf`, which count over those that are there. */
export async function startRedis(config = ""): Promise<Redis> {
  const tlsPort = await freePort();
  const tls = `tls-port ${tlsPort}
tls-cert-file server.pem
tls-key-file server.key
tls-ca-cert-file clients.pem
tls-auth-clients optional
${config}`;
  return await start(programAt(["/usr/bin/redis-server"], "redis-server"), tls, tlsPort);
}

/** Redis 6.2, without TLS. */
export function startOldRedis(config = ""): Promise<Redis> {
  if (!existsSync(OLD_REDIS)) throw new Error("Redis 6.2: node test/kit/prepare.mjs --old-redis");
  return start(OLD_REDIS, config, 0);
}

async function start(command: string, config: string, tlsPort: number): Promise<Redis> {
  const dir = tempDir("redis");
  const port = await freePort();
  writeFileSync(join(dir, "server.pem"), SIGNED_CERTIFICATE + CERTIFICATE);
  writeFileSync(join(dir, "server.key"), SIGNED_KEY);
  writeFileSync(join(dir, "clients.pem"), CLIENT_CA);
  writeFileSync(
    join(dir, "redis.conf"),
    `bind 127.0.0.1
port ${port}
appendonly yes
appendfsync always
save ""
user ${USER.name} on >${USER.password} ~* &* +@all
${config}
`,
  );
  const own = new Client(port);
  const server = await startServer({
    name: "Redis",
    command,
    args: ["redis.conf"],
    dir,
    url: `redis://127.0.0.1:${port}`,
    port,
    // Not while it reads its file.
    probe: async () => {
      const answer = await own.call(["PING"]).catch((error: Error) => error.message);
      if (answer !== "PONG" && !/^(NOAUTH|NOPERM)/.test(String(answer))) {
        throw new Error(String(answer));
      }
    },
  });
  const signal = (name: "SIGSTOP" | "SIGCONT") => {
    if (server.pid !== 0) process.kill(server.pid, name);
  };
  const more = {
    tlsPort,
    user: USER,
    freeze: () => signal("SIGSTOP"),
    thaw: () => signal("SIGCONT"),
    call: (...words: (string | number | Uint8Array)[]) => own.call(words),
    close: async () => {
      own.close();
      await server.close();
    },
  };
  return Object.defineProperties(more as Redis, {
    ...Object.getOwnPropertyDescriptors(server),
    close: { value: more.close },
  });
}

interface Waiting {
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
}

/** RESP2 over one connection, which is made when it is wanted, and anew after it was lost. */
class Client {
  #socket: Socket | null = null;
  #waiting: Waiting[] = [];
  #unread = Buffer.alloc(0);

  constructor(readonly port: number) {}

  call(words: readonly (string | number | Uint8Array)[]): Promise<Reply> {
    const socket = this.#socket ??= this.#connect();
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      const parts = words.map((word) =>
        typeof word === "object" ? Buffer.from(word) : Buffer.from(String(word))
      );
      socket.write(Buffer.concat([
        Buffer.from(`*${parts.length}\r\n`),
        ...parts.flatMap((part) => [Buffer.from(`$${part.length}\r\n`), part, Buffer.from("\r\n")]),
      ]));
    });
  }

  close(): void {
    this.#socket?.destroy();
  }

  #connect(): Socket {
    const socket = connect(this.port, "127.0.0.1");
    socket.setNoDelay(true);
    let why = new Error("the connection to Redis is closed");
    socket.on("error", (error) => why = error);
    socket.on("close", () => {
      const waiting = this.#waiting;
      this.#waiting = [];
      this.#unread = Buffer.alloc(0);
      this.#socket = null;
      for (const { reject } of waiting) reject(why);
    });
    socket.on("data", (data) => {
      this.#unread = Buffer.concat([this.#unread, data]);
      for (let found = read(this.#unread, 0); found !== null; found = read(this.#unread, 0)) {
        this.#unread = this.#unread.subarray(found.end);
        const { resolve, reject } = this.#waiting.shift()!;
        if (found.value instanceof Error) reject(found.value);
        else resolve(found.value);
      }
    });
    return socket;
  }
}

/** One value; null where not all of it is there. */
function read(from: Buffer, at: number): { value: Reply | Error; end: number } | null {
  const lineEnd = from.indexOf("\r\n", at);
  if (lineEnd < 0) return null;
  const text = from.toString("utf8", at + 1, lineEnd);
  const end = lineEnd + 2;
  switch (String.fromCharCode(from[at]!)) {
    case "+":
      return { value: text, end };
    case "-":
      return { value: new Error(text), end };
    case ":":
      return { value: Number(text), end };
    case "$": {
      const length = Number(text);
      if (length < 0) return { value: null, end };
      if (from.length < end + length + 2) return null;
      return { value: from.toString("utf8", end, end + length), end: end + length + 2 };
    }
    default: {
      if (Number(text) < 0) return { value: null, end };
      const values: Reply[] = [];
      let next = end;
      for (let index = 0; index < Number(text); index++) {
        const found = read(from, next);
        if (found === null) return null;
        values.push(found.value as Reply);
        next = found.end;
      }
      return { value: values, end: next };
    }
  }
}

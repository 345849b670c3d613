/** A nats-server with JetStream for tests of sources and exits, and what an administrator does there. */
import {
  connect,
  type ConnectionOptions,
  type JetStreamManager,
  type NatsConnection,
} from "nats.ws";
import type { BrokerDeps, ExitOf, Log, LogFields, SourceOf } from "../../src/contracts.ts";
import { systemClock } from "../../src/kernel/time.ts";
import { createOpenSocket } from "../../src/runtime/socket.ts";
import { exitUrls, sourceUrls } from "../../src/settings/source_urls.ts";
import { type Nats, startNats } from "../kit/servers.ts";
import { eventually } from "../kit/wait.ts";

/** Beside the server's configuration, which lies in a folder of its own. */
export const JETSTREAM = 'jetstream { store_dir: "js" }';

export const startJetStream = (config = ""): Promise<Nats> => startNats(`${JETSTREAM}\n${config}`);

export interface Lines extends Log {
  readonly lines: string[];
}

export function remember(): Lines {
  const lines: string[] = [];
  const at = (level: string) => (message: string, fields?: LogFields) => {
    lines.push(`${level} ${message} ${JSON.stringify(fields ?? {})}`);
  };
  return { lines, debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** @param files by their names in the URL. */
export function depsOf(
  member = "g.a",
  files: Readonly<Record<string, string>> = {},
): BrokerDeps & { readonly log: Lines } {
  return {
    clock: systemClock,
    log: remember(),
    member,
    readFile: (path) =>
      files[path] === undefined
        ? Promise.reject(Object.assign(new Error(`no such file ${path}`), { code: "ENOENT" }))
        : Promise.resolve(files[path]),
    authorities: () => [],
    openSocket: createOpenSocket(() => []),
    openSqlite: () => {
      throw new Error("no database");
    },
  };
}

/** As the settings read it, but for the files that it names. */
export function natsSource(url: string): SourceOf<"nats"> {
  const read = sourceUrls.parse(url);
  if (!read.ok) throw new Error(JSON.stringify(read));
  return read.value[0] as SourceOf<"nats">;
}

export function natsExit(url: string): ExitOf<"nats"> {
  const read = exitUrls.parse(url);
  if (!read.ok) throw new Error(JSON.stringify(read));
  return read.value[0] as ExitOf<"nats">;
}

/** On a connection of its own, which ends with it. */
export async function asAdmin<T>(
  server: Nats,
  work: (connection: NatsConnection, api: JetStreamManager) => Promise<T>,
  login: ConnectionOptions = {},
): Promise<T> {
  // A server that reads its configuration anew refuses what connects at that moment, users whom it knows as well.
  const connection = await eventually(
    () => connect({ servers: server.url, timeout: 5000, ...login }),
    { withinMs: 5000 },
  );
  try {
    return await work(connection, await connection.jetstreamManager({ checkAPI: false }));
  } finally {
    await connection.close();
  }
}

/** Resolves when the stream has them. */
export function publish(
  server: Nats,
  subject: string,
  bodies: readonly (string | Uint8Array)[],
): Promise<void> {
  return asAdmin(server, async (connection) => {
    const stream = connection.jetstream();
    for (const body of bodies) await stream.publish(subject, body as string);
  });
}

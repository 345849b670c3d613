/**
 * What is wrong with one NATS server: does it let a collector in, and hear what it has to hear? The
 * subjects are subscribed to for a moment; nothing is published, and nothing that comes is obeyed.
 */

import type { Clock } from "../contracts.ts";
import { about, type Finding } from "../kernel/finding.ts";
import { dial, type NatsAuth, type OpenSocket, parseServer } from "../kernel/nats.ts";
import { subjectsOf } from "./protocol.ts";

const TIMEOUT_MS = 5_000;

/** Never rejects. */
export async function inspectNats(
  server: string,
  { auth, subject: prefix, group, id, clock, openSocket }: {
    readonly auth: NatsAuth;
    readonly subject: string;
    readonly group: string;
    readonly id: string;
    readonly clock: Clock;
    readonly openSocket: OpenSocket;
  },
): Promise<Finding[]> {
  const address = parseServer(server);
  const name = address.ok ? address.value.name : server;
  const is = about(`nats ${name}`);
  const denied = new Set<string>();
  const dialled = await dial(
    {
      server,
      auth,
      name: `shishi check ${group}.${id}`,
      timeoutMs: TIMEOUT_MS,
      openSocket,
    },
    clock,
    (what) => denied.add(what),
  );
  if (!dialled.ok) {
    const why = dialled.problem.replace(`${name}: `, "");
    const todo = /credentials/.test(why)
      ? "correct nats-creds, nats-nkey, nats-user and nats-password, or nats-token"
      : "start it, or correct nats-url";
    return [is.wrong(why, todo)];
  }
  const wire = dialled.value;
  try {
    for (const subject of subjectsOf(prefix, group, id).keys()) {
      wire.subscribe(subject, () => {});
    }
    // The server's complaints come before its answer to the flush; they are known a moment later.
    const heard = await wire.flush(TIMEOUT_MS) && await wire.flush(TIMEOUT_MS);
    if (!heard) return [is.wrong(`no answer within ${TIMEOUT_MS / 1000} s`)];
    const { version = "of an unknown version", asksWho = true } = wire.about ?? {};
    const [first, ...more] = [...denied];
    if (first !== undefined) {
      const others = more.length === 0 ? "" : ` (and ${more.length} more)`;
      const todo = `permit subscribe: "${prefix}.>" and "$SRV.>"`;
      return [is.wrong(`${version}, ${first}${others}`, todo)];
    }
    return [
      is.ok(`${version}, connected${asksWho ? "" : "; it asks for no credentials"}`),
    ];
  } finally {
    await wire.close();
  }
}

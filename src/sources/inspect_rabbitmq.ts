/**
 * What is wrong with a RabbitMQ that is to be read, for `shishi check`: each of its servers (TCP, TLS, login,
 * vhost), then the queue: whether it is there, whether it may be read, and what will hurt later.
 *
 * AMQP tells of a queue how many messages and consumers it has, and no more. The rest comes out of refusals:
 * a declaration that differs from the queue is refused with what the queue has. So it is declared with a type
 * that there is none of, which no server can take, also when the queue is gone by then; and a consumer is asked
 * for with an argument that none can have. Nothing is changed by either; the server's log has a line of each.
 */

import type { AmqpSource, BrokerDeps } from "../contracts.ts";
import { messageOf } from "../kernel/errors.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { about, type Finding } from "../kernel/finding.ts";
import { type AmqpConnection, openAmqp } from "./amqp.ts";

/** Never rejects. */
export async function inspectRabbitmq(
  address: AmqpSource,
  deps: BrokerDeps,
): Promise<readonly Finding[]> {
  const is = about(`source ${address.name}`);
  const findings: Finding[] = [];
  let looked = false;
  for (const host of address.hosts) {
    const one = { ...address, hosts: [host] };
    const named = about(`source ${address.name}, ${host.host}:${host.port}`);
    let connection: AmqpConnection;
    try {
      connection = await openAmqp(one, deps);
    } catch (error) {
      findings.push(named.wrong(messageOf(error), todoFor(messageOf(error), address)));
      continue;
    }
    const { product = "an AMQP server", version = "" } = connection.server ?? {};
    const tls = address.tls ? " over TLS" : "";
    findings.push(
      named.ok(`${product} ${version}, logged in${tls} as ${address.user ?? "guest"}`),
    );
    if (!looked) findings.push(...await inspectQueue(connection, address));
    looked = true;
    await connection.close();
  }
  if (address.prefetch > 65_535) {
    findings.push(is.warning(`prefetch=${address.prefetch} counts as 65535, AMQP's most`));
  }
  return findings;
}

function todoFor(problem: string, address: AmqpSource): string {
  const { user } = address;
  if (/certificate|TLS|PEM|cert=/.test(problem)) {
    return "correct ca=, cert= and key=, or the scheme";
  }
  if (/login refused/.test(problem)) {
    return user === null
      ? "give a user and a password: guest may come in from the server's own host only"
      : "correct user and password (or password-file=)";
  }
  if (/no vhost|may not enter/.test(problem)) {
    return `correct the path of the URL, or permit it: ${permission(address)}`;
  }
  return "start it, or correct the address";
}

/** What lets a user read a queue, and nothing else. */
function permission({ user, vhost, queue }: AmqpSource): string {
  const pattern = `^${queue.replace(/[^\w-]/g, (sign) => `\\${sign}`)}$`;
  return `rabbitmqctl set_permissions -p '${vhost}' ${user ?? "guest"} '' '' '${pattern}'`;
}

async function inspectQueue(connection: AmqpConnection, address: AmqpSource): Promise<Finding[]> {
  const { queue } = address;
  const is = about(`source ${address.name}, queue ${queue}`);
  const found = await ask(connection, (channel) => channel.queueDeclare(queue, { passive: true }));
  if (!found.ok) {
    return [is.wrong(found.problem, "declare the queue: it is never made here; or correct queue=")];
  }
  const { messageCount, consumerCount } = found.value;
  const counts = `${messageCount} messages wait, ${consumerCount} consumers`;
  const readable = await mayRead(connection, queue);
  if (readable !== null) {
    return [
      is.ok(counts),
      is.wrong(readable, `permit it to be read: ${permission(address)}`),
    ];
  }
  const made = await howMade(connection, queue);
  if (made.type === "stream") {
    return [
      is.wrong(
        "it is a stream, which remembers no acknowledgement",
        "bind a queue to its exchange and read that",
      ),
    ];
  }
  const durable = made.durable === null ? "" : made.durable ? ", durable" : ", not durable";
  const kind = made.type === null ? "" : `${made.type}${durable}, `;
  const findings = [is.ok(`${kind}${counts}`)];
  if (made.hidden !== null) {
    findings.push(
      is.warning(
        `its type and its dead-letter exchange cannot be seen: ${made.hidden}`,
        "look at them yourself: rabbitmqctl list_queues name type arguments policy",
      ),
    );
  }
  if (made.durable === false) {
    findings.push(
      is.warning("it is not durable: a restart of the server loses it", "declare it durable"),
    );
  }
  if (made.type === "quorum" && made.deadLetters !== "yes") {
    findings.push(is.warning(...returns(made.deadLetters, connection.server?.version ?? "")));
  }
  return findings;
}

/** What a quorum queue does with messages that are given back often. */
function returns(deadLetters: "no" | "unknown", version: string): [text: string, todo: string] {
  const many = Number.parseInt(version) >= 4
    ? "a message that was given back 20 times (or delivery-limit) is thrown away"
    : "with a delivery-limit, which cannot be seen from here, a message that was given back too often is " +
      "thrown away";
  const none = deadLetters === "no"
    ? "no dead-letter exchange is among its arguments"
    : "whether it has a dead-letter exchange cannot be seen";
  return [
    `${none}: ${many}, unless a policy names one, which cannot be seen either`,
    "give it a dead-letter exchange by a policy",
  ];
}

/** On a channel of its own, which a refusal ends. */
async function ask<T>(
  connection: AmqpConnection,
  question: (channel: Awaited<ReturnType<AmqpConnection["channel"]>>) => Promise<T>,
): Promise<Result<T>> {
  try {
    const channel = await connection.channel(true);
    const value = await connection.ask(question(channel));
    await connection.ask(channel.close());
    return done(value);
  } catch (error) {
    return failed(messageOf(error));
  }
}

/** Why it may not be read; null: it may, as far as can be seen without reading. */
async function mayRead(connection: AmqpConnection, queue: string): Promise<string | null> {
  // Another server might take the argument, and give messages.
  if (connection.server?.product !== "RabbitMQ") return null;
  const args = { "x-priority": "none" };
  const asked = await ask(
    connection,
    (channel) => channel.basicConsume(queue, { noAck: false, args }, () => {}),
  );
  return asked.ok || /invalid arg|x-priority/.test(asked.problem) ? null : asked.problem;
}

interface Made {
  /** Null: not known, as the next. */
  readonly type: string | null;
  readonly durable: boolean | null;
  readonly deadLetters: "yes" | "no" | "unknown";
  /** Why nothing can be seen. */
  readonly hidden: string | null;
}

const MOST_QUESTIONS = 20;
const NO_TYPE = "shishi-check";
const DIFFERS =
  /inequivalent arg '([^']+)' for queue .*: received .* but current is (.*?)(?: \(\d+\))?$/s;

/** How a queue was declared. */
async function howMade(connection: AmqpConnection, queue: string): Promise<Made> {
  const args: Record<string, unknown> = { "x-queue-type": NO_TYPE };
  const flags: Record<string, boolean> = { durable: true, auto_delete: false, exclusive: false };
  const refusal = async (more: object = {}) => {
    const declared = await ask(connection, (channel) =>
      channel.queueDeclare(queue, {
        durable: flags["durable"]!,
        autoDelete: flags["auto_delete"]!,
        exclusive: flags["exclusive"]!,
      }, { ...args, ...more }));
    return declared.ok ? "the server takes a queue of any type" : declared.problem;
  };
  for (let question = 0; question < MOST_QUESTIONS; question++) {
    const text = await refusal();
    const [, name = "", current = ""] = DIFFERS.exec(text) ?? [];
    if (name === "x-queue-type") {
      return {
        type: valueIn(current) === null ? "classic" : String(valueIn(current)),
        durable: flags["durable"]!,
        deadLetters: "x-dead-letter-exchange" in args ? "yes" : await none(),
        hidden: null,
      };
    }
    if (name in flags) {
      const value = /true/.test(current);
      if (flags[name] === value) return unseen(text);
      flags[name] = value;
    } else if (name !== "" && !(name in args)) args[name] = valueIn(current);
    else return unseen(text);
  }
  return unseen("too many arguments");

  /** It did not come up before the type; that it has none is certain only when it is asked for. */
  async function none(): Promise<"no" | "unknown"> {
    const asked = { "x-dead-letter-exchange": NO_TYPE };
    const [, name, current] = DIFFERS.exec(await refusal(asked)) ?? [];
    return name === "x-dead-letter-exchange" && current === "none" ? "no" : "unknown";
  }
}

function unseen(hidden: string): Made {
  return { type: null, durable: null, deadLetters: "unknown", hidden };
}

/** `none`, `'dlx'`, `the value 'dlx' of type 'longstr'`, `the value '20' of type 'signedint'`. */
function valueIn(current: string): string | number | boolean | null {
  if (current === "none") return null;
  const value = /'(.*?)'(?: of type|$)/s.exec(current)?.[1] ?? current;
  const type = / of type '(\w+)'/.exec(current)?.[1] ?? "";
  if (/int|long$|short|byte/.test(type)) return Number(value);
  return type === "bool" ? value === "true" : value;
}

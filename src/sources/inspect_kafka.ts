/**
 * What is wrong with a Kafka that is to be read: can it be reached and does it show a certificate that counts,
 * may this user read the topics, where is the group, and what of it is gone already? No group is joined and
 * nothing is committed.
 */

import process from "node:process";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { BrokerDeps, BrokerHost, KafkaSource } from "../contracts.ts";
import { nodeNet } from "../kernel/builtins.ts";
import { plainNetworkError, reasonOf } from "../kernel/errors.ts";
import { about, type Finding } from "../kernel/finding.ts";
import { sleep, within } from "../kernel/time.ts";
import { clientOptions, loadLibrary, sentenceOf } from "./kafka_client.ts";
import { tlsFault, type TlsOptions, tlsOptions } from "./tls.ts";

const CONNECT_MS = 5_000;
const ANSWER_MS = 10_000;
/** A certificate that ends so soon is worth a word. */
const SOON_MS = 14 * 24 * 3_600_000;
const COORDINATOR_MS = 5_000;
const COORDINATOR_AGAIN_MS = 250;
const EARLIEST = -2n;
const LATEST = -1n;

/** Never rejects. */
export async function inspectKafka(
  address: KafkaSource,
  deps: BrokerDeps,
): Promise<readonly Finding[]> {
  const is = about(`source ${address.label}`);
  const reached = await reachAll(address, deps);
  const missing = reached.filter(({ problem }) => problem !== null)
    .map(({ host, problem }) => `${host}: ${problem}`).join(", ");
  if (reached.every(({ problem }) => problem !== null)) {
    return [is.wrong(missing, "start it, or correct the address, ca=, cert= and key=")];
  }
  const findings: Finding[] = missing === "" ? [] : [is.warning(missing)];
  const soon = reached.find(({ endsMs }) =>
    endsMs !== null && endsMs < deps.clock.nowMs() + SOON_MS
  );
  if (soon !== undefined) {
    const day = new Date(soon.endsMs!).toISOString().slice(0, 10);
    findings.push(is.warning(`the certificate of ${soon.host} ends on ${day}`));
  }
  if (address.sasl === "plain" && !address.tls) {
    findings.push(is.warning("the password goes over the network unencrypted", "use kafkas://"));
  }
  try {
    const read = await within(deps.clock, ANSWER_MS, inspectTopics(address, deps), null);
    if (read === null) return [...findings, is.wrong(`no answer within ${ANSWER_MS / 1000} s`)];
    return [...findings, ...read];
  } catch (error) {
    return [...findings, is.wrong(sentenceOf(error, address), todoOf(sentenceOf(error, address)))];
  }
}

function todoOf(sentence: string): string {
  if (/login|token|certificate/.test(sentence)) {
    return "correct user, password-file, token-file, sasl=, or cert= and key=";
  }
  return /topic/.test(sentence) ? "create it, or permit READ and DESCRIBE" : "see the broker's log";
}

interface Reached {
  readonly host: string;
  readonly problem: string | null;
  /** Of its certificate; null without one. */
  readonly endsMs: number | null;
}

async function reachAll(address: KafkaSource, deps: BrokerDeps): Promise<Reached[]> {
  try {
    const tls = address.tls ? await tlsOptions(address, deps) : null;
    return await Promise.all(address.hosts.map((host) => reach(host, tls)));
  } catch (error) {
    return [{ host: address.name, problem: reasonOf(error), endsMs: null }];
  }
}

/** A connection of our own: the client's words for a certificate are few. */
function reach(
  { host, port }: BrokerHost,
  tls: TlsOptions | null,
): Promise<Reached> {
  const name = `${host}:${port}`;
  return new Promise((resolve) => {
    const net = nodeNet();
    const socket: Socket = tls === null ? net.connect({ host, port }) : process
      .getBuiltinModule("node:tls")
      .connect({ host, port, ...tls, ...(net.isIP(host) === 0 ? { servername: host } : {}) });
    const end = (problem: string | null) => {
      const { valid_to: until = "" } = problem === null && tls !== null
        ? (socket as TLSSocket).getPeerCertificate?.() ?? {}
        : {};
      const endsMs = Date.parse(until);
      resolve({ host: name, problem, endsMs: Number.isNaN(endsMs) ? null : endsMs });
      socket.removeAllListeners();
      socket.on("error", () => {});
      socket.destroy();
    };
    socket.once(tls === null ? "connect" : "secureConnect", () => end(null));
    socket.once("error", (error) => end(faultOf(error, tls !== null)));
    socket.setTimeout(CONNECT_MS, () => end(`no connection within ${CONNECT_MS / 1000} s`));
  });
}

function faultOf(error: Error, tls: boolean): string {
  const reason = reasonOf(plainNetworkError(error));
  const fault = tls ? tlsFault(error) : null;
  return fault ?? (tls && reason === "connection broken off" ? "no TLS there" : reason);
}

async function inspectTopics(address: KafkaSource, deps: BrokerDeps): Promise<Finding[]> {
  const library = await loadLibrary(deps.log);
  const { topics, group } = address;
  const consumer = new library.Consumer({
    ...await clientOptions(address, deps, ANSWER_MS),
    groupId: group,
  });
  try {
    const metadata = await consumer.metadata({ topics: [...topics], autocreateTopics: false });
    const partitions = topics.map((topic) => ({
      topic,
      partitions: (metadata.topics.get(topic)?.partitions ?? []).map((_, index) => index),
    }));
    const leaderless = topics.flatMap((topic) =>
      (metadata.topics.get(topic)?.partitions ?? []).flatMap(({ leader }, index) =>
        leader < 0 ? [`${topic}/${index}`] : []
      )
    );
    const is = about(`source ${address.label}`);
    if (leaderless.length > 0) return [is.wrong(`no leader: ${leaderless.join(", ")}`)];
    // Not at once: the library asks for the coordinator with what it knows of the brokers.
    const committed = await coordinated(
      address,
      deps,
      () => consumer.listCommittedOffsets({ topics: partitions }),
    );
    const [begins, ends] = await Promise.all(
      [EARLIEST, LATEST].map((timestamp) =>
        consumer.listOffsets({ topics: [...topics], timestamp })
      ),
    );
    return topics.flatMap((topic) =>
      inspectTopic(address, topic, {
        begins: begins!.get(topic) ?? [],
        ends: ends!.get(topic) ?? [],
        committed: committed.get(topic) ?? [],
      })
    );
  } finally {
    await within(deps.clock, CONNECT_MS, consumer.close(true).catch(() => {}), undefined);
  }
}

/** The first group that a broker hears of has to wait until there is a place for groups. */
async function coordinated<T>(
  address: KafkaSource,
  { clock }: BrokerDeps,
  ask: () => Promise<T>,
): Promise<T> {
  const untilMs = clock.monotonicMs() + COORDINATOR_MS;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      const wait = /coordinator/.test(sentenceOf(error, address)) && clock.monotonicMs() < untilMs;
      if (!wait) throw error;
      await sleep(clock, COORDINATOR_AGAIN_MS);
    }
  }
}

function inspectTopic(
  { label, group, from }: KafkaSource,
  topic: string,
  { begins, ends, committed }: {
    readonly begins: readonly bigint[];
    readonly ends: readonly bigint[];
    readonly committed: readonly bigint[];
  },
): Finding[] {
  const is = about(`source ${label}`);
  const known = ends.filter((_, index) => (committed[index] ?? -1n) >= 0n).length;
  const lost = sum(begins.map((begin, index) => {
    const at = committed[index] ?? -1n;
    return at >= 0n && at < begin ? begin - at : 0n;
  }));
  const waiting = sum(ends.map((end, index) => {
    const at = committed[index] ?? -1n;
    const begin = begins[index] ?? 0n;
    const next = at >= 0n ? at : from === "latest" ? end : begin;
    return end > next ? end - (next < begin ? begin : next) : 0n;
  }));
  const count = `${ends.length} partition${ends.length === 1 ? "" : "s"}`;
  const where = known === 0
    ? `group ${group} has read nothing yet and begins at ${from}`
    : `group ${group} is known in ${known === ends.length ? "all" : known}`;
  const waits = waiting === 1n ? "1 message waits" : `${waiting} messages wait`;
  return [
    is.ok(`topic ${topic}: ${count}, ${where}, ${waits}`),
    ...(lost > 0n
      ? [is.warning(
        `topic ${topic}: ${lost} messages were deleted before group ${group} has read them`,
        "raise the topic's retention.ms",
      )]
      : []),
  ];
}

function sum(counts: readonly bigint[]): bigint {
  return counts.reduce((total, count) => total + count, 0n);
}

/**
 * Exit channels: the message `Exit` on one of them stops every collector that listens, as `shishi stop` does.
 * Each channel is a connection of its own, never that of the work, and is made again for ever; one that is
 * away harms nothing.
 *
 * With a control secret the message has to be signed, by the rule of commands over NATS: `Exit
 * v1,UNIXMS,NONCE,HEX`, where HEX is the HMAC-SHA256 of `UNIXMS\nNONCE\nCHANNEL\nExit`. It is good for one
 * channel and once; what was signed before the collector started is not obeyed.
 */

import type { BrokerDeps, Clock, ExitAddress, ExitChannel, ExitFeed, Log } from "../contracts.ts";
import { Backoff } from "../kernel/backoff.ts";
import { nodeUtil } from "../kernel/builtins.ts";
import { reasonOf } from "../kernel/errors.ts";
import { about, type Finding } from "../kernel/finding.ts";
import { type Rate, RateLimiter } from "../kernel/rate.ts";
import { beforeStart, createGate, type Gate, sign } from "../kernel/signature.ts";
import { printable } from "../kernel/text.ts";
import { sleep, within } from "../kernel/time.ts";
import { openExit } from "./brokers.ts";

const WORD = "Exit";
const PAYLOAD = new TextEncoder().encode(WORD);
const FORM = /^Exit(?:\s+(v\d,\S{0,256}))?$/;

/** What its broker calls a channel; a signature is good for this one alone. */
export function channelOf(address: ExitAddress): string {
  switch (address.broker) {
    case "kafka":
      return address.topic;
    case "nats":
      return address.subject;
    case "amqp":
      return address.exchange;
    case "redis":
      return address.channel;
  }
}

/** The text that stops collectors. @param secret null: it goes unsigned. @param nonce never used before. */
export function exitText(
  address: ExitAddress,
  secret: string | null,
  nowMs: number,
  nonce: string,
): string {
  return secret === null
    ? WORD
    : `${WORD} ${sign(secret, channelOf(address), PAYLOAD, nowMs, nonce)}`;
}

export type Heard =
  | { readonly kind: "obey"; readonly spend: () => void }
  /** It is an Exit, and not to be obeyed. */
  | { readonly kind: "refuse"; readonly problem: string }
  /** It is something else. */
  | { readonly kind: "ignore" };

/** @param gate null: no signature is needed. */
export function judgeExit(text: string, channel: string, gate: Gate | null, nowMs: number): Heard {
  const match = FORM.exec(text.trim());
  if (match === null) return { kind: "ignore" };
  if (gate === null) return { kind: "obey", spend() {} };
  const judged = gate.verifier.judge(match[1] ?? "", channel, PAYLOAD, nowMs);
  if (!judged.ok) return { kind: "refuse", problem: judged.problem };
  const early = beforeStart(judged.value.signedMs, gate);
  return early === null
    ? { kind: "obey", spend: judged.value.spend }
    : { kind: "refuse", problem: early };
}

export interface ExitsDeps {
  /** What the file of a broker is handed. */
  readonly broker: BrokerDeps;
  /** When the collector started, epoch milliseconds: what was sent before is not for it. */
  readonly startedMs: number;
  /** Stops the collector. Never throws. */
  readonly stop: (why: string) => void;
  /** An Exit was obeyed, or refused. */
  readonly count: (ok: boolean) => void;
  readonly clock: Clock;
  readonly log: Log;
  /** Opens a channel; tests bring their own. */
  readonly open?: typeof openExit;
}

/** A channel that is wanted. */
export interface WantedExit {
  readonly address: ExitAddress;
  /** What is in the files that it names; another content makes another connection. */
  readonly texts: readonly string[];
}

interface Listening extends WantedExit {
  readonly ending: AbortController;
  /** Resolves when it is there, or could not be made for the first time. Never rejects. */
  readonly tried: Promise<void>;
  /** Resolves when its connection has ended. Never rejects. */
  readonly ended: Promise<void>;
}

const BACKOFF = { leastMs: 250, mostMs: 10_000 };
const CONNECT_MS = 30_000;
/** A connection that lived this long was a good one: the next loss starts with a short wait. */
const GOOD_LIFE_MS = 10_000;
const LEAVE_MS = 2_000;
/** Of what is said of one channel; anyone may send there. */
const LINES: Rate = { count: 5, periodMs: 60_000 };

/** The exit channels of a collector. */
export class Exits {
  readonly #deps: ExitsDeps;
  readonly #lines: RateLimiter;
  #listening: readonly Listening[] = [];
  #secret: string | null = null;
  #gate: Gate | null = null;
  #closed = false;

  constructor(deps: ExitsDeps) {
    this.#deps = deps;
    this.#lines = new RateLimiter(deps.clock);
  }

  /**
   * Those that are as before are left alone. Returns at once; connects in the background.
   * @param secret with which an Exit has to be signed; null: it need not be.
   */
  adopt(wanted: readonly WantedExit[], secret: string | null): void {
    if (this.#closed) return;
    if (secret !== this.#secret) {
      this.#secret = secret;
      this.#gate = createGate(secret, this.#deps.startedMs);
    }
    const { isDeepStrictEqual } = nodeUtil();
    const kept = this.#listening.filter(({ address, texts }) =>
      wanted.some((one) => isDeepStrictEqual(one, { address, texts }))
    );
    for (const gone of this.#listening) if (!kept.includes(gone)) gone.ending.abort();
    this.#listening = wanted.map((one) =>
      kept.find(({ address }) => isDeepStrictEqual(address, one.address)) ?? this.#begin(one)
    );
  }

  /** Resolves when each channel is there, or could not be reached for the first time. Never rejects. */
  async tried(): Promise<void> {
    await Promise.all(this.#listening.map(({ tried }) => tried));
  }

  /** Leaves, within 2 s. Never rejects. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { ending } of this.#listening) ending.abort();
    const all = Promise.all(this.#listening.map(({ ended }) => ended));
    await within(this.#deps.clock, LEAVE_MS, all, undefined);
  }

  #begin(wanted: WantedExit): Listening {
    const ending = new AbortController();
    const { promise: tried, resolve } = Promise.withResolvers<void>();
    const ended = this.#forever(wanted.address, ending.signal, resolve).catch((error) => {
      // A bug, and no reason to end a collector.
      const { log } = this.#deps;
      log.error("an exit channel has failed", {
        exit: wanted.address.name,
        error: reasonOf(error),
      });
    });
    return { ...wanted, ending, tried, ended };
  }

  async #forever(
    address: ExitAddress,
    signal: AbortSignal,
    onTried: () => void,
  ): Promise<void> {
    const { clock, log } = this.#deps;
    const { name, label } = address;
    const backoff = new Backoff(clock, BACKOFF);
    let told = "";
    while (!signal.aborted) {
      const startedMs = clock.monotonicMs();
      const why = await this.#live(address, signal, () => {
        told = "";
        onTried();
      });
      onTried();
      if (signal.aborted) return;
      if (why !== told) {
        log.warn("an exit channel is away, trying again in the background", {
          exit: name,
          server: label,
          error: why,
        });
      }
      told = why;
      if (clock.monotonicMs() - startedMs >= GOOD_LIFE_MS) backoff.succeeded();
      await sleep(clock, backoff.failed(), signal);
    }
  }

  /** One connection from its first byte to its end. @returns why it ended. */
  async #live(address: ExitAddress, signal: AbortSignal, onThere: () => void): Promise<string> {
    const { broker, startedMs, clock, log, open = openExit } = this.#deps;
    try {
      const channel = await open(address, broker);
      const feed = await inTime(channel, startedMs, signal, clock);
      try {
        log.info("an exit channel is listened to", { exit: address.name, server: address.label });
        onThere();
        for (;;) {
          const text = await unless(signal, feed.next());
          if (text === null) return "";
          this.#hear(text, address);
        }
      } finally {
        await within(clock, LEAVE_MS, feed.close().catch(() => {}), undefined);
      }
    } catch (error) {
      return reasonOf(error);
    }
  }

  #hear(text: string, address: ExitAddress): void {
    const { clock, log, stop, count } = this.#deps;
    const { name } = address;
    const heard = judgeExit(text, channelOf(address), this.#gate, clock.nowMs());
    if (heard.kind === "ignore") {
      if (!this.#may(`ignored ${name}`)) return;
      return log.info("an exit channel: what is no Exit is ignored", {
        exit: name,
        text: printable(text.slice(0, 256)),
      });
    }
    count(heard.kind === "obey");
    if (heard.kind === "obey") {
      heard.spend();
      log.info("an exit channel says Exit", { exit: name });
      return stop(`exit ${name}`);
    }
    if (this.#may(`refused ${name}`)) {
      log.warn("an exit channel: an Exit is refused", { exit: name, error: heard.problem });
    }
  }

  #may(what: string): boolean {
    return this.#lines.waitMs(what, LINES) === 0;
  }
}

/** A broker that says neither yes nor no is left. */
async function inTime(
  channel: ExitChannel,
  sinceMs: number,
  signal: AbortSignal,
  clock: Clock,
): Promise<ExitFeed> {
  const connecting = new AbortController();
  const abort = () => connecting.abort();
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  try {
    const work = channel.connect(sinceMs, connecting.signal);
    const feed = await within(clock, CONNECT_MS, work, null);
    if (feed !== null) return feed;
    // One that comes after all is not listened to.
    work.then((feed) => feed.close(), () => {}).catch(() => {});
    throw new Error(`no answer within ${CONNECT_MS / 1000} s`);
  } finally {
    signal.removeEventListener("abort", abort);
    connecting.abort();
  }
}

/** Null as soon as the signal is aborted. Rejects as the work does, as long as it is waited for. */
async function unless<T>(signal: AbortSignal, work: Promise<T>): Promise<T | null> {
  work.catch(() => {});
  const { promise, resolve } = Promise.withResolvers<null>();
  const end = () => resolve(null);
  signal.addEventListener("abort", end, { once: true });
  if (signal.aborted) end();
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", end);
  }
}

/**
 * Sends an Exit; resolves when the broker has it. Rejects with a sentence, also after `withinMs`.
 * @param secret as of `exitText`.
 */
export async function sendExit(
  address: ExitAddress,
  secret: string | null,
  deps: BrokerDeps,
  withinMs: number,
): Promise<void> {
  const { clock } = deps;
  const sending = new AbortController();
  const channel = await openExit(address, deps);
  const text = exitText(address, secret, clock.nowMs(), crypto.randomUUID());
  const sent = channel.send(text, sending.signal).then(() => true);
  try {
    if (!await within(clock, withinMs, sent, false)) {
      throw new Error(`no answer within ${withinMs / 1000} s`);
    }
  } finally {
    sent.catch(() => {});
    sending.abort();
  }
}

/** For `shishi check`: listens for a moment. Never rejects. */
export async function inspectExit(
  address: ExitAddress,
  deps: BrokerDeps,
): Promise<readonly Finding[]> {
  const is = about(`exit ${address.name} (${address.label})`);
  try {
    const channel = await openExit(address, deps);
    const feed = await inTime(
      channel,
      deps.clock.nowMs(),
      new AbortController().signal,
      deps.clock,
    );
    await within(deps.clock, LEAVE_MS, feed.close().catch(() => {}), undefined);
    return [is.ok("can be listened to")];
  } catch (error) {
    return [is.wrong(reasonOf(error), "correct exits, or make the channel")];
  }
}

/**
 * Sends one command and gathers the answers. The fleet is not known beforehand, so waiting for it is
 * by silence: a call is over once `windowMs` have passed since a collector last answered for the first
 * time, and every collector that took the command has finished it; or at `timeoutMs`.
 */

import type { Clock, Command } from "../contracts.ts";
import { type Answer, INSTANCE_HEADER, readAnswer } from "./answer.ts";
import { sign, SIGNATURE_HEADER } from "./signature.ts";
import type { Message, Wire } from "./wire.ts";

export interface Call {
  readonly command: Command;
  /** From `subjectFor`. */
  readonly subject: string;
  /** Signs the command where one is given. */
  readonly secret?: string | null;
  /** For the whole call. */
  readonly timeoutMs: number;
  /** How long a first answer of one more collector is waited for. */
  readonly windowMs: number;
  /** The same once one has answered; `windowMs` unless given. */
  readonly windowAfterFirstMs?: number;
}

export interface CallResult {
  /** `silent`: no answer in time. `nobody`: the server knows of no listener. `lost`: connection lost. */
  readonly end: "done" | "timeout" | "silent" | "nobody" | "lost";
  /** The last answer of each collector, sorted by group and id. */
  readonly answers: readonly Answer[];
  /** Those that took the command and did not finish it in time. */
  readonly unfinished: readonly Answer[];
  /** Why the connection was lost; else `""`. */
  readonly why: string;
}

/** What a collector that took the command answers first. */
const TAKEN: Readonly<Partial<Record<Command, string>>> = { stop: "draining", flush: "flushing" };
const DONE: Readonly<Partial<Record<Command, string>>> = { stop: "stopped", flush: "flushed" };
/** Collectors that are kept apart; more than any fleet, fewer than would fill the memory. */
const MAX_COLLECTORS = 100_000;
/** Collectors of one name that are open at once. */
const MAX_NAMESAKES = 1_000;

/**
 * @param onAnswer sees each answer as it comes, with the bytes that it was read from and with which
 * process gave it, or `""`.
 */
export async function call(
  wire: Wire,
  request: Call,
  clock: Clock,
  onAnswer: (answer: Answer, payload: Uint8Array, instance: string) => void,
  onWarning: (what: string) => void,
): Promise<CallResult> {
  const tally = createTally(request.command);
  const inbox = `_INBOX.${crypto.randomUUID().replaceAll("-", "")}`;
  const ending = Promise.withResolvers<{ end: CallResult["end"]; why: string }>();
  const finish = (end: CallResult["end"], why = "") => ending.resolve({ end, why });
  const judge = () => {
    if (windowOver && tally.open() === 0) finish(tally.answers().length === 0 ? "silent" : "done");
  };
  let windowOver = false;
  let cancelWindow = () => {};
  const openWindow = (windowMs: number) => {
    cancelWindow();
    cancelWindow = clock.after(Math.min(windowMs, request.timeoutMs), () => {
      windowOver = true;
      judge();
    });
  };
  const cancelTimeout = clock.after(request.timeoutMs, () => {
    finish(tally.answers().length === 0 ? "silent" : tally.open() === 0 ? "done" : "timeout");
  });
  void wire.closed.then((why) => finish("lost", why));

  wire.subscribe(inbox, (message: Message) => {
    if (message.noResponders) return finish("nobody");
    const answer = readAnswer(message.payload);
    if ("problem" in answer) return onWarning(`an answer is ignored: ${answer.problem}`);
    if (answer.command !== request.command) {
      return onWarning(`an answer is ignored: it is for ${answer.command}`);
    }
    const instance = instanceOf(message);
    const verdict = tally.add(answer, instance);
    if (verdict === "surplus" || verdict === "again") return;
    if (verdict === "first" && !windowOver) {
      openWindow(request.windowAfterFirstMs ?? request.windowMs);
    }
    onAnswer(answer, message.payload, instance);
    judge();
  });
  openWindow(request.windowMs);
  if (!send(wire, request, inbox, clock)) finish("lost", "connection closed");
  const { end, why } = await ending.promise;
  cancelWindow();
  cancelTimeout();
  return { end, why, answers: tally.answers(), unfinished: tally.unfinished() };
}

/** Who gave the answer, or `""`; cut, since anybody may have written it. */
export function instanceOf(message: Message): string {
  return message.header(INSTANCE_HEADER).slice(0, 64);
}

/** @returns false when the command certainly was not sent. */
export function send(
  wire: Wire,
  { subject, secret }: Pick<Call, "subject" | "secret">,
  inbox: string,
  clock: Clock,
): boolean {
  const payload = new Uint8Array();
  if (secret === undefined || secret === null) return wire.publish(subject, payload, inbox);
  const signature = sign(secret, subject, payload, clock.nowMs(), crypto.randomUUID());
  return wire.publish(subject, payload, inbox, { [SIGNATURE_HEADER]: signature });
}

/** Which collectors answered, and what is still owed. Pure but for its own count. */
export interface Tally {
  /**
   * `again`: this collector has said so before. `surplus`: there are more collectors than can be kept.
   * Neither is counted.
   * @param instance which process answered, or `""` where it is not known.
   */
  add(answer: Answer, instance?: string): "first" | "next" | "again" | "surplus";
  /** Collectors that took the command and have not finished it. */
  open(): number;
  /** The last answer of each collector, sorted by group and id. */
  answers(): Answer[];
  unfinished(): Answer[];
}

/**
 * An answer that begins is a collector of its own, and one that ends belongs to the oldest of its name
 * that is open: two hosts that were given the same group and id by mistake are two, and the first that
 * has stopped does not speak for the other.
 */
export function createTally(command: Command): Tally {
  const taken = TAKEN[command];
  const seen: { last: Answer; open: boolean }[] = [];
  /** Those that are open, oldest first, by name and instance. */
  const opened = new Map<string, typeof seen>();
  const known = new Set<string>();
  let open = 0;
  return {
    add(answer, instance = "") {
      const key = `${answer.group}.${answer.id} ${instance}`;
      const begins = taken !== undefined && answer.ok && answer.state === taken;
      const ending = begins ? undefined : opened.get(key)?.shift();
      if (ending !== undefined) {
        ending.last = answer;
        ending.open = false;
        open--;
        return "next";
      }
      if (instance !== "" && known.has(key)) return "again";
      const namesakes = opened.get(key) ?? [];
      if (seen.length >= MAX_COLLECTORS || namesakes.length >= MAX_NAMESAKES) return "surplus";
      if (instance !== "") known.add(key);
      const entry = { last: answer, open: begins };
      seen.push(entry);
      if (begins) {
        open++;
        namesakes.push(entry);
        opened.set(key, namesakes);
      }
      return "first";
    },
    open: () => open,
    answers: () => sorted(seen.map((entry) => entry.last)),
    unfinished: () => sorted(seen.filter((entry) => entry.open).map((entry) => entry.last)),
  };
}

/** Whether this answer means that the command is obeyed to its end. */
export function succeeded(answer: Answer): boolean {
  const done = DONE[answer.command];
  return answer.ok && (done === undefined || answer.state === done);
}

/** By group, then by id. */
export function sorted<A extends Pick<Answer, "group" | "id">>(answers: A[]): A[] {
  const order = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
  return answers.sort((a, b) => order(a.group, b.group) || order(a.id, b.id));
}

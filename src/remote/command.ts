/**
 * Decides what a message is: a command to obey, or a refusal. Pure, and the one place of that
 * decision. The payload is ignored, so that `nats pub shishi.stop ''` and the seeds' "Exit" both
 * work; payload and headers are handed in because a signature covers the one and stands in the other.
 */

import type { Command } from "../contracts.ts";
import type { Message } from "../kernel/nats.ts";
import { beforeStart, type Gate, SIGNATURE_HEADER } from "../kernel/signature.ts";

/** A message, whether or not it is a command. */
export type Incoming = Omit<Message, "noResponders">;

export type Decision =
  | {
    readonly kind: "obey";
    readonly command: Command;
    /** Where to answer, or null when no answer is wanted. */
    readonly replyTo: string | null;
    /** To be called when it is obeyed: a signature is good for one command. */
    readonly spend: () => void;
  }
  | {
    readonly kind: "refuse";
    /** As far as it is known. */
    readonly command: Command | "unknown";
    readonly problem: string;
    readonly replyTo: string | null;
  };

/**
 * @param subjects the collector's own subjects (`subjectsOf` in protocol.ts).
 * @param prefix of the control subjects.
 * @param gate null: no signature is needed.
 * @param nowMs epoch milliseconds.
 */
export function decide(
  message: Incoming,
  subjects: ReadonlyMap<string, Command>,
  prefix: string,
  gate: Gate | null,
  nowMs: number,
): Decision {
  const replyTo = replySubject(message, prefix);
  const command = subjects.get(message.subject);
  if (command === undefined) {
    return { kind: "refuse", command: "unknown", problem: "no such command", replyTo };
  }
  if (gate === null) return { kind: "obey", command, replyTo, spend() {} };
  const { subject, payload } = message;
  const judged = gate.verifier.judge(message.header(SIGNATURE_HEADER), subject, payload, nowMs);
  if (!judged.ok) return { kind: "refuse", command, problem: judged.problem, replyTo };
  const { signedMs, spend } = judged.value;
  const early = command === "status" ? null : beforeStart(signedMs, gate);
  if (early !== null) return { kind: "refuse", command, problem: early, replyTo };
  return { kind: "obey", command, replyTo, spend };
}

/**
 * Where to answer, or null. An answer must not become a command: a client that may publish `status` only
 * could otherwise name `PREFIX.stop` as the reply subject, and a collector would send the stop for it.
 */
export function replySubject({ reply }: Incoming, prefix: string): string | null {
  return reply === "" || reply === prefix || reply.startsWith(`${prefix}.`) ? null : reply;
}

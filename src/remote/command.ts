/**
 * Decides what a message is: a command to obey, or a refusal. Pure, and the one place of that
 * decision. The payload is ignored, so that `nats pub shishi.stop ''` and the seeds' "Exit" both
 * work; payload and headers are handed in because a signature covers the one and stands in the other.
 */

import type { Command } from "../contracts.ts";

/** A message as it came off the wire. */
export interface Incoming {
  readonly subject: string;
  readonly payload: Uint8Array;
  /** Where an answer goes; `""` when none is wanted. */
  readonly reply: string;
  /** The header's first value, or `""`. */
  header(name: string): string;
}

export type Decision =
  | {
    readonly kind: "obey";
    readonly command: Command;
    /** Where to answer, or null when nobody waits for one. */
    readonly replyTo: string | null;
  }
  | {
    readonly kind: "refuse";
    /** As far as it is known. */
    readonly command: Command | "unknown";
    readonly reason: string;
    readonly replyTo: string | null;
  };

/**
 * @param subjects the collector's own subjects (`subjectsOf`).
 * @param prefix of the control subjects.
 */
export function decide(
  message: Incoming,
  subjects: ReadonlyMap<string, Command>,
  prefix: string,
): Decision {
  const replyTo = answerable(message.reply, prefix) ? message.reply : null;
  const command = subjects.get(message.subject);
  if (command === undefined) {
    return { kind: "refuse", command: "unknown", reason: "no such command", replyTo };
  }
  return { kind: "obey", command, replyTo };
}

/**
 * An answer must not become a command. Whoever may publish `status` only could otherwise name
 * `PREFIX.stop` as the reply subject and let a collector send the stop on their behalf.
 */
function answerable(reply: string, prefix: string): boolean {
  return reply !== "" && reply !== prefix && !reply.startsWith(`${prefix}.`);
}

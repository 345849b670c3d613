/**
 * Signs a command and judges a signature: `v1,UNIXMS,NONCE,HEX`, where HEX is the HMAC-SHA256 of
 * `UNIXMS\nNONCE\nSUBJECT\nPAYLOAD` with the control secret. Pure but for the nonces that a verifier
 * remembers; time is handed in. A client without the secret can neither command nor repeat a command.
 */

import { Buffer } from "node:buffer";
import { nodeCrypto } from "./builtins.ts";
import { done, failed, type Result } from "./result.ts";

/** The header that carries the signature. */
export const SIGNATURE_HEADER = "Shishi-Signature";
/** How far the sender's clock may be from the collector's, in both directions. */
export const WINDOW_MS = 30_000;

/**
 * A command signed 30 s ahead stays within the window for 60 s; its nonce must be known for as long.
 * One that sits on the edge is kept a moment longer than it could be used.
 */
const REMEMBERED_MS = 2 * WINDOW_MS + 1_000;
/** More than the commands that are obeyed in that time; some 10 MiB. */
const MAX_NONCES = 65_536;
/** The payload of a command is ignored; hashing a large one is work that any client could ask for. */
const MAX_PAYLOAD_BYTES = 64 * 1024;
const FORM = /^v1,(\d{1,15}),([!-+\--~]{1,128}),([0-9A-Fa-f]{64})$/;

/**
 * @param nonce any printable text without a comma, at most 128 characters, never used twice.
 * @returns the value of the header `Shishi-Signature`.
 */
export function sign(
  secret: string,
  subject: string,
  payload: Uint8Array,
  nowMs: number,
  nonce: string,
): string {
  const mac = hmac(secret, String(nowMs), nonce, subject, payload);
  return `v1,${nowMs},${nonce},${mac.toString("hex")}`;
}

/** A signature that is good. */
export interface Signed {
  readonly signedMs: number;
  /** To be called when the command is obeyed: from then on its nonce is used up. */
  spend(): void;
}

export interface Verifier {
  /** @param header the value of `Shishi-Signature`, `""` where there is none. @param nowMs epoch. */
  judge(header: string, subject: string, payload: Uint8Array, nowMs: number): Result<Signed>;
}

/**
 * @param maxNonces remembered at most. Beyond it every command is refused until old ones may be
 * forgotten: forgetting one early would let it be replayed.
 */
export function createVerifier(secret: string, maxNonces = MAX_NONCES): Verifier {
  /** When each was spent, oldest first. */
  const spent = new Map<string, number>();

  function forget(nowMs: number): void {
    for (const [nonce, spentMs] of spent) {
      if (nowMs - spentMs < REMEMBERED_MS) return;
      spent.delete(nonce);
    }
  }

  return {
    judge(header, subject, payload, nowMs) {
      if (header === "") {
        return failed("not signed: this collector obeys only what is signed with control-secret");
      }
      const [, unixMs = "", nonce = "", hex = ""] = FORM.exec(header) ?? [];
      if (hex === "") {
        return failed(`signature malformed: expected ${SIGNATURE_HEADER}: v1,UNIXMS,NONCE,HEX`);
      }
      // Before the costly part: what is out of the window is refused whatever its secret.
      const skew = skewProblem(nowMs - Number(unixMs));
      if (skew !== null) return failed(skew);
      if (payload.length > MAX_PAYLOAD_BYTES) {
        return failed(
          `payload too large: a signed command has at most ${MAX_PAYLOAD_BYTES} bytes`,
        );
      }
      const expected = hmac(secret, unixMs, nonce, subject, payload);
      if (!nodeCrypto().timingSafeEqual(Buffer.from(hex, "hex"), expected)) {
        return failed("signature wrong: made with another secret, for another subject or payload");
      }
      forget(nowMs);
      if (spent.has(nonce)) return failed("replayed: a command with this nonce was obeyed before");
      if (spent.size >= maxNonces) {
        return failed(`${maxNonces} signed commands within a minute: try again later`);
      }
      return done({ signedMs: Number(unixMs), spend: () => void spent.set(nonce, nowMs) });
    },
  };
}

/** What a collector with a control secret asks of a command. */
export interface Gate {
  readonly verifier: Verifier;
  /** When the collector started, epoch milliseconds. */
  readonly startedMs: number;
}

/** @param secret null: no signature is needed. @param startedMs epoch. */
export function createGate(secret: string | null, startedMs: number): Gate | null {
  if (secret === null) return null;
  // A shell signs with whole seconds.
  return { verifier: createVerifier(secret), startedMs: Math.floor(startedMs / 1000) * 1000 };
}

/**
 * Why a command that was signed then must not be obeyed, or null. A restart forgets the nonces: what was
 * signed before it may have been obeyed by the run before.
 */
export function beforeStart(signedMs: number, { startedMs }: Gate): string | null {
  if (signedMs >= startedMs) return null;
  const seconds = ((startedMs - signedMs) / 1000).toFixed(1);
  return `too old: signed ${seconds} s before this collector started`;
}

function skewProblem(ageMs: number): string | null {
  if (Math.abs(ageMs) <= WINDOW_MS) return null;
  const seconds = (Math.abs(ageMs) / 1000).toFixed(1);
  const most = `more than ${WINDOW_MS / 1000} s`;
  return ageMs > 0
    ? `too old: signed ${seconds} s ago by this collector's clock, ${most}`
    : `too new: signed ${seconds} s ahead of this collector's clock, ${most}`;
}

function hmac(
  secret: string,
  unixMs: string,
  nonce: string,
  subject: string,
  payload: Uint8Array,
): Buffer {
  const mac = nodeCrypto().createHmac("sha256", secret).update(`${unixMs}\n${nonce}\n${subject}\n`);
  if (payload.length > 0) mac.update(payload);
  return mac.digest();
}

/** What is signed and what is refused, without a server. */
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { describe, test } from "node:test";
import fc from "fast-check";
import { decide } from "../../src/remote/remote.ts";
import {
  createVerifier,
  sign,
  SIGNATURE_HEADER,
  type Verifier,
  WINDOW_MS,
} from "../../src/kernel/signature.ts";
import { subjectsOf } from "../../src/remote/protocol.ts";

const SECRET = "a secret of the fleet";
const SUBJECT = "shishi.stop.eu";
const NOW_MS = 1_700_000_000_000;
const EMPTY = new Uint8Array();

function reasonOf(verifier: Verifier, header: string, nowMs = NOW_MS, payload = EMPTY): string {
  const judged = verifier.judge(header, SUBJECT, payload, nowMs);
  if (!judged.ok) return judged.problem;
  judged.value.spend();
  return "";
}

const signed = (atMs = NOW_MS, nonce = "n1") => sign(SECRET, SUBJECT, EMPTY, atMs, nonce);

describe("signature", () => {
  test("is the HMAC-SHA256 of the contract", () => {
    const payload = new TextEncoder().encode("Exit");
    const hex = createHmac("sha256", SECRET).update(`${NOW_MS}\nn1\n${SUBJECT}\nExit`)
      .digest("hex");
    assert.equal(sign(SECRET, SUBJECT, payload, NOW_MS, "n1"), `v1,${NOW_MS},n1,${hex}`);
  });

  test("what is signed is taken, whatever the payload, secret and nonce", () => {
    const nonce = fc.stringMatching(/^[!-+\--~]{1,128}$/);
    fc.assert(
      fc.property(fc.string({ minLength: 1 }), fc.uint8Array(), nonce, (secret, payload, once) => {
        const header = sign(secret, SUBJECT, payload, NOW_MS, once);
        assert.equal(reasonOf(createVerifier(secret), header, NOW_MS, payload), "");
      }),
    );
  });

  test("any one character that is changed is refused", () => {
    const header = signed();
    fc.assert(
      fc.property(fc.nat(header.length - 1), fc.stringMatching(/^[ -~]$/), (at, character) => {
        const other = header.slice(0, at) + character + header.slice(at + 1);
        // Hexadecimal digits may be written in capitals.
        fc.pre(other.toLowerCase() !== header);
        assert.notEqual(reasonOf(createVerifier(SECRET), other), "");
      }),
      { numRuns: 500 },
    );
  });

  for (
    const [what, header] of [
      ["no version", signed().slice(3)],
      ["another version", signed().replace("v1", "v2")],
      ["a short HMAC", signed().slice(0, -1)],
      ["a long HMAC", `${signed()}0`],
      ["no nonce", signed(NOW_MS, "")],
      ["a nonce without end", signed(NOW_MS, "n".repeat(129))],
      ["a time that is none", signed().replace(String(NOW_MS), "1e12")],
      ["a line more", `${signed()}\n`],
      ["nonsense", "\u0000é"],
    ]
  ) {
    test(`malformed: ${what}`, () => {
      const reason = reasonOf(createVerifier(SECRET), header ?? "");
      assert.match(reason, /^signature malformed: expected Shishi-Signature: v1,UNIXMS,NONCE,HEX$/);
    });
  }

  test("unsigned is refused", () => {
    assert.match(reasonOf(createVerifier(SECRET), ""), /^not signed: .*control-secret$/);
  });

  test("another secret, subject or payload is refused", () => {
    const verifier = createVerifier(SECRET);
    const others = [
      sign("another secret", SUBJECT, EMPTY, NOW_MS, "n1"),
      sign(SECRET, "shishi.stop", EMPTY, NOW_MS, "n1"),
      sign(SECRET, SUBJECT, new Uint8Array(1), NOW_MS, "n1"),
    ];
    for (const header of others) assert.match(reasonOf(verifier, header), /^signature wrong: /);
    assert.equal(reasonOf(verifier, signed()), "", "a refusal uses up no nonce");
  });

  test("30 s are taken in both directions, a millisecond more is not, and the skew is named", () => {
    const at = (skewMs: number) => reasonOf(createVerifier(SECRET), signed(NOW_MS + skewMs));
    assert.equal(at(-WINDOW_MS), "");
    assert.equal(at(WINDOW_MS), "");
    assert.match(at(-WINDOW_MS - 1), /^too old: signed 30\.0 s ago by .*, more than 30 s$/);
    assert.match(at(45_300), /^too new: signed 45\.3 s ahead of .*, more than 30 s$/);
  });

  test("a nonce is good once, for as long as its signature is in the window", () => {
    const verifier = createVerifier(SECRET);
    const header = signed(NOW_MS + WINDOW_MS);
    assert.equal(reasonOf(verifier, header), "");
    for (const laterMs of [0, 1, WINDOW_MS, 2 * WINDOW_MS]) {
      assert.match(reasonOf(verifier, header, NOW_MS + laterMs), /^replayed: /);
    }
    assert.match(reasonOf(verifier, header, NOW_MS + 2 * WINDOW_MS + 1), /^too old: /);
    assert.match(reasonOf(verifier, signed(NOW_MS + 1)), /^replayed/, "under another time too");
  });

  test("full: refused, nothing forgotten; room again once the oldest may be forgotten", () => {
    const verifier = createVerifier(SECRET, 3);
    for (const nonce of ["a", "b", "c"]) {
      assert.equal(reasonOf(verifier, signed(NOW_MS, nonce)), "");
    }
    assert.match(reasonOf(verifier, signed(NOW_MS, "d")), /^3 signed commands within a minute/);
    assert.match(reasonOf(verifier, signed(NOW_MS, "a")), /^replayed/);
    const laterMs = NOW_MS + 2 * WINDOW_MS + 1_000;
    assert.equal(reasonOf(verifier, signed(laterMs, "d"), laterMs), "");
  });

  test("what was signed before the collector started is refused, but for status", () => {
    const subjects = subjectsOf("shishi", "eu", "a");
    const startedMs = NOW_MS - 5_000;
    const gate = { verifier: createVerifier(SECRET), startedMs };
    const at = (subject: string, signedMs: number) => {
      const header = sign(SECRET, subject, EMPTY, signedMs, crypto.randomUUID());
      const message = {
        subject,
        payload: EMPTY,
        reply: "r",
        header: (name: string) => (name === SIGNATURE_HEADER ? header : ""),
      };
      const decision = decide(message, subjects, "shishi", gate, NOW_MS);
      return decision.kind === "refuse" ? decision.problem : decision.kind;
    };
    assert.equal(at("shishi.stop", startedMs), "obey");
    const early = startedMs - 2_000;
    assert.equal(at("shishi.stop", early), "too old: signed 2.0 s before this collector started");
    assert.equal(at("shishi.status", early), "obey");
  });
});

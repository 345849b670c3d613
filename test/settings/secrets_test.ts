/**
 * No secret in any line, however it was mangled on its way in.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { type Around, linesOf } from "./kit.ts";

/** Long enough not to be in a message by chance; full of what tears URLs, TOML and flags apart. */
const secret = fc.string({
  unit: fc.constantFrom(..."abcXYZ0189@:/?#%&=,;\\ \"'[]{}|~+-_.é\n"),
  minLength: 6,
  maxLength: 24,
}).map((text) => `k7${text}q`);

/** Places for a secret; each either reads it or refuses it, and may say so only without it. */
const PLACES: [string, (secret: string) => Around][] = [
  ["auth-tokens flag", (s) => ({ argv: ["--auth-tokens", s] })],
  ["auth-tokens flag with a space", (s) => ({ argv: ["--auth-tokens", `a b${s}`] })],
  ["auth-tokens broken by the shell", (s) => ({ argv: ["--auth-tokens", "x", s] })],
  ["write-tokens flag", (s) => ({ argv: ["--write-tokens", `web:${s}`] })],
  ["write-tokens twice", (s) => ({ argv: [`--write-tokens=a:${s}`, `--write-tokens=b:${s}`] })],
  ["write-tokens with tables", (s) => ({ argv: [`--write-tokens=web:${s}=a,b;1/s`] })],
  ["write-tokens variable", (s) => ({ env: { SHISHI_WRITE_TOKENS: `web:${s}` } })],
  ["write-tokens array", (s) => toml(`write-tokens = ["b", ${JSON.stringify(`web:${s}`)}]`)],
  ["write-tokens file", (s) => ({ argv: ["--write-tokens-file=f"], files: { f: `web:${s}` } })],
  ["clickhouse-headers", (s) => ({ argv: [`--clickhouse-headers=X-Key: ${s}`, "--ack=x"] })],
  ["clickhouse-headers, no header", (s) => ({ argv: [`--clickhouse-headers=${s}`] })],
  ["clickhouse-headers array", (s) => toml(`clickhouse-headers = [${JSON.stringify(`A: ${s}`)}]`)],
  ["misspelled flag", (s) => ({ argv: ["--auth-tokns", s] })],
  ["misspelled flag, dash", (s) => ({ argv: ["--auth-tokns", `-${s}`] })],
  ["misspelled flag, joined", (s) => ({ argv: [`--nats-pasword=${s}`] })],
  ["auth-tokens variable", (s) => ({ env: { SHISHI_AUTH_TOKENS: s } })],
  ["misspelled variable", (s) => ({ env: { SHISHI_AUTHTOKENS: s } })],
  ["auth-tokens key", (s) => toml(`auth-tokens = ${JSON.stringify(s)}`)],
  ["auth-tokens array", (s) => toml(`auth-tokens = [${JSON.stringify(s)}]`)],
  ["misspelled key", (s) => toml(`auth-token = ${JSON.stringify(s)}`)],
  ["broken TOML", (s) => toml(`table = "t"\nnats-token = ${s.replaceAll("\n", "")}"`)],
  ["control-secret flag", (s) => ({ argv: ["--control-secret", s, "--ack=x"] })],
  ["control-secret twice", (s) => ({ argv: [`--control-secret=${s}`, `--control-secret=${s}`] })],
  ["control-secret broken by the shell", (s) => ({ argv: ["--control-secret", "x", s] })],
  ["token file", (s) => ({ argv: ["--auth-tokens-file=f"], files: { f: s } })],
  ["nkey", (s) => ({ argv: [`--nats-nkey=${s}`] })],
  ["password without user", (s) => ({ argv: [`--nats-password=${s}`] })],
  ["password and token", (s) => ({ argv: [`--nats-password=${s}`, `--nats-token=${s}`] })],
  ["password is all there is", (s) => ({ argv: [`--clickhouse-url=${s}`] })],
  ["without scheme", (s) => ({ argv: [`--clickhouse-url=u:${s}@h:8123`] })],
  ["raw in a URL", (s) => ({ argv: [`--clickhouse-url=http://u:${s}@h`, "--ack=x"] })],
  ["raw in a wrong URL", (s) => ({ argv: [`--clickhouse-url=http://u:${s}@h/a/b`] })],
  ["digits first", (s) => ({ argv: [`--clickhouse-url=http://u:12${s}@h/a/b`] })],
  ["as the user", (s) => ({ argv: [`--influx-url=http://${s}@h/a/b`] })],
  ["encoded", (s) => ({ argv: [`--influx-url=http://u:${encodeURIComponent(s)}@h/?a=b`] })],
  ["in a query", (s) => ({ argv: [`--influx-url=http://h/db?p=${s}`] })],
  [
    "in a native DSN",
    (s) => ({ argv: [`--clickhouse-dsn=tcp://h:9000?username=u&password=${s}`] }),
  ],
  ["in a second URL", (s) => ({ argv: [`--clickhouse-url=http://h,ftp://u:${s}@h`] })],
  [
    "two URLs in an array",
    (s) => toml(`nats-url = ["ws://u:${JSON.stringify(s).slice(1, -1)}@h"]`),
  ],
  ["NATS URL", (s) => ({ argv: [`--nats-url=nats://u:${s}@h`] })],
  ["NATS URL broken by the shell", (s) => ({ argv: ["--nats-url", "ws://u:x", `${s}@h`] })],
  ["source, raw", (s) => ({ argv: [`--source=amqp://u:${s}@h?queue=q`, "--ack=x"] })],
  ["source, digits first", (s) => ({ argv: [`--source=redis://:12${s}@h?list=q&prefetch=x`] })],
  ["source, encoded", (s) => ({ argv: [`--source=amqp://u:${encodeURIComponent(s)}@h?a=b`] })],
  ["source, as the user", (s) => ({ argv: [`--source=kafka://${s}@h`] })],
  ["source, as a parameter", (s) => ({ argv: [`--source=kafka://u@h/t?password=${s}`] })],
  ["source, in a second one", (s) => ({ argv: [`--source=redis://h?list=l,amqp://u:${s}@h`] })],
  ["source twice", (s) => ({ argv: ["--source=redis://h", `--source=nats://u:${s}@h?a=1`] })],
  ["source, without a scheme", (s) => ({ argv: [`--source=u:${s}@h?list=l`] })],
  ["sources array", (s) => toml(`sources = [${JSON.stringify(`mysql://u:${s}@h/d`)}]`)],
  ["sources file", (s) => ({ argv: ["--sources-file=f"], files: { f: `amqp://u:${s}@h?q=1` } })],
  ["exit, raw", (s) => ({ argv: [`--exit=redis://u:${s}@h?chanel=q`] })],
  ["URL in a variable", (s) => ({ env: { SHISHI_CLICKHOUSE_URL: `http://u:${s}@h?x` } })],
  ["URL in a file", (s) => ({ argv: ["--influx-url-file=f"], files: { f: `http:/u:${s}@h` } })],
];

function toml(text: string): Around {
  return { argv: ["--config=c"], files: { c: text } };
}

describe("secrets stay secret", () => {
  for (const [place, around] of PLACES) {
    test(place, () => {
      fc.assert(fc.property(secret, (s) => {
        const lines = linesOf(around(s)).join("\n");
        for (const form of [s, s.trim(), encodeURIComponent(s), JSON.stringify(s).slice(1, -1)]) {
          assert.ok(!lines.includes(form), lines);
        }
        // Not a larger piece of it either.
        for (let i = 0; i + 6 <= s.length; i++) {
          assert.ok(!lines.includes(s.slice(i, i + 6)), `${s.slice(i, i + 6)}\n${lines}`);
        }
      }));
    });
  }

  test("a line is one line", () => {
    fc.assert(fc.property(secret, fc.constantFrom(...PLACES), (s, [, around]) => {
      for (const line of linesOf(around(s))) assert.doesNotMatch(line, /\p{Cc}/u);
    }));
  });
});

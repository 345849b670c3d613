/** Settings read again: what has changed, what of it can be taken, and that nothing secret is told. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { describe, reloadSettings } from "../../src/settings/reload.ts";
import { loadSettings } from "../../src/settings/settings.ts";
import { CERT, CREDS, KEY } from "./kit.ts";

type Files = Readonly<Record<string, string>>;

const around = (files: Files, argv: readonly string[] = []) => ({
  argv: ["--config", "s.toml", ...argv],
  env: { SHISHI_ID: "edge" },
  hostname: () => "host",
  readFile(path: string) {
    const text = files[path];
    if (text === undefined) throw new Error(`ENOENT: no such file or directory, open '${path}'`);
    return text;
  },
});

function reload(before: Files, after: Files, argv: readonly string[] = []) {
  const loaded = loadSettings(around(before, argv));
  assert.ok(loaded.ok, loaded.ok ? "" : loaded.problems.join("\n"));
  return { before: loaded, ...reloadSettings(around(after, argv), loaded.snapshot) };
}

function reloaded(before: Files, after: Files, argv: readonly string[] = []) {
  const read = reload(before, after, argv);
  assert.ok(read.ok, read.ok ? "" : read.problems.join("\n"));
  return read;
}

test("what has changed is taken and told, from what to what", () => {
  const { settings, taken, kept } = reloaded(
    { "s.toml": 'flush-interval = "1s"\ntables = ["a"]' },
    { "s.toml": 'flush-interval = "2s"\nmax-body-bytes = "1MiB"' },
  );
  assert.equal(settings.flushIntervalMs, 2000);
  assert.equal(settings.maxBodyBytes, 1024 * 1024);
  assert.deepEqual(settings.tables, []);
  assert.deepEqual(kept, []);
  assert.deepEqual(taken.map(describe), [
    "max-body-bytes 10MiB -> 1MiB",
    "tables a -> none",
    "flush-interval 1s -> 2s",
  ]);
});

test("the same in other words is no change", () => {
  const { taken, kept, files } = reloaded(
    { "s.toml": 'flush-interval = "1s"\nbacklog = 1000' },
    { "s.toml": 'flush-interval = "1000ms"\nbacklog = "1_000"\ncreate-table = true' },
  );
  assert.deepEqual([taken, kept, files], [[], [], 1]);
});

test("a flag beats the file, then as before", () => {
  const { taken } = reloaded({ "s.toml": "" }, { "s.toml": 'ack = "memory"' }, ["--ack=disk"]);
  assert.deepEqual(taken, []);
});

test("what needs a restart keeps its value and is told each time", () => {
  const files = { "s.toml": 'group = "eu"\nshare-port = true\nflush-interval = "3s"' };
  const first = reloaded({ "s.toml": "" }, files);
  assert.equal(first.settings.group, "default");
  assert.equal(first.settings.sharePort, false);
  assert.equal(first.settings.flushIntervalMs, 3000);
  assert.equal(first.wanted.group, "eu");
  assert.deepEqual(first.kept.map(describe), ["share-port false -> true", "group default -> eu"]);
  const again = reloadSettings(around(files), first.snapshot);
  assert.ok(again.ok);
  assert.deepEqual(again.kept, first.kept);
  assert.deepEqual(again.taken, []);
});

test("secrets and files count by their content, which is not told", () => {
  const toml = [
    'auth-tokens-file = "tokens"',
    'tls-cert = "cert"\ntls-key = "key"',
    'nats-url = "ws://127.0.0.1:1"\nnats-creds = "creds"',
    'clickhouse-url-file = "url"',
  ].join("\n");
  const before = {
    "s.toml": toml,
    tokens: "a-token-that-is-long-enough",
    cert: CERT,
    key: KEY,
    creds: CREDS,
    url: "http://u:hidden1@a:8123/db",
  };
  const after = {
    ...before,
    tokens: "another-token-long-enough",
    cert: CERT + "\n",
    creds: CREDS + "\n",
    url: "http://u:hidden2@b:8123/db",
  };
  const { taken, settings, kept } = reloaded(before, after);
  assert.deepEqual(settings.authTokens, ["another-token-long-enough"]);
  assert.equal(settings.tls?.cert, CERT + "\n");
  assert.deepEqual(kept, []);
  assert.deepEqual(taken.map(describe), [
    "auth-tokens",
    "tls-cert",
    "clickhouse-url http://a:8123/db -> http://b:8123/db",
    "nats-creds",
  ]);
});

test("to begin or end HTTPS takes a restart", () => {
  const tls = { "s.toml": 'tls-cert = "cert"\ntls-key = "key"', cert: CERT, key: KEY };
  const begins = reloaded({ "s.toml": "" }, tls);
  assert.equal(begins.settings.tls, null);
  assert.deepEqual(begins.kept.map(({ name }) => name), ["tls-cert", "tls-key"]);
  const ends = reloaded(tls, { "s.toml": "" });
  assert.equal(ends.settings.tls?.cert, CERT);
  const moves = reloaded(tls, {
    ...tls,
    "s.toml": tls["s.toml"].replace('"cert"', '"c2"'),
    c2: CERT,
  });
  assert.deepEqual(moves.taken.map(describe), ["tls-cert cert -> c2"]);
});

test("anything wrong: every problem, and nothing to run with", () => {
  const read = reload({ "s.toml": "" }, {
    "s.toml": 'flush-interval = "soon"\nbacklog = 5\nmax-block-size = 6\nbogus = 1\nack = "disk"',
  });
  assert.ok(!read.ok);
  assert.equal(read.problems.length, 3, read.problems.join("\n"));
  const gone = reload({ "s.toml": "" }, {});
  assert.ok(!gone.ok && gone.problems[0]?.includes("expected a readable TOML file"));
});

test("whatever two files say, the second reading of the same finds nothing more to take", () => {
  const line = fc.constantFrom(
    'group = "a"',
    'listen = ":1"',
    'ack = "memory"',
    "concurrency = 9",
    'tables = "x,y"',
    'idle-interval = "50ms"',
    'influx-url = "http://i:8086"',
  );
  const toml = fc.uniqueArray(line, { maxLength: 5 }).map((lines) => lines.join("\n"));
  fc.assert(fc.property(toml, toml, (one, two) => {
    const first = reloaded({ "s.toml": one }, { "s.toml": two });
    const again = reloadSettings(around({ "s.toml": two }), first.snapshot);
    assert.ok(again.ok);
    assert.deepEqual(again.taken, []);
    assert.deepEqual(again.settings, first.settings);
    const back = reloadSettings(around({ "s.toml": one }), first.snapshot);
    assert.ok(back.ok);
    assert.deepEqual(back.settings, first.before.settings);
  }));
});

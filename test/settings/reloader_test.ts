/** Reloads in order, and certificates that are renewed on disk without anybody telling. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Log } from "../../src/contracts.ts";
import { Reloader, type ReloaderOptions, reloadSettings } from "../../src/settings/reload.ts";
import { loadSettings, type Settings } from "../../src/settings/settings.ts";
import {
  CERTIFICATE,
  CERTIFICATE_KEY,
  RENEWED_CERTIFICATE,
  RENEWED_KEY,
} from "../kit/certificate.ts";
import { CLIENT_CA, EDGE, OTHER_CA } from "../kit/client_certificate.ts";
import { ManualClock } from "../kit/manual_clock.ts";

const MINUTE_MS = 60_000;
const TLS = 'tls-cert = "cert"\ntls-key = "key"\n';

function kit(
  toml: string,
  more: Partial<ReloaderOptions> = {},
  moreFiles: Readonly<Record<string, string>> = {},
) {
  const files: Record<string, string> = {
    "s.toml": toml,
    cert: CERTIFICATE,
    key: CERTIFICATE_KEY,
    ...moreFiles,
  };
  const readFile = (path: string) => {
    const text = files[path];
    if (text === undefined) throw new Error(`ENOENT: no such file, open '${path}'`);
    return text;
  };
  const options = { argv: ["--config=s.toml"], env: {}, readFile };
  const first = loadSettings(options);
  assert.ok(first.ok);
  const clock = new ManualClock();
  const lines: string[] = [];
  const at = (level: string): Log["info"] => (message, fields = {}) => {
    lines.push([level, message, ...Object.values(fields)].join(" | "));
  };
  const adopted: Settings[] = [];
  const reloader = new Reloader({
    first,
    read: (running) => reloadSettings(options, running),
    readFile: (path) => Promise.resolve().then(() => readFile(path)),
    adopt: (settings) => Promise.resolve(void adopted.push(settings)),
    stopping: () => false,
    clock,
    log: { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") },
    ...more,
  });
  return { files, clock, lines, adopted, reloader };
}

test("one line says what changed, and one each what waits for a restart", async () => {
  const { files, lines, adopted, reloader } = kit("");
  files["s.toml"] = 'flush-interval = "2s"\nack = "memory"\ngroup = "eu"';
  await reloader.reload();
  assert.deepEqual(adopted.map(({ flushIntervalMs, ack }) => [flushIntervalMs, ack]), [
    [2000, "memory"],
  ]);
  assert.deepEqual(lines, [
    "warn | reload: group is taken at the next start only | default | eu",
    "info | reloaded | flush-interval 1s -> 2s, ack disk -> memory",
  ]);
  lines.length = 0;
  await reloader.reload();
  assert.equal(adopted.length, 1);
  assert.equal(lines.at(-1), "info | reload: nothing else has changed");
});

test("a broken file changes nothing, each problem has a line, and the next reload is a fresh one", async () => {
  const { files, lines, adopted, reloader } = kit("");
  files["s.toml"] = 'flush-interval = "soon"\nbogus = 1';
  await reloader.reload();
  assert.equal(adopted.length, 0);
  assert.equal(lines.length, 2);
  assert.ok(lines.every((line) => line.startsWith("error | reload: unusable settings")), lines[0]);
  files["s.toml"] = 'flush-interval = "3s"';
  await reloader.reload();
  assert.equal(adopted[0]?.flushIntervalMs, 3000);
});

test("what cannot be taken is told, and tried again at the next reload", async () => {
  let refuses = true;
  const { files, lines, reloader } = kit("", {
    adopt: () => refuses ? Promise.reject(new Error("the disk: no")) : Promise.resolve(),
  });
  files["s.toml"] = 'flush-interval = "3s"';
  await reloader.reload();
  assert.deepEqual(lines, ["error | reload: not taken; nothing has changed | the disk: no"]);
  refuses = false;
  await reloader.reload();
  assert.equal(lines[1], "info | reloaded | flush-interval 1s -> 3s");
});

test("one at a time, and what is asked for meanwhile is one more reading", async () => {
  const gates: (() => void)[] = [];
  let reads = 0;
  const { files, reloader } = kit("", {
    adopt: () => new Promise((resolve) => gates.push(resolve)),
    onReload: (what) => void (reads += what === "begins" ? 1 : 0),
  });
  files["s.toml"] = 'flush-interval = "2s"';
  const one = reloader.reload();
  await Promise.resolve();
  while (gates.length === 0) await Promise.resolve();
  files["s.toml"] = 'flush-interval = "3s"';
  const others = [reloader.reload(), reloader.reload(), reloader.reload()];
  assert.equal(gates.length, 1);
  gates[0]!();
  await one;
  while (gates.length === 1) await Promise.resolve();
  gates[1]!();
  await Promise.all(others);
  assert.equal(reads, 2);
});

test("other work begins when the reload under way has ended, and the next one waits for it", async () => {
  const told: string[] = [];
  const { reloader } = kit("", { onReload: (what) => told.push(what) });
  let done = () => {};
  const first = reloader.reload();
  while (told.length === 0) await Promise.resolve();
  const working = reloader.between(() => {
    told.push("work");
    return new Promise((resolve) => done = resolve);
  });
  const next = reloader.reload();
  await first;
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(told, ["begins", "ended", "work"]);
  told.push("done");
  done();
  await Promise.all([working, next]);
  assert.deepEqual(told.slice(3), ["done", "begins", "ended"]);
});

test("who started the process is told in order, also when nothing could be taken", async () => {
  const told: string[] = [];
  const { files, reloader } = kit("", { onReload: (what) => told.push(what) });
  await reloader.reload();
  files["s.toml"] = "bogus = 1";
  await reloader.reload();
  assert.deepEqual(told, ["begins", "ended", "begins", "ended"]);
});

test("without any file, and while it stops, a reload is harmless and says so", async () => {
  const first = loadSettings({ argv: [], env: {}, readFile: () => "" });
  assert.ok(first.ok);
  const bare = kit("", {
    first,
    read: (running) => reloadSettings({ argv: [], env: {}, readFile: () => "" }, running),
  });
  await bare.reloader.reload();
  assert.deepEqual(bare.lines, [
    "info | reload: no settings come from a file; there is nothing to read again",
  ]);
  const late = kit("", { stopping: () => true });
  late.files["s.toml"] = "bogus = 1";
  await late.reloader.reload();
  assert.deepEqual(late.lines, ["info | reload: the collector is stopping; nothing is read"]);
});

test("a renewed certificate is taken by itself within a minute, a wrong pair is not and is told once", async () => {
  const { files, clock, lines, adopted, reloader } = kit(TLS);
  await clock.advance(MINUTE_MS);
  assert.deepEqual([lines, adopted], [[], []], "nothing to say of files that are the same");

  const halves = [
    RENEWED_CERTIFICATE,
    RENEWED_CERTIFICATE.slice(0, 200),
    // The chain's second certificate is still being written.
    CERTIFICATE + RENEWED_CERTIFICATE.slice(0, 200),
    "",
  ];
  for (const half of halves) {
    files["cert"] = half;
    lines.length = 0;
    await clock.advance(MINUTE_MS);
    assert.equal(lines.length, 1, `${half.length}: ${lines.join("\n")}`);
    assert.ok(lines[0]!.startsWith("warn | the certificate on disk is unusable"), lines[0]);
    await clock.advance(3 * MINUTE_MS);
    assert.equal(lines.length, 1, "told once");
  }
  for (let times = 0; times < 2; times++) {
    lines.length = 0;
    delete files["cert"];
    await clock.advance(3 * MINUTE_MS);
    assert.equal(lines.length, 1, "told each time that it goes");
    assert.match(lines[0]!, /ENOENT/);
    files["cert"] = CERTIFICATE;
    await clock.advance(MINUTE_MS);
  }
  assert.equal(adopted.length, 0);

  files["cert"] = RENEWED_CERTIFICATE;
  files["key"] = RENEWED_KEY;
  await clock.advance(MINUTE_MS);
  assert.equal(adopted.length, 1);
  assert.equal(adopted[0]?.tls?.cert, RENEWED_CERTIFICATE);
  assert.match(lines.at(-1)!, /^info \| the renewed certificate is served \| cert \| \w+ +\d+ /);

  lines.length = 0;
  await clock.advance(MINUTE_MS);
  await reloader.reload();
  assert.deepEqual(lines, ["info | reload: nothing has changed"], "it is what runs by now");
  reloader.close();
});

const CLIENTS = `${TLS}tls-client-auth = "required"\ntls-client-ca = "ca"\n`;

test("authorities of clients that are renewed on disk are taken, with the certificate or alone", async () => {
  const { files, clock, lines, adopted, reloader } = kit(CLIENTS, {}, { ca: CLIENT_CA });
  const caOf = (settings: Settings | undefined) => settings?.tls?.clients?.ca;
  for (
    const [what, damaged] of [["damaged", CLIENT_CA.slice(0, 300)], [
      "no authority's",
      EDGE.cert,
    ]] as const
  ) {
    lines.length = 0;
    files["ca"] = damaged;
    await clock.advance(2 * MINUTE_MS);
    assert.equal(lines.length, 1);
    assert.match(lines[0]!, new RegExp(`tls-client-ca: expected .* got "ca",.* ${what}$`));
  }
  assert.equal(adopted.length, 0);
  lines.length = 0;
  files["ca"] = OTHER_CA;
  await clock.advance(MINUTE_MS);
  assert.deepEqual([caOf(adopted[0]), adopted[0]?.tls?.cert], [OTHER_CA, CERTIFICATE]);
  assert.deepEqual(lines, ["info | the renewed authorities of clients are taken | ca"]);
  lines.length = 0;
  files["ca"] = `${CLIENT_CA}${OTHER_CA}`;
  files["cert"] = RENEWED_CERTIFICATE;
  files["key"] = RENEWED_KEY;
  await clock.advance(MINUTE_MS);
  assert.deepEqual([caOf(adopted[1]), adopted[1]?.tls?.cert], [files["ca"], RENEWED_CERTIFICATE]);
  assert.equal(lines.length, 2);
  lines.length = 0;
  await reloader.reload();
  assert.deepEqual(lines, ["info | reload: nothing has changed"], "it is what runs by now");
  reloader.close();
});

test("whether clients are asked for certificates changes at a restart, with their authorities", async () => {
  const { files, lines, adopted, reloader } = kit(CLIENTS, {}, { ca: CLIENT_CA, other: OTHER_CA });
  files["s.toml"] = TLS + 'flush-interval = "9s"';
  await reloader.reload();
  assert.deepEqual(lines.map((line) => line.split(" | ")[1]), [
    "reload: tls-client-auth is taken at the next start only",
    "reload: tls-client-ca is taken at the next start only",
    "reloaded",
  ]);
  assert.deepEqual(adopted.map(({ tls }) => tls?.clients), [
    { caFile: "ca", ca: CLIENT_CA, required: true },
  ]);
  reloader.close();
});

test("a reload refuses a wrong pair whole", async () => {
  const { files, lines, adopted, reloader } = kit(TLS);
  files["key"] = RENEWED_KEY;
  files["s.toml"] = TLS + 'flush-interval = "9s"';
  await reloader.reload();
  assert.equal(adopted.length, 0);
  assert.match(lines.join(), /^error \| reload: unusable.* \| tls-key: expected the key of "cert"/);
  files["cert"] = RENEWED_CERTIFICATE;
  await reloader.reload();
  assert.equal(adopted[0]?.tls?.key, RENEWED_KEY);
  assert.equal(lines.at(-1), "info | reloaded | tls-cert, tls-key, flush-interval 1s -> 9s");
});

/**
 * The Debian package on a host that has just been made: install, upgrade while events come in, remove,
 * purge. The tests go through one host's life and build on each other.
 */

import assert from "node:assert/strict";
import { copyFileSync, lstatSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { ROOT } from "../../.release/build.ts";
import { debTexts } from "../../.release/deb_texts.ts";
import { readStamp } from "../../.release/stamp.ts";
import { freePort } from "../kit/free_port.ts";
import { compare, load, storedIds } from "../kit/load.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { eventually } from "../kit/wait.ts";
import { type Ended, ok, run } from "./exec.ts";
import { nextRelease, type Packaged, type Release, thisRelease } from "./releases.ts";
import { newRoot, type Root } from "./root.ts";
import { startService } from "./service.ts";

const CONFFILE = "etc/shishi/shishi.toml";
const UNIT = "usr/lib/systemd/system/shishi.service";
const ENABLED = "etc/systemd/system/multi-user.target.wants/shishi.service";
const STATE = "var/lib/shishi";
/**
 * Of lintian: that nothing is compressed, which is so here alone, and the strings in the program, which are Bun's. How they
 * are spelled is never shown, and its libraries are overridden.
 */
const NOT_ASKED = [
  "--suppress-tags=uses-no-compression-for-control-tarball,uses-no-compression-for-data-tarball",
  "--dont-check-part=binaries/spelling,libraries/embedded",
];

let root: Root;
let clickhouse: ClickHouse;
let [first, next] = [null, null] as unknown as [Release, Packaged];
let url: string;
/** It takes a while, in which the host lives. */
let lintian: Promise<Ended>;

before(async () => {
  [first, next, root, clickhouse] = await Promise.all([
    thisRelease(),
    nextRelease(),
    newRoot(),
    startClickHouse(),
  ]);
  for (const { deb } of [first, next]) copyFileSync(deb, join(root.path, "root", basename(deb)));
  lintian = run(["lintian", "--allow-root", "--info", ...NOT_ASKED, first.deb]);
  url = `http://127.0.0.1:${await freePort()}`;
});
after(async () => {
  await clickhouse?.close();
  await root?.close();
});

/** Also a link that leads to nothing as seen from here. */
const here = (path: string) =>
  lstatSync(join(root.path, path), { throwIfNoEntry: false }) !== undefined;
const install = ({ deb }: Packaged) => root.ok(["dpkg", "--install", `/root/${basename(deb)}`]);

test("it depends on no newer glibc than the program does", async () => {
  const said = await ok(["dpkg-deb", "--field", first.deb, "Depends"]);
  const symbols = await ok(["grep", "-ao", "GLIBC_2[.][0-9]*", join(ROOT, "dist/shishi")]);
  const newest = Math.max(...[...symbols.matchAll(/2\.(\d+)/g)].map(([, minor]) => Number(minor)));
  assert.match(said, new RegExp(`libc6 \\(>= 2\\.${newest}\\)`));
});

test("installed, it is there with a user, a folder and its settings", async () => {
  await install(first);
  assert.match(await root.ok(["shishi", "--version"]), new RegExp(`^shishi ${first.version} `));
  assert.equal(await root.ok(["dpkg", "--verify", "shishi-collector"]), "");
  const owner = (path: string) => root.ok(["stat", "--format=%U:%G %a", `/${path}`]);
  assert.equal(await owner(STATE), "shishi:shishi 700\n");
  assert.equal(await owner(CONFFILE), "root:shishi 640\n");
  assert.match(await root.ok(["getent", "passwd", "shishi"]), /:\/var\/lib\/shishi:.*nologin$/m);
  assert.ok(here(ENABLED), "the service is enabled for the next start of the host");
});

test("its unit is the one that shishi service print writes there", async () => {
  const settings = ["--user=shishi", `--config=/${CONFFILE}`];
  const printed = await root.ok(["/usr/bin/shishi", "service", "print", ...settings]);
  assert.equal(withoutRemarks(root.read(UNIT)), withoutRemarks(printed));
  assert.match(printed, /^User=shishi$/m);
});

function withoutRemarks(unit: string): string {
  return unit.slice(unit.indexOf("[Unit]"));
}

test("every shell's completions are there", async () => {
  const { completions } = await debTexts(ROOT, readStamp(ROOT), "");
  for (const text of Object.values(completions)) assert.match(text, /flush-interval/);
  assert.equal(root.read("usr/share/bash-completion/completions/shishi"), completions.bash);
  assert.equal(root.read("usr/share/zsh/vendor-completions/_shishi"), completions.zsh);
  assert.equal(root.read("usr/share/fish/vendor_completions.d/shishi.fish"), completions.fish);
});

test("every file of the example is a setting that works", async () => {
  const { code, stderr } = await root.run(["shishi", "check", `--config=/${CONFFILE}`]);
  // No ClickHouse there, but nothing is wrong with the settings.
  assert.notEqual(code, 2, stderr);
});

test("an upgrade under load loses no acknowledged row and doubles none", async () => {
  const settings = [`listen = "${url.slice(7)}"`, `clickhouse-url = "${clickhouse.url}"`];
  writeFileSync(join(root.path, CONFFILE), `${root.read(CONFFILE)}\n${settings.join("\n")}\n`);
  let service = await startService(root, url);
  const version = async () => (await (await fetch(`${url}/api/status`)).json()).version;
  const end = new AbortController();
  const answers = { ok: 0 };
  const counting = async (to: string, init: RequestInit) => {
    const answer = await fetch(to, { ...init, signal: AbortSignal.timeout(10_000) });
    if (answer.ok) answers.ok++;
    return answer;
  };
  const loading = load({
    url,
    clients: 8,
    events: 1_000_000,
    eventsPerRequest: 5,
    rowsPerSecond: 1_000,
    insist: true,
    signal: end.signal,
    fetch: counting,
  });
  const moreAnswers = async (more: number) => {
    const enough = answers.ok + more;
    await eventually(() => assert.ok(answers.ok >= enough), { withinMs: 20_000 });
  };

  await moreAnswers(100);
  await install(next);
  assert.equal(await version(), first.version, "who runs it has not started it again");
  await moreAnswers(100);
  assert.equal(await service.stop(), 0, service.log());
  service = await startService(root, url);
  await moreAnswers(100);
  end.abort();
  const books = await loading;
  assert.equal(await version(), next.version);
  assert.equal(await service.stop(), 0, service.log());

  assert.ok(books.acknowledged.size >= 1_500);
  const { missing, doubled } = compare(books, await storedIds(clickhouse));
  assert.deepEqual({ missing, doubled }, { missing: 0, doubled: 0 });
});

test("the upgrade kept what the administrator wrote, and to whom it belongs", async () => {
  assert.match(root.read(CONFFILE), /^clickhouse-url = /m);
  assert.equal(statSync(join(root.path, CONFFILE)).mode & 0o777, 0o640);
  assert.match(
    await root.ok(["dpkg-query", "--show", "shishi-collector"]),
    new RegExp(`\t${next.version}-`),
  );
});

test("removed, it leaves settings and rows", async () => {
  // Nobody answers there: the row stays on disk.
  const settings = root.read(CONFFILE).replace(
    /^clickhouse-url = .*$/m,
    'clickhouse-url = "http://127.0.0.1:9"',
  );
  writeFileSync(join(root.path, CONFFILE), `${settings}shutdown-timeout = "100ms"\n`);
  const service = await startService(root, url);
  const answer = await fetch(`${url}/events`, { method: "POST", body: '{"eventType":"kept"}' });
  assert.equal(answer.status, 202);
  assert.equal(await service.stop(), 0, service.log());

  await root.ok(["dpkg", "--remove", "shishi-collector"]);
  assert.ok(!here("usr/bin/shishi") && !here(UNIT));
  assert.ok(here(CONFFILE));
  assert.match(await root.ok(["grep", "-rl", "kept", `/${STATE}`]), /ndjson/);
});

test("purged, it leaves the rows that exist nowhere else, and says so", async () => {
  const { code, stdout, stderr } = await root.run(["dpkg", "--purge", "shishi-collector"]);
  assert.equal(code, 0, stderr);
  assert.match(stdout + stderr, /\/var\/lib\/shishi holds rows that ClickHouse does not have/);
  assert.ok(!here("etc/shishi") && !here(ENABLED));
  assert.match(await root.ok(["grep", "-rl", "kept", `/${STATE}`]), /ndjson/);
});

test("installed again, it delivers them; purged then, nothing is left", async () => {
  await install(next);
  const settings = [`listen = "${url.slice(7)}"`, `clickhouse-url = "${clickhouse.url}"`];
  writeFileSync(join(root.path, CONFFILE), `${settings.join("\n")}\n`);
  const service = await startService(root, url);
  await eventually(async () => {
    const kept = "SELECT count() FROM analytics_events WHERE event_type = 'kept'";
    assert.equal(await clickhouse.query(kept), "1");
  }, { withinMs: 20_000 });
  assert.equal(await service.stop(), 0, service.log());
  await root.ok(["dpkg", "--purge", "shishi-collector"]);
  assert.ok(!here(STATE) && !here("etc/shishi") && !here("usr/share/doc/shishi-collector"));
  assert.equal(
    await root.ok(["find", "/", "-xdev", "-name", "*shishi*", "-not", "-path", "/root/*"]),
    "",
  );
});

test("lintian finds nothing", async () => {
  assert.deepEqual(await lintian, { code: 0, stdout: "", stderr: "" });
});

/**
 * What the README tells people to type, typed on a host that has just been made, with ClickHouse and NATS
 * on another: the archive is unpacked, events go in, the collector is stopped over NATS. Only addresses of
 * servers are put in place of the README's.
 */

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { eventually } from "../kit/wait.ts";
import { blocks, commands } from "./blocks.ts";
import { ok } from "./exec.ts";
import { type Cable, layCable } from "./net.ts";
import { thisRelease } from "./releases.ts";
import { newRoot, type Root } from "./root.ts";
import { type Servers, startServers } from "./servers.ts";
import { openShell, type Shell } from "./shell.ts";
import { storedXz } from "./stored_xz.ts";

let cable: Cable;
let servers: Servers;
let host: Root;
let shell: Shell;

before(async () => {
  cable = await layCable();
  [host, servers] = await Promise.all([newRoot(), startServers(cable)]);
  await bring(`${host.path}/root`);
  shell = openShell(cable.near.inside(host.inside(["sh", "-c", "cd && exec sh"])));
});
after(async () => {
  shell?.close();
  await servers?.close();
  await host?.close();
  cable?.close();
});

/** The archive and its sum, as they were downloaded. */
async function bring(to: string): Promise<void> {
  const { version, folder } = await thisRelease();
  const archive = `shishi-${version}-linux-x64.tar`;
  // What the release does takes a minute: here the form is xz's, and nothing is compressed.
  writeFileSync(join(to, `${archive}.xz`), storedXz(readFileSync(join(folder, archive))));
  await ok(["sh", "-c", `sha256sum ${archive}.xz > SHA256SUMS`], { cwd: to });
}

test("nothing is on the host that would help", async () => {
  for (const name of ["node", "bun", "deno", "python3", "clickhouse", "nats-server"]) {
    assert.notEqual((await shell.type(`command -v ${name}`)).code, 0, name);
  }
});

test("the README's first steps do what it says", async () => {
  const typed = blocks("quick-start").flatMap(commands);
  assert.ok(typed.length >= 8);
  for (const { line, prints } of typed) {
    const { code, stdout } = await shell.type(line.replaceAll("127.0.0.1", cable.far.address));
    assert.equal(code, 0, `${line}\n${stdout}${shell.stderr()}`);
    if (prints !== null) assert.equal(stdout.trimEnd(), prints.trimEnd(), line);
    // Who types by hand is slower than a start.
    if (line.endsWith("&")) await alive();
  }
});

function alive(): Promise<string> {
  const ask = cable.near.inside(["curl", "--silent", "--show-error", "localhost:8080/healthz"]);
  return eventually(() => ok(ask), { withinMs: 20_000 });
}

test("the collector has ended well, and what it took is in ClickHouse", async () => {
  const { code } = await shell.type("wait $!");
  assert.equal(code, 0, shell.stderr());
  assert.match(shell.stderr(), /"message":"stopped".*"received":2,.*"stored":2,.*"lost":0/);
  assert.equal(await servers.query("SELECT count(), uniqExact(id) FROM analytics_events"), "2\t2");
});

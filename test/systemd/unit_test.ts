/** `shishi service print`, judged by systemd's own tools. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { runShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

const print = (args: readonly string[], env: Record<string, string> = {}) =>
  runShishi(["service", "print", ...args], { env });

/** What `systemd-analyze` says of a unit; its exit code must be 0. */
function analyze(unit: string, ...args: string[]): string {
  const dir = tempDir("unit");
  const path = join(dir, unit.includes("%i") ? "shishi@.service" : "shishi.service");
  // It wants to find the program, which lies in somebody's home here.
  writeFileSync(path, unit.replace(/^(ExecStart=)("[^"]*"|\S+)/m, "$1/bin/true"));
  const { status, stdout, stderr, error } = spawnSync("systemd-analyze", [...args, path], {
    encoding: "utf8",
    env: { ...process.env, SYSTEMD_LOG_LEVEL: "warning", NO_COLOR: "1" },
  });
  removeDir(dir);
  assert.equal(status, 0, `${error ?? ""}${stdout}${stderr}`);
  return stdout + stderr;
}

test("systemd finds nothing wrong with it, and its sandbox tight", async () => {
  const made = [
    await print([]),
    await print([
      "--user",
      "shishi",
      "--program=/opt/a b/shishi",
      "--data-dir=/srv/a b%c",
      "--listen=:443",
      "--table=t",
      '--group=a "b" $c %d',
    ]),
  ];
  for (const { code, stdout, stderr } of made) {
    assert.equal(code, 0, stderr);
    assert.equal(analyze(stdout, "verify", "--man=no"), "");
    const judged = analyze(stdout, "security", "--offline=true", "--threshold=25");
    const [, exposure = "99"] = /Overall exposure level for \S+: ([\d.]+)/.exec(judged) ?? [];
    assert.ok(Number(exposure) <= 2.5, judged);
  }
  const [plain, other] = made.map(({ stdout }) => stdout);
  assert.match(plain!, /^DynamicUser=yes\nStateDirectory=shishi$/m);
  assert.match(plain!, /^CapabilityBoundingSet=$/m);
  assert.match(other!, /^ExecStart="\/opt\/a b\/shishi" serve /m);
  assert.match(other!, /^User=shishi\nReadWritePaths="\/srv\/a b%%c"$/m);
  assert.match(other!, /^AmbientCapabilities=CAP_NET_BIND_SERVICE$/m);
  assert.match(other!, / "--group=a \\"b\\" \$\$c %%d" "--data-dir=\/srv\/a b%%c"$/m);
});

test("a template: instances share the port and a user, each with an id and a folder of its own", async () => {
  const made = [
    await print(["--template", "--listen=:443", "--share-port", "--id=edge 7"]),
    await print(["--template", "--user=shishi", "--data-dir=/srv/a b%c", "--table=t"]),
    await print(["--template"]),
  ];
  for (const { code, stdout, stderr } of made) {
    assert.equal(code, 0, stderr);
    assert.equal(analyze(stdout, "verify", "--man=no"), "");
    assert.match(
      stdout,
      /^# systemctl daemon-reload && systemctl enable --now shishi@1 shishi@2$/m,
    );
    assert.match(stdout, /^DefaultInstance=1$/m);
    assert.match(stdout, /^User=shishi$/m);
  }
  const [named, elsewhere, plain] = made.map(({ stdout }) => stdout);
  assert.match(
    named!,
    / serve --listen=:443 --share-port "--id=edge 7-%i" --data-dir=\/var\/lib\/shishi\/%i$/m,
  );
  assert.match(named!, /^DynamicUser=yes\n/m);
  assert.match(plain!, / serve --share-port --id=%H-%i --data-dir=\/var\/lib\/shishi\/%i$/m);
  assert.match(plain!, /^StateDirectory=shishi\/%i$/m);
  assert.match(elsewhere!, / --table=t --share-port --id=%H-%i "--data-dir=\/srv\/a b%%c\/%i"$/m);
  assert.match(elsewhere!, /^ReadWritePaths="\/srv\/a b%%c"$/m);
});

test("a template: each instance has an admin port of its own", async () => {
  const { code, stdout } = await print([
    "--template",
    "--admin-listen=127.0.0.1:9090,unix:/run/shishi/admin",
  ]);
  assert.equal(code, 0);
  assert.equal(analyze(stdout, "verify", "--man=no"), "");
  assert.match(
    stdout,
    / --id=%H-%i --admin-listen=127.0.0.1:909%i --admin-listen=unix:\/run\/shishi\/admin.%i --data-dir=/,
  );
  const fixed = await print(["--template", "--admin-listen=127.0.0.1:9091"]);
  assert.equal(fixed.code, 2);
  assert.match(
    fixed.stderr,
    /admin-listen: expected a port that ends in 0, where each instance puts its number, got 127/,
  );
  const alone = await print(["--admin-listen=127.0.0.1:91"]);
  assert.match(alone.stdout, / serve --admin-listen=127.0.0.1:91$/m);
  assert.match(alone.stdout, /^AmbientCapabilities=CAP_NET_BIND_SERVICE$/m);
});

test("it carries the settings given, whole paths, and time to stop", async () => {
  const { stdout } = await print(
    ["--shutdown-timeout", "90s", "--data-dir", "/var/lib/shishi/a", "--no-create-table"],
    { SHISHI_TABLE: "clicks", SHISHI_SHUTDOWN_TIMEOUT: "1s" },
  );
  assert.match(
    stdout,
    /^ExecStart=\S.* serve --shutdown-timeout=90s --create-table=false --table=clicks$/m,
  );
  assert.match(stdout, /^TimeoutStopSec=115s$/m);
  assert.match(stdout, /^StateDirectory=shishi\/a$/m);
});

test("no secret is pasted: each becomes a credential", async () => {
  const { stdout } = await print([
    "--clickhouse-url=http://u:geheim@h:8123/db",
    "--influx-url=http://h:8086/db",
    "--control-secret",
    "streng-geheim-123",
    "--nats-url=ws://h:9222",
  ], { SHISHI_NATS_TOKEN: "auch-geheim" });
  assert.doesNotMatch(stdout, /geheim/);
  assert.match(stdout, /^ExecStart=.* --influx-url=http:\/\/h:8086\/db --nats-url=ws:\/\/h:9222$/m);
  for (const name of ["clickhouse-url", "control-secret", "nats-token"]) {
    assert.match(stdout, new RegExp(`^LoadCredential=${name}:/etc/shishi/${name}$`, "m"));
    assert.match(stdout, new RegExp(`^# Write the value of ${name} into`, "m"));
  }
});

test("what lies where the sandbox lets nobody look is named, each with what to do", async () => {
  // There, wherever other temporary files of this host are.
  const dir = mkdtempSync("/tmp/shishi-test-unit-");
  const file = join(dir, "shishi.toml");
  writeFileSync(file, "");
  const { code, stderr } = await print([
    ...["--program=/root/shishi", "--config", file, "--data-dir=/home/me/data", "--user=me"],
  ]);
  removeDir(dir);
  assert.equal(code, 0);
  const hidden = " cannot be seen by the service; ";
  assert.deepEqual(stderr.trimEnd().split("\n"), [
    `shishi: /root/shishi${hidden}install it in /usr/local/bin first`,
    `shishi: ${file}${hidden}move it to /etc/shishi first`,
    `shishi: /home/me/data${hidden}choose a data-dir elsewhere`,
  ]);
});

test("a secret list that is given in pieces is one credential to write", async () => {
  const { stdout } = await print([
    "--auth-tokens=a-long-enough-token",
    "--auth-tokens=another-one",
  ]);
  assert.equal(stdout.match(/^# Write the value of auth-tokens/gm)?.length, 1);
});

test("what cannot work is said instead", async () => {
  const folder = await print(["--data-dir", "/srv/shishi"]);
  assert.equal(folder.code, 2);
  assert.match(folder.stderr, /data-dir: expected a folder below \/var\/lib, or --user/);
  assert.equal(folder.stdout, "");
  const verb = await runShishi(["service", "install"]);
  assert.equal(verb.code, 2);
  assert.match(verb.stderr, /expected print, got "install"/);
  assert.equal((await print(["--tabel", "x"])).code, 2);
});

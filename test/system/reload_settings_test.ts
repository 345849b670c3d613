/**
 * Every setting: a reload takes it, and a probe sees that, or the log says that it needs a restart.
 * Runs once: reload_load_test.ts and reload_upgrade_test.ts have reloads on both runtimes.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { TABLE } from "../../src/settings/table.ts";
import type { SettingSpec } from "../../src/settings/spec.ts";
import { type FakeClickHouse, startFakeClickHouse } from "../kit/fake_clickhouse.ts";
import { type FakeInflux, startFakeInflux } from "../kit/fake_influx.ts";
import { CERTIFICATE, CERTIFICATE_KEY } from "../kit/certificate.ts";
import { CLIENT_CA } from "../kit/client_certificate.ts";
import { freePort } from "../kit/free_port.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { PROBES } from "./reload_probes.ts";
import { type Reloading, startReloading, told, type Wishes } from "./reloading.ts";
import { createPlain } from "./rows.ts";

const dir = tempDir("authorities");
const authorities = join(dir, "ca.pem");
writeFileSync(authorities, CERTIFICATE);
after(() => removeDir(dir));

const file = (name: string, text: string) => {
  const path = join(dir, name);
  writeFileSync(path, text);
  return path;
};
/** What a setting needs beside itself. */
const BESIDE: Readonly<Record<string, Wishes>> = {
  "tls-client-auth": {
    "tls-cert": file("cert.pem", CERTIFICATE),
    "tls-key": file("key.pem", CERTIFICATE_KEY),
    "tls-client-ca": file("clients.pem", CLIENT_CA),
  },
};
const RESTART: Wishes = {
  "tls-client-auth": "required",
  "ca-file": authorities,
  "idle-timeout": "10m",
  listen: "127.0.0.1:1",
  "admin-listen": "127.0.0.1:2",
  "share-port": "true",
  "data-dir": "elsewhere",
  group: "another-group",
  id: "another-id",
};

const specs: readonly SettingSpec[] = TABLE;
const needRestart = specs.filter(({ restart, notInFile }) => restart && !notInFile);

test("no setting is neither taken nor named", () => {
  const live = specs.filter(({ restart }) => !restart).map(({ name }) => name);
  assert.deepEqual(Object.keys(PROBES).sort(), live.sort(), "each of these needs a probe");
  assert.deepEqual(Object.keys(RESTART).sort(), needRestart.map(({ name }) => name).sort());
});

describe("a running collector", () => {
  let at: Reloading;
  let real: ClickHouse;
  let fake: FakeClickHouse;
  let influx: FakeInflux;
  before(async () => {
    [real, fake, influx] = await Promise.all([
      startClickHouse(),
      startFakeClickHouse(),
      startFakeInflux(null),
    ]);
    await createPlain(real, "plain");
    const port = await freePort();
    at = await startReloading(() => ({
      listen: `127.0.0.1:${port}`,
      "clickhouse-url": real.url,
      "flush-interval": "50ms",
      "insert-timeout": "10s",
      id: "the-one",
    }), { listens: true });
  });
  after(async () => {
    await at.close();
    await Promise.all([real.close(), fake.close(), influx.close()]);
  });

  for (const { name } of needRestart) {
    test(`names ${name}, what runs and what was wanted`, async () => {
      const lines = await at.set({ ...BESIDE[name], [name]: RESTART[name]! });
      const [line, ...more] = told(lines, `reload: ${name} is taken at the next start only`);
      assert.deepEqual(more, []);
      assert.equal(line?.["wanted"], String(RESTART[name]));
      assert.equal(typeof line?.["running"], "string");
      assert.equal((await at.shishi.get("/healthz")).status, 200);
    });
  }

  test("tells a problem each time that it is asked to reload", async () => {
    at.write({ "flush-interval": "soon" });
    for (let times = 0; times < 2; times++) {
      const lines = await at.reload();
      assert.equal(told(lines, "reload: unusable settings; nothing has changed").length, 1);
    }
    await at.set({});
  });

  for (const [name, probe] of Object.entries(PROBES)) {
    test(`takes ${name}`, async () => {
      await probe({ at, real, fake, influx });
      if (name === "shutdown-timeout") return;
      await at.set({});
      const { ledger } = await at.shishi.status();
      assert.equal(ledger.lost, 0);
    });
  }
});

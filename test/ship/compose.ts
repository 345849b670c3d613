/** The compose file of docs/operations.md: docker-compose reads it, and what it tells Shishi and NATS is right. */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { ROOT } from "../../.release/build.ts";
import { tempDir } from "../kit/temp.ts";
import { blocks } from "./blocks.ts";
import { ok, run } from "./exec.ts";

/** As far as it is looked at here. */
interface Service {
  readonly image?: string;
  readonly build?: unknown;
  readonly entrypoint?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly volumes?: readonly string[];
  readonly read_only?: boolean;
}

let dir: string;
let services: Readonly<Record<string, Service>>;

before(async () => {
  dir = tempDir("compose");
  const [compose = "", ...more] = blocks("compose");
  assert.equal(more.length, 0);
  writeFileSync(join(dir, "compose.yaml"), compose);
  const command = ["docker-compose", "--file", "compose.yaml", "config"];
  const config = await ok(command, { cwd: dir });
  const { YAML } = (globalThis as unknown as {
    Bun: { YAML: { parse(text: string): { services: Record<string, Service> } } };
  }).Bun;
  services = YAML.parse(config).services;
});

test("it has Shishi and everything that Shishi speaks to", () => {
  assert.deepEqual(
    Object.keys(services).sort(),
    ["clickhouse", "grafana", "influxdb", "nats", "shishi"],
  );
  for (const [name, { image, build }] of Object.entries(services)) {
    assert.ok(build !== undefined || /:\d/.test(image ?? ""), `${name}: a version is named`);
  }
});

test("Shishi's settings are settings, and name servers that are there", async () => {
  const { environment = {}, read_only, volumes } = services["shishi"]!;
  const print = [join(ROOT, "dist/shishi"), "service", "print"];
  const { code, stderr } = await run(print, { cwd: dir, env: environment });
  assert.equal(code, 0, stderr);
  const hosts = Object.values(environment).filter((value) => value.includes("://"))
    .map((url) => new URL(url).hostname);
  assert.deepEqual(hosts.sort(), ["clickhouse", "influxdb", "nats"]);
  assert.ok(read_only);
  assert.match(volumes?.join() ?? "", /:\/data(:rw)?$/);
});

test("Shishi looks for NATS where its image listens", () => {
  // The image's own configuration: clients on 4222, no websocket.
  const { protocol, port } = new URL(services["shishi"]!.environment!["SHISHI_NATS_URL"]!);
  assert.deepEqual([protocol, port], ["nats:", "4222"]);
  assert.equal(services["nats"]!.entrypoint, undefined);
});

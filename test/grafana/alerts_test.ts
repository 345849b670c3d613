/**
 * The alert rules beside this file: Prometheus' own tool takes them and finds each case right, every metric that
 * they ask for is one that is exported, and a real Prometheus gives an alarm for a real collector.
 * Runs once: what is tested are rules of Prometheus.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { freePort } from "../kit/free_port.ts";
import { startPrometheus } from "../kit/servers.ts";
import { startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { programAt } from "../servers/process.ts";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const RULES = `${HERE}alerts.yaml`;
const rules = readFileSync(RULES, "utf8");
const names = [...rules.matchAll(/^ +- alert: (\w+)$/gm)].map(([, name]) => name!);
const metrics = [...new Set(rules.match(/\bshishi_\w+/g))];

function promtool(...args: string[]): string {
  // It comes with Prometheus.
  const { status, stdout, stderr } = spawnSync(
    programAt(["/usr/bin/promtool"], "prometheus"),
    args,
    { cwd: HERE, encoding: "utf8" },
  );
  assert.equal(status, 0, stdout + stderr);
  return stdout;
}

test("promtool takes the rules, and every case of theirs", () => {
  assert.match(promtool("check", "rules", RULES), new RegExp(`${names.length} rules found`));
  promtool("test", "rules", "alerts_cases.yaml");
});

test("every alert has a case, and a row in docs/prometheus.md", () => {
  const cases = readFileSync(`${HERE}alerts_cases.yaml`, "utf8");
  const docs = readFileSync(`${HERE}../../docs/prometheus.md`, "utf8");
  assert.ok(names.length >= 6);
  for (const name of names) {
    assert.match(cases, new RegExp(`\\b${name}\\b`));
    assert.match(docs, new RegExp(`\`${name}\``));
  }
});

test("a real collector exports what they ask for, and a real Prometheus finds its books well and its backlog half full", async () => {
  const shishi = await startShishi({
    args: ["--clickhouse-url", `http://127.0.0.1:${await freePort()}`, "--backlog=4"],
  });
  const prometheus = await startPrometheus([new URL(shishi.url).host], RULES);
  try {
    assert.equal(
      (await shishi.post([{ eventType: "a" }, { eventType: "b" }, { bad: 1 }])).status,
      202,
    );
    assert.equal((await shishi.post([{ eventType: "c" }])).status, 202);
    const { text } = await shishi.get("/metrics");
    // Without TLS there is none.
    const absent = metrics.filter((name) => !new RegExp(`^${name}[ {]`, "m").test(text));
    assert.deepEqual(absent, ["shishi_certificate_end_timestamp_seconds"]);
    await eventually(async () => {
      const { groups } = await prometheus.api("rules", {}) as {
        groups: { rules: { name: string; state: string; health: string }[] }[];
      };
      const told = groups.flatMap(({ rules }) => rules);
      assert.deepEqual(told.map(({ name }) => name), names);
      assert.deepEqual(told.filter(({ health }) => health !== "ok"), []);
      const raised = told.filter(({ state }) => state !== "inactive").map(({ name }) => name);
      // A disk that is nearly full is the host's own affair.
      assert.deepEqual(raised.filter((name) => name !== "ShishiDiskNearlyFull"), [
        "ShishiBacklogAboveHalf",
      ]);
    }, { withinMs: 20_000 });
  } finally {
    await prometheus.close();
    await shishi.close();
  }
});

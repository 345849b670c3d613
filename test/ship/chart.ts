/**
 * The Helm chart, packed as a release packs it: Helm likes it, what it renders holds to the schemas of the oldest and
 * the newest Kubernetes that it is for, every setting reaches the collector as it was meant, and the collector
 * runs with what a pod is given. No cluster is here: what a kubelet does with a pod is not tried.
 */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { after, before, test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import { chartFiles, PLAIN, SECRETS, writeChart } from "../../.release/chart.ts";
import { ROOT } from "../../.release/build.ts";
import { readStamp } from "../../.release/stamp.ts";
import { envName, type SettingSpec } from "../../src/settings/spec.ts";
import { TABLE } from "../../src/settings/table.ts";
import { freePort } from "../kit/free_port.ts";
import { startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { helm, schemasOf, VERSIONS } from "../servers/kubernetes.mjs";

// deno-lint-ignore no-explicit-any
type Resource = any;
type Values = Readonly<Record<string, unknown>>;

const stamp = readStamp(ROOT);
/** Made once: there are a thousand schemas. */
let validators: ((resource: Resource) => string[])[];
let folder: string;
let chart: string;

before(() => {
  validators = VERSIONS.map(validator);
  folder = tempDir("chart");
  writeChart(ROOT, folder, stamp, "https://charts.example");
  chart = join(folder, `shishi-${stamp.version}.tgz`);
});
after(() => removeDir(folder));

function run(command: string, args: readonly string[], input = "") {
  // What Helm keeps of its own has no place in anybody's home.
  const env = { PATH: process.env["PATH"] ?? "", HOME: folder };
  return spawnSync(command, args, { encoding: "utf8", input, env, maxBuffer: 1 << 26 });
}

/** Ruby reads YAML; JSON is YAML too. */
function parseYaml(text: string): Resource[] {
  const { status, stdout, stderr } = run(
    "ruby",
    ["-ryaml", "-rjson", "-e", "puts YAML.load_stream(STDIN.read).compact.to_json"],
    text,
  );
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout);
}

let files = 0;
function withValues(values: Values): string[] {
  const file = join(folder, `values-${files++}.json`);
  writeFileSync(file, JSON.stringify(values));
  return ["--values", file];
}

function template(values: Values, ...more: string[]): Resource[] {
  const { status, stdout, stderr } = run(helm, [
    "template",
    "x",
    chart,
    ...withValues(values),
    ...more,
  ]);
  assert.equal(status, 0, stderr);
  return parseYaml(stdout);
}

function refused(values: Values): string {
  const { status, stderr } = run(helm, ["template", "x", chart, ...withValues(values)]);
  assert.notEqual(status, 0);
  return stderr;
}

const podOf = (resources: readonly Resource[]): Resource =>
  resources.find(({ kind }) => ["StatefulSet", "Deployment", "DaemonSet"].includes(kind)).spec
    .template.spec;
const envOf = (resources: readonly Resource[]): Record<string, Resource> =>
  Object.fromEntries(
    podOf(resources).containers[0].env.map((
      one: Resource,
    ) => [one.name, one.value ?? one.valueFrom]),
  );

// ── What is rendered, by Kubernetes' own schemas.

function validator(version: string): (resource: Resource) => string[] {
  const ajv = new Ajv2020({ strict: false, validateFormats: false });
  const read = (name: string) => JSON.parse(readFileSync(join(schemasOf(version), name), "utf8"));
  ajv.addSchema(read("_definitions.json"));
  return (resource) => {
    const [group, api = ""] = resource.apiVersion.includes("/")
      ? resource.apiVersion.split("/")
      : ["", resource.apiVersion];
    const name = [resource.kind.toLowerCase(), group.split(".")[0], api].filter(Boolean).join("-");
    const schema = read(`${name}.json`);
    const validate = ajv.getSchema(schema.$id) ?? ajv.compile(schema);
    validate(resource);
    return (validate.errors ?? []).map(({ instancePath, message, params }) =>
      `${version} ${resource.kind}${instancePath}: ${message} ${JSON.stringify(params)}`
    );
  };
}

const KINDS = ["StatefulSet", "Deployment", "DaemonSet"];
const VARIANTS: Readonly<Record<string, Values>> = {
  "as it is": {},
  "with secrets": { secrets: { "clickhouse-url": "http://u:p@h:8123", "auth-tokens": "a,b" } },
  "with a Secret of somebody's own, and TLS": {
    existingSecret: "mine",
    tls: { secretName: "web" },
  },
  "with all that is off": {
    podMonitor: {
      enabled: true,
      labels: { release: "p" },
      bearerTokenSecret: { name: "s", key: "k" },
    },
    prometheusRule: { enabled: true },
    persistence: { hostPath: "/var/lib/shishi", storageClass: "fast" },
    adminPort: null,
    hostPort: 8080,
    extraEnv: [{ name: "SSL_CERT_FILE", value: "/ca/ca.pem" }],
    extraVolumes: [{ name: "ca", configMap: { name: "ca" } }],
    extraVolumeMounts: [{ name: "ca", mountPath: "/ca" }],
    imagePullSecrets: [{ name: "registry" }],
    tolerations: [{ operator: "Exists" }],
    nodeSelector: { disk: "ssd" },
    affinity: { nodeAffinity: {} },
    topologySpreadConstraints: [{
      maxSkew: 1,
      topologyKey: "kubernetes.io/hostname",
      whenUnsatisfiable: "ScheduleAnyway",
    }],
    lifecycle: { preStop: { httpGet: { path: "/", port: "http" } } },
    podLabels: { team: "data" },
    podAnnotations: { note: "1" },
    serviceAccountName: "sa",
    priorityClassName: "high",
    fullnameOverride: "edge",
    service: { type: "NodePort", annotations: { a: "b" } },
  },
};

test("Helm finds nothing wrong with it, and the index names it with its hash", () => {
  for (const kind of KINDS) {
    const { status, stdout, stderr } = run(helm, [
      "lint",
      "--strict",
      chart,
      ...withValues({ kind }),
    ]);
    assert.equal(status, 0, stdout + stderr);
  }
  const [{ entries: { shishi: [entry] } }] = parseYaml(
    readFileSync(join(folder, "index.yaml"), "utf8"),
  );
  const sum = run("sha256sum", [chart]).stdout.split(" ")[0];
  assert.deepEqual([entry.version, entry.appVersion, entry.digest], [
    stamp.version,
    stamp.version,
    sum,
  ]);
  assert.deepEqual(entry.urls, [`https://charts.example/shishi-${stamp.version}.tgz`]);
});

for (const [name, values] of Object.entries(VARIANTS)) {
  test(`${name}: what is rendered is what Kubernetes takes, without a field that it does not know`, () => {
    for (const kind of KINDS) {
      const resources = template({ kind, ...values });
      assert.ok(resources.length >= 2);
      const builtIn = resources.filter(({ apiVersion }) => !/coreos/.test(apiVersion));
      assert.deepEqual(builtIn.flatMap((one) => validators.flatMap((faults) => faults(one))), []);
      const services = resources.filter(({ kind }) => kind === "Service");
      const labels = resources.find((one) => one.kind === kind).spec.template.metadata.labels;
      const ports = podOf(resources).containers[0].ports.map(({ name }: Resource) => name);
      for (const { spec } of services) {
        for (const [key, value] of Object.entries(spec.selector)) assert.equal(labels[key], value);
        for (const { targetPort } of spec.ports) assert.ok(ports.includes(targetPort));
      }
      const volumes = [
        ...(podOf(resources).volumes ?? []),
        ...(resources.find((one) => one.kind === kind).spec.volumeClaimTemplates ?? []).map((
          { metadata }: Resource,
        ) => metadata),
      ].map(({ name }: Resource) => name);
      assert.deepEqual(
        podOf(resources).containers[0].volumeMounts.map(({ name }: Resource) => name).sort(),
        volumes.sort(),
      );
    }
  });
}

test("the schemas themselves find what is wrong", () => {
  const faults = validators.at(-1)!;
  const [service] = template({}).filter(({ kind }) => kind === "Service");
  service.spec.prots = service.spec.ports;
  assert.match(faults(service).join(), /prots/);
  const workload = template({}).find(({ kind }) => kind === "StatefulSet")!;
  workload.spec.template.spec.containers[0].ports[0].containerPort = "8080";
  assert.match(faults(workload).join(), /containerPort/);
});

test("alerts and scraping, for those who have the operator", () => {
  const values = { podMonitor: { enabled: true }, prometheusRule: { enabled: true } };
  const resources = template(values);
  const rule = resources.find(({ kind }) => kind === "PrometheusRule");
  const [alerts] = parseYaml(readFileSync(join(ROOT, "test/grafana/alerts.yaml"), "utf8"));
  assert.deepEqual(rule.spec, alerts);
  const monitored = (more: Values) =>
    template({ ...values, ...more }).find(({ kind }) => kind === "PodMonitor").spec
      .podMetricsEndpoints[0].port;
  assert.deepEqual([monitored({}), monitored({ adminPort: null })], ["admin", "http"]);
});

// ── Settings.

/** Its default, or a text with all that YAML, templates and shells are fond of. */
const sampleOf = ({ default: initial }: SettingSpec): string =>
  typeof initial === "string" ? initial : `a, "b" = {{ .c }}: #$d\\ 'é' 1e6`;

test("every setting of the table has a place, and stands in values.yaml with its meaning", () => {
  const decided = ["listen", "admin-listen", "data-dir", "config"];
  assert.deepEqual(
    [...PLAIN, ...SECRETS].map(({ name }) => name).concat(decided).sort(),
    TABLE.map(({ name }) => name as string).sort(),
  );
  const values = chartFiles(ROOT, stamp).get("values.yaml")!;
  for (const { name } of [...PLAIN, ...SECRETS]) {
    assert.match(values, new RegExp(`^  #?${name}: `, "m"));
  }
  // With every # taken away it still is YAML that the schema takes.
  const all = values.replace(/^ {2}#([a-z-]+: )/gm, "  $1").replace(/^ {2}\{\}\n/m, "");
  const [parsed] = parseYaml(all);
  assert.equal(Object.keys(parsed.settings).length, PLAIN.length);
  const file = join(folder, "all.yaml");
  writeFileSync(file, all.replace(/^existingSecret.*$/m, ""));
  const { status, stderr } = run(helm, ["template", "x", chart, "--values", file]);
  assert.equal(status, 0, stderr);
});

test("every setting reaches the collector as it was meant", () => {
  const settings = Object.fromEntries(PLAIN.map((spec) => [spec.name, sampleOf(spec)]));
  const env = envOf(template({ settings }));
  for (const spec of PLAIN) assert.equal(env[envName(spec.name)], settings[spec.name]);
});

test("what YAML makes of a value is undone: numbers, words that it takes for true and false, lists", () => {
  const settings = {
    "backlog": 2_000_000,
    "spool-max-bytes": 107_374_182_400,
    "share-port": true,
    "create-table": false,
    "idle-interval": false,
    "tables": ["a", "b_*"],
    "cors-origins": "https://a.example",
    "table-share": null,
  };
  const env = envOf(template({ settings }));
  assert.equal(env["SHISHI_BACKLOG"], "2000000");
  assert.equal(env["SHISHI_SPOOL_MAX_BYTES"], "107374182400");
  assert.equal(env["SHISHI_IDLE_INTERVAL"], "off");
  assert.equal(env["SHISHI_TABLES"], "a,b_*");
  assert.equal(env["SHISHI_TABLE_SHARE"], undefined);
  for (
    const [name, value] of Object.entries(settings).filter(([, value]) =>
      typeof value === "boolean"
    )
  ) {
    const { kind } = PLAIN.find((spec) => spec.name === name)!;
    const parsed = kind.parse(env[envName(name)]!);
    assert.ok(parsed.ok);
    if (kind.file === "boolean") assert.equal(parsed.value, value);
  }
});

test("an unknown name is an error, and so is a secret among the settings, and a Secret beside secrets", () => {
  assert.match(refused({ settings: { "flush-intervall": "1s" } }), /flush-intervall/);
  assert.match(refused({ settings: { "clickhouse-url": "http://u:p@h" } }), /clickhouse-url/);
  assert.match(refused({ settings: { ack: "never" } }), /ack/);
  assert.match(refused({ replica: 3 }), /replica/);
  assert.match(refused({ kind: "Job" }), /kind/);
  assert.match(
    refused({ existingSecret: "a", secrets: { "nats-token": "t" } }),
    /expected one of them, got both/,
  );
});

test("a pod has the time that it needs to end", () => {
  const graceOf = (settings: Values, more: Values = {}) =>
    podOf(template({ settings, ...more })).terminationGracePeriodSeconds;
  assert.equal(graceOf({}), 5 + 10 + 20);
  assert.equal(graceOf({ "drain-delay": "1m30s", "shutdown-timeout": "500ms" }), 90 + 1 + 20);
  assert.equal(graceOf({ "drain-delay": "0s", "shutdown-timeout": "1h" }), 3600 + 20);
  assert.equal(graceOf({}, { terminationGracePeriodSeconds: 90 }), 90);
});

test("a secret is in the Secret, and nowhere else", () => {
  const creds = 'hidden: 4\n"hidden" {{ 5 }}\n';
  const secrets = {
    "clickhouse-url": "http://u:hidden-1@h",
    "auth-tokens": ["hidden-2", "hidden-3"],
    "nats-creds": creds,
  };
  const resources = template({ secrets });
  const [secret, ...more] = resources.filter(({ kind }) => kind === "Secret");
  assert.deepEqual([secret.stringData, more], [
    {
      "clickhouse-url": "http://u:hidden-1@h",
      "auth-tokens": "hidden-2,hidden-3",
      "nats-creds": creds,
    },
    [],
  ]);
  assert.doesNotMatch(JSON.stringify(resources.filter((one) => one !== secret)), /hidden/);
  const annotation = (secrets: Values) =>
    template({ secrets }).find(({ kind }) => kind === "StatefulSet").spec.template.metadata
      .annotations;
  assert.notDeepEqual(annotation(secrets), annotation({}), "pods start again with a new one");
});

test("the collector runs with what a pod is given, and answers its probes", async () => {
  const port = await freePort();
  const adminPort = await freePort();
  const resources = template({
    port,
    adminPort,
    secrets: { "auth-tokens": "hidden", "clickhouse-url": `http://127.0.0.1:${await freePort()}` },
    settings: { group: "k8s", "idle-interval": false, "tables": ["a", "b_*"] },
  });
  const container = podOf(resources).containers[0];
  // As a kubelet lays it out: files behind a link that it can turn at once.
  const mounted = join(folder, "credentials");
  mkdirSync(join(mounted, "..2026"), { recursive: true });
  symlinkSync("..2026", join(mounted, "..data"));
  const secret = resources.find(({ kind }) => kind === "Secret").stringData;
  for (const [name, text] of Object.entries<string>(secret)) {
    writeFileSync(join(mounted, "..2026", name), text);
    symlinkSync(`..data/${name}`, join(mounted, name));
  }
  assert.ok(readdirSync(mounted).includes("auth-tokens"));
  const given = Object.fromEntries(
    Object.entries(envOf(resources)).map((
      [name, value],
    ) => [name, typeof value === "string" ? value : "x-shishi-0"]),
  );
  const env = { ...given, SHISHI_DATA_DIR: join(folder, "data"), CREDENTIALS_DIRECTORY: mounted };
  const shishi = await startShishi({ env, binary: true });
  try {
    const at = (name: string, path: string) => {
      const { containerPort } = container.ports.find((one: Resource) => one.name === name);
      return fetch(`http://127.0.0.1:${containerPort}${path}`, {
        headers: { authorization: "Bearer hidden" },
      });
    };
    for (const probe of [container.readinessProbe, container.livenessProbe]) {
      const { port, path } = probe.httpGet;
      assert.equal(
        (await at(port, path)).status,
        200,
        "ClickHouse is away, and events are taken all the same",
      );
    }
    const post = (headers: Record<string, string>) =>
      fetch(`http://127.0.0.1:${port}/events`, {
        method: "POST",
        headers,
        body: '{"eventType":"a"}',
      });
    assert.equal((await post({})).status, 401);
    assert.equal((await post({ authorization: "Bearer hidden" })).status, 202);
    const status = await (await at("admin", "/api/status")).json();
    assert.deepEqual([status.group, status.id], ["k8s", "x-shishi-0"]);
  } finally {
    await shishi.close();
  }
});

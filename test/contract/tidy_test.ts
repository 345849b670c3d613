/**
 * The rules of CONTRIBUTING.md, checked on every file of src: which room may import which, and how files look.
 * Runs once: files of the repository are read, nothing runs.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, sep } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TOP_LEVEL =
  /^(\..+|src|test|deno\.json|package\.json|package-lock\.json|Dockerfile|README\.md|LICENSE|CHANGELOG\.md|CONTRIBUTING\.md|docs)$/;
/** They know all rooms: the wiring, the entry, and the commands that run it. */
const WIRING = /^(main\.ts|collector\.ts|commands\/.*)$/;
/** Every room may import them; they import nothing that is built. */
const FOR_ALL = /^(contracts\.ts|kernel\/.*)$/;
/** The interfaces: what they promise must not hang on anything that is built. */
const CONTRACT = /^contracts\.ts$/;
/** Room → the one other room that it may import: the command line's half of what that room does. */
const BESIDE: Readonly<Record<string, string>> = { fleet: "remote" };

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
  return path.includes("/") ? path.slice(0, path.indexOf("/")) : "";
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
  if (FOR_ALL.test(target)) return true;
  return room(path) !== "" && [room(path), BESIDE[room(path)]].includes(room(target));
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

/** They are handed no clock: they hand it on. */
const TAKES_SYSTEM_CLOCK = /^(kernel\/time\.ts|collector\.ts|(runtime|commands)\/.*)$/;

test("rooms are handed their clock, so that a test owns every wait", () => {
  assertNone(
    sources.filter(({ path, text }) =>
      !TAKES_SYSTEM_CLOCK.test(path) && /\bsystemClock\b/.test(withoutComments(text))
    ).map(({ path }) => `src/${path} takes systemClock`),
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
  ["lifecycle.ts", "./contracts.ts", true],
  ["lifecycle.ts", "./batch/pump.ts", false],
  ["fleet/roll.ts", "../remote/wire.ts", true],
  ["fleet/roll.ts", "../deliver/sink.ts", false],
  ["remote/wire.ts", "../fleet/roll.ts", false],
  ["spool/segment.ts", "../batch/pump.ts", false],
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

/** Path → the paths of src that it imports, as a type or late too. */
type Graph = ReadonlyMap<string, readonly string[]>;

function graphOf(sources: readonly Source[]): Graph {
  const paths = new Set(sources.map(({ path }) => path));
  return new Map(sources.map(({ path, text }) => {
    const targets = imports(text).filter((specifier) => specifier.startsWith("."))
      .map((specifier) => normalize(join(dirname(path), specifier)).split(sep).join("/"));
    return [path, [...new Set(targets)].filter((target) => paths.has(target) && target !== path)];
  }));
}

/** Circles of imports, each once: its files from the first in the alphabet on. */
function circles(graph: Graph): string[] {
  const found = new Set<string>();
  for (const start of [...graph.keys()].sort()) {
    const way = wayBack(graph, start);
    if (way === null) continue;
    const first = way.indexOf([...way].sort()[0]!);
    found.add([...way.slice(first), ...way.slice(0, first), way[first]!].join(" → "));
  }
  return [...found];
}

/** The shortest way over imports from a file to itself; null where there is none. */
function wayBack(graph: Graph, start: string): string[] | null {
  const from = new Map<string, string>();
  for (const queue = [start]; queue.length > 0;) {
    const at = queue.shift()!;
    for (const target of graph.get(at) ?? []) {
      if (target === start) {
        const way = [at];
        while (way[0] !== start) way.unshift(from.get(way[0]!)!);
        return way;
      }
      if (!from.has(target)) {
        from.set(target, at);
        queue.push(target);
      }
    }
  }
  return null;
}

test("imports go round in no circle, also not within a room", () => {
  assertNone(circles(graphOf(sources)));
});

test("the rule itself finds a circle once, and none in a tree", () => {
  const of = (graph: Record<string, string[]>) => circles(new Map(Object.entries(graph)));
  assert.deepEqual(of({ a: ["b", "c"], b: ["c"], c: [] }), []);
  assert.deepEqual(of({ a: ["b"], b: ["a"] }), ["a → b → a"]);
  assert.deepEqual(of({ x: ["c"], b: ["a"], a: ["c"], c: ["b"] }), ["a → c → b → a"]);
  const typed = [{ path: "a.ts", text: `import type { B } from "./b.ts";` }, {
    path: "b.ts",
    text: `const a = await import("./a.ts");`,
  }];
  assert.deepEqual(circles(graphOf(typed)), ["a.ts → b.ts → a.ts"]);
});

/** Base names that more than one file has. */
function twice(paths: readonly string[]): string[] {
  const named = new Map<string, string[]>();
  for (const path of paths) {
    const name = path.slice(path.lastIndexOf("/") + 1);
    named.set(name, [...named.get(name) ?? [], path]);
  }
  return [...named.values()].filter(({ length }) => length > 1).map((paths) => paths.join(", "));
}

test("no two files of src have one name, so that a name alone says which is meant", () => {
  assertNone(twice(sources.map(({ path }) => path)));
});

test("the rule itself finds a name that is used twice", () => {
  assert.deepEqual(twice(["a/x.ts", "b/y.ts", "x.tsx"]), []);
  assert.deepEqual(twice(["a/x.ts", "b/x.ts", "c.ts"]), ["a/x.ts, b/x.ts"]);
});

/** What a file takes stands in it: these were made where a file had grown too long for a rule. */
const NO_NAME = /(_deps|_tools|_utils|_helpers|_types)\.tsx?$/;

test("no file is called after what others need", () => {
  assertNone(sources.map(({ path }) => path).filter((path) => NO_NAME.test(path)));
});

const SHORT_LINES = 40;
const REASON = "on its own because";

/** Files that are short, that one file alone imports, and whose opening comment gives no reason for it. */
function shallow(sources: readonly Source[]): string[] {
  const importers = new Map<string, number>();
  for (const targets of graphOf(sources).values()) {
    for (const target of targets) importers.set(target, (importers.get(target) ?? 0) + 1);
  }
  return sources.filter(({ path, text }) => {
    const opening = text.slice(0, text.indexOf("*/")).replace(/\s*\n \*\s*/g, " ");
    return /\.tsx?$/.test(path) && text.split("\n").length <= SHORT_LINES &&
      importers.get(path) === 1 && !opening.includes(REASON);
  }).map(({ path }) => path);
}

test(`a short file that one file alone imports says that it stands ${REASON} of something`, () => {
  assertNone(shallow(sources));
});

test("the rule itself knows a shallow file", () => {
  const one = { path: "one.ts", text: `/** One. */\nimport { a } from "./a.ts";` };
  const two = { path: "two.ts", text: `/** Two. */\nimport { a } from "./a.ts";` };
  const file = (text: string) => ({ path: "a.ts", text });
  assert.deepEqual(shallow([one, file("/** A. */")]), ["a.ts"]);
  assert.deepEqual(shallow([one, two, file("/** A. */")]), []);
  assert.deepEqual(shallow([one, file(`/** A.${"\n".repeat(SHORT_LINES)} */`)]), []);
  assert.deepEqual(
    shallow([one, file(`/**\n * It stands on its own\n * because it is big.\n */`)]),
    [],
  );
});

/** Words that the field does not know; `CONTRIBUTING.md` has those that took their place. */
const OLD_WORDS = new RegExp(
  "^(keepers?|circles?|crews?|outposts?|letterbox|bury|buries|buried|burying|gather|" +
    "desks?|mends?|mended|heed|heeds|heeded|doors?)$",
);

/** The old words among a text's identifiers; comments and strings are not looked at. */
function oldWords(text: string): string[] {
  const code = withoutComments(text)
    .replace(
      /`(?:[^`\\$]|\\.|\$(?!\{)|\$\{[^{}`]*\})*`/g,
      (template) => [...template.matchAll(/\$\{([^{}`]*)\}/g)].map(([, part]) => part).join(" "),
    )
    .replace(/"(?:[^"\\\n]|\\.)*"/g, "").replace(/(?<=\s)\/\/.*$/gm, "");
  const words = [...code.matchAll(/[A-Za-z$][\w$]*/g)].flatMap(([name]) =>
    name.split(/_|(?<=[a-z\d])(?=[A-Z])/).map((word) => word.toLowerCase())
  );
  return [...new Set(words)].filter((word) => OLD_WORDS.test(word));
}

test("nothing is named by a word that the field does not know", () => {
  assertNone(
    sources.filter(({ path }) => /\.tsx?$/.test(path)).flatMap(({ path, text }) =>
      oldWords(text).map((word) => `src/${path}: ${word}`)
    ),
  );
});

test("the rule itself finds old words in names, and none in comments and strings", () => {
  assert.deepEqual(oldWords("const dead_crew = tableKeeper.buryAll();"), [
    "crew",
    "keeper",
    "bury",
  ]);
  assert.deepEqual(
    oldWords("// a circle\n/** bury */\nconst planet = `a desk ${queue} door`;"),
    [],
  );
  assert.deepEqual(oldWords('say(`of ${desk.size}`, "crew"); // a keeper'), ["desk"]);
});

const PEOPLE = /\b(somebody|someone|nobody|everybody|everyone|whoever)\b/i;

test("what is said is said of things, not of somebody", () => {
  assertNone(
    sources.flatMap(({ path, text }) =>
      text.split("\n").flatMap((line, at) =>
        PEOPLE.test(line) ? [`src/${path}:${at + 1}: ${line.trim()}`] : []
      )
    ),
  );
});

const LONGEST_LINES = 80;

/** Functions and methods of a formatted text that are longer than `most` lines, by their first line. */
function longFunctions(text: string, most: number): string[] {
  const lines = text.split("\n");
  return lines.flatMap((line, at) => {
    const [, indent] =
      /^( *)(?:export )?(?:static |async |get )*(?:function\b|constructor\(|#?\w+\()[^;]*[({]$/
        .exec(line) ?? [];
    if (indent === undefined) return [];
    const ends = (line: string) => line.startsWith(`${indent}}`) && !line.endsWith("{");
    const length = lines.slice(at).findIndex(ends) + 1;
    return length > most ? [line.trim()] : [];
  });
}

test(`no function of collector.ts has more than ${LONGEST_LINES} lines`, () => {
  const { text } = sources.find(({ path }) => path === "collector.ts")!;
  assert.ok(longFunctions(text, 40).length > 0, "none is found");
  assertNone(longFunctions(text, LONGEST_LINES));
});

test("the rule itself knows where a function ends", () => {
  const text =
    "function a(\n  b: string,\n): void {\n  c();\n}\n\nclass D {\n  async #e() {\n  }\n}";
  assert.deepEqual(longFunctions(text, 4), ["function a("]);
  assert.deepEqual(longFunctions(text, 1), ["function a(", "async #e() {"]);
  assert.deepEqual(longFunctions(text, 5), []);
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

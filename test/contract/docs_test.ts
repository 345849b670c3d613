/**
 * README and docs/ say what the source says, and their links lead somewhere. `DOCS_WRITE=1` writes the
 * tables of settings instead of checking them.
 * Runs once: files of the repository are read, nothing runs.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join, normalize, relative } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { commandNames } from "../../src/commands/all.ts";
import { createLedger } from "../../src/meter/ledger.ts";
import { createPrometheus } from "../../src/meter/prometheus.ts";
import { parametersMarkdown, settingsMarkdown } from "../../src/settings/help.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const PAGES = [
  ...["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].filter((name) =>
    existsSync(join(ROOT, name))
  ),
  ...readdirSync(join(ROOT, "docs")).filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
];

function read(page: string): string {
  return readFileSync(join(ROOT, page), "utf8");
}

/** A page's text in front of, between and behind two marks. */
function around(page: string, mark: string): { before: string; table: string; after: string } {
  const text = read(page);
  const [open, close] = [`<!-- ${mark} -->\n`, `<!-- /${mark} -->`];
  const begin = text.indexOf(open) + open.length;
  const end = text.indexOf(close);
  assert.ok(begin >= open.length && end >= begin, `${page} marks where its table is: ${open}`);
  return { before: text.slice(0, begin), table: text.slice(begin, end), after: text.slice(end) };
}

function holds(page: string, mark: string, wanted: (table: string) => string): void {
  const { before, table, after } = around(page, mark);
  const right = wanted(table);
  if (process.env.DOCS_WRITE === "1") writeFileSync(join(ROOT, page), before + right + after);
  else assert.equal(table, right, `DOCS_WRITE=1 npx bun test test/contract writes ${page} anew`);
}

test("the table of settings is the one of the source", () => {
  holds("docs/settings.md", "settings", () => settingsMarkdown());
});

test("the parameters of sources are those of the source", () => {
  for (const  of of["all", "kafka", "amqp", "redis", "nats", "outbox", "exits"] as const) {
    holds("docs/sources.md", `parameters of ${of}`, () => parametersMarkdown(of));
  }
});

test("the settings that the README shows are rows of that table, without its last column", () => {
  const rows = settingsMarkdown().trimEnd().split("\n")
    .map((row) => row.replace(/ \| [^|]* \|$/, " |"));
  const named = (row: string) => /^\| `([a-z-]+)`/.exec(row)?.[1];
  holds("README.md", "some settings", (table) => {
    const shown = table.split("\n").map(named).filter((name) => name !== undefined);
    assert.ok(shown.length >= 5 && shown.length <= 12, `${shown.length} settings`);
    const chosen = shown.map((name) => {
      const row = rows.find((row) => named(row) === name);
      return row ?? assert.fail(`there is no setting ${name}`);
    });
    return [...rows.slice(0, 2), ...chosen].map((row) => `${row}\n`).join("");
  });
});

test("the README is read in ten minutes", () => {
  assert.ok(read("README.md").split("\n").length <= 300, "reference belongs in docs/");
});

test("every command is named", () => {
  for (const name of commandNames) assert.match(read("README.md"), new RegExp(`\\b${name}\\b`));
});

test("every metric is named, and no other", async () => {
  const text = read("docs/prometheus.md").split("## Metrics")[1]!.split("\n## ")[0]!;
  const none = { rows: () => 0, memoryBytes: () => 0, spoolBytes: () => 0, oldestMs: () => 0 };
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const scrape = await createPrometheus({
    ledger: createLedger(),
    holdings: { ...none, byTable: () => new Map() },
    log,
    group: "g",
    id: "i",
    version: "0",
    runtime: "test 1",
    rssBytes: () => 1,
    limits: () => ({ backlog: 1, spoolMaxBytes: 1 }),
    surroundings: { room: () => null, certificateEndS: () => null },
  }).text();
  const exported = [...scrape.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name!).sort();
  const named = [...text.matchAll(/`((?:analytics|shishi|process)_\w+)`/g)].map(([, name]) =>
    name!
  );
  assert.deepEqual([...new Set(named)].sort(), exported);
});

test("every path of the HTTP interface is named", () => {
  const { paths } = JSON.parse(read("src/admit/openapi.json"));
  const text = read("docs/http.md").split("## Paths")[1]!.split("\n## ")[0]!;
  const named = (path: string) => text.includes(`${path.replace("{table}", "TABLE")}\``);
  assert.ok(Object.keys(paths).length > 8);
  assert.deepEqual(Object.keys(paths).filter((path) => !named(path)), []);
});

test("the lines that sign a command are the ones that are tested", () => {
  const lines = new URL("../remote/signed_command.sh", import.meta.url);
  assert.ok(read("docs/nats.md").includes(readFileSync(lines, "utf8")));
});

test("every page is linked from the README", () => {
  const linked = links(read("README.md")).map((target) => target.split("#")[0]);
  assert.deepEqual(PAGES.filter((page) => page !== "README.md" && !linked.includes(page)), []);
});

test("every link leads to a file, and to a heading in it", () => {
  const broken = PAGES.flatMap((page) =>
    links(read(page)).filter((target) => !leads(page, target)).map((target) => `${page}: ${target}`)
  );
  assert.deepEqual(broken, []);
});

/** Whether a link of `page` leads somewhere; those to other hosts are not looked at. */
function leads(page: string, target: string): boolean {
  if (/^[a-z]+:/.test(target)) return true;
  const [path = "", anchor] = target.split("#");
  const file = path === "" ? page : normalize(join(dirname(page), path));
  if (file.startsWith("..") || !existsSync(join(ROOT, file))) return false;
  return anchor === undefined || anchors(read(file)).includes(anchor);
}

/** The targets of `[text](target)`. */
function links(text: string): string[] {
  return [...withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target!);
}

/** What a link to a heading is called, in order: as GitHub and Forgejo make it of the heading's text. */
function anchors(text: string): string[] {
  const seen = new Map<string, number>();
  return [...withoutFences(text).matchAll(/^#{1,6} (.+)$/gm)].map(([, heading]) => {
    const name = heading!.toLowerCase().replace(/[^\p{L}\p{N}\- _]/gu, "").replaceAll(" ", "-");
    const times = seen.get(name) ?? 0;
    seen.set(name, times + 1);
    return times === 0 ? name : `${name}-${times}`;
  });
}

function withoutFences(text: string): string {
  return text.replace(/^```[\s\S]*?^```$/gm, "");
}

function withoutCode(text: string): string {
  return withoutFences(text).replace(/`[^`\n]*`/g, "");
}

test("the rule itself finds links and headings, and none in code", () => {
  const text = "# A *b*, `c`: d\n[x](#y) `[no](z)`\n```sh\n# no\n[no](z)\n```\n## Same\n## Same\n";
  assert.deepEqual(links(text), ["#y"]);
  assert.deepEqual(anchors(text), ["a-b-c-d", "same", "same-1"]);
  assert.equal(leads("docs/http.md", "../README.md"), true);
  assert.equal(leads("docs/http.md", "README.md"), false);
  assert.equal(leads("README.md", "docs/http.md#queries"), true);
  assert.equal(leads("README.md", "docs/http.md#no-such-heading"), false);
});

/** Below the root, with `/`. */
const files = readdirSync(join(ROOT, "src"), { recursive: true, encoding: "utf8" })
  .map((path) => relative(ROOT, join(ROOT, "src", path)).replaceAll("\\", "/"));

/** Whether `name`, as it stands in a text, is that of one file: a path from the root or src, or a base name of src. */
function isFile(name: string): boolean {
  if (name.includes("/") && (existsSync(join(ROOT, name)) || existsSync(join(ROOT, "src", name)))) {
    return true;
  }
  return !name.includes("/") && files.filter((file) => basename(file) === name).length === 1;
}

for (const page of ["docs/ARCHITECTURE.md", "CONTRIBUTING.md"]) {
  test(`every file that ${page} names is there`, () => {
    const named = [...read(page).matchAll(/`([\w./-]+\.(?:tsx?|as|mjs|json))`/g)].map(([, name]) =>
      name!
    );
    assert.ok(named.length >= 2, "it names files");
    assert.deepEqual(named.filter((name) => !isFile(name)), []);
  });
}

test("the rule itself knows files by path and by base name", () => {
  assert.equal(isFile("src/main.ts"), true);
  assert.equal(isFile("main.ts"), true);
  assert.equal(isFile("settings/table.ts"), true);
  assert.equal(isFile("test/contract/docs_test.ts"), true);
  assert.equal(isFile("no_such_file.ts"), false);
  assert.equal(isFile("settings/no_such_file.ts"), false);
});

/**
 * Which test files there are, by room (the folder below test/), and which of them are unit tests: those whose
 * imports reach no server, no other process and nothing that builds. Nothing lists them, so nothing can be forgotten.
 * A file whose opening comment has a line `Runs once: why` tests nothing that differs between the runtimes.
 */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";

/** What a unit test does not reach, as a path below the root or a module. */
const OUTSIDE = /^(test\/servers\/|\.release\/|node:child_process$)/;
const RUNS_ONCE = /^ \* Runs once: \S/m;
/** A room with more files than this is run in parts, so that one room does not outlast all others. */
const FILES_A_PART = 8;

/** Rooms of few files that take long: all would wait for them if they began last. */
const LONG = new Set(["squares", "demo", "grafana", "servers"]);

/**
 * @param root the repository's folder. @param paths files or folders, relative to it; none = all.
 * @returns `{ room, files, once }[]`, rooms that need servers first: they take longest. `once`: under one runtime.
 */
export function suites(root, { paths = [], quick = false } = {}) {
  const reaches = reacher(root);
  const runsOnce = (file) => saysOnce(join(root, file));
  const chosen = (paths.length === 0 ? ["test"] : paths)
    .flatMap((path) => testFiles(root, path.replace(/^\.\//, "").replace(/\/$/, "")));
  const rooms = new Map();
  for (const file of [...new Set(chosen)].sort()) {
    const outside = reaches(file);
    if (quick && outside) continue;
    const room = file.split("/")[1];
    const { files, weight } = rooms.get(room) ?? { files: [], weight: LONG.has(room) ? 50 : 0 };
    rooms.set(room, { files: [...files, file], weight: weight + (outside ? 10 : 1) });
  }
  return [...rooms].sort(([, a], [, b]) => b.weight - a.weight)
    .flatMap(([room, { files }]) => {
      const [once, twice] = [files.filter(runsOnce), files.filter((file) => !runsOnce(file))];
      return [
        ...parts(twice).map((files) => ({ room, files, once: false })),
        ...parts(once).map((files) => ({ room, files, once: true })),
      ];
    });
}

/** Of a file whose opening comment says so. */
function saysOnce(path) {
  const [opening] = readFileSync(path, "utf8").split("*/", 1);
  return RUNS_ONCE.test(opening);
}

/** In equal parts; every one has files from all over the alphabet. */
function parts(files) {
  const count = Math.ceil(files.length / FILES_A_PART);
  return Array.from({ length: count }, (_, part) => files.filter((_, at) => at % count === part));
}

function testFiles(root, path) {
  if (!existsSync(join(root, path))) return [];
  if (!statSync(join(root, path)).isDirectory()) return [path];
  return readdirSync(join(root, path), { recursive: true })
    .map((name) => join(path, name).split(sep).join("/"))
    .filter((name) => name.startsWith("test/") && name.endsWith("_test.ts"));
}

/** A function that says of a file below test/ whether its imports reach what a unit test does not. */
function reacher(root) {
  const known = new Map();
  return function reaches(file) {
    const before = known.get(file);
    if (before !== undefined) return before;
    known.set(file, false); // of a circle, while it is followed
    const found = OUTSIDE.test(file) ||
      imports(root, file).some((target) =>
        OUTSIDE.test(target) || (target.startsWith("test/") && reaches(target))
      );
    known.set(file, found);
    return found;
  };
}

/** What a file imports: modules by name, files by their path below the root. */
function imports(root, file) {
  const path = join(root, file);
  if (!existsSync(path)) return [];
  const pattern = /(?:\bfrom|\bimport)\s*\(?\s*"([^"]+)"/g;
  return [...readFileSync(path, "utf8").matchAll(pattern)].map(([, name]) =>
    name.startsWith(".") ? relative(root, join(dirname(path), name)).split(sep).join("/") : name
  );
}

/**
 * The Debian package: the binary with what a Debian host expects around it. Packed by dpkg-deb; the
 * same content and time give the same bytes. The maintainer scripts lie in `debian/`.
 */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync } from "node:fs";
import { rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const SCRIPTS = fileURLToPath(new URL("debian/", import.meta.url));
const CONFFILE = "/etc/shishi/shishi.toml";
/** Not `shishi`: Debian has a package of that name, a Kerberos client, and apt would upgrade to it. */
const PACKAGE = "shishi-collector";
/** Of the packaging; the part before it is Shishi's own version. */
const REVISION = 1;
const MAINTAINER = "The Shishi authors <shishi@users.noreply.github.com>";

export interface DebOrder {
  /** Of Shishi, as in `shishi --version`. */
  readonly version: string;
  readonly architecture: "amd64" | "arm64";
  /** Path of the executable, linked to glibc. */
  readonly binary: string;
  readonly texts: DebTexts;
  /** Seconds since 1970, of every file in it. */
  readonly epochS: number;
  /** Where it is written. */
  readonly folder: string;
  /** For tests, which have no minute to spare. */
  readonly quick?: boolean;
}

export interface DebTexts {
  /** The unit, for the user `shishi` and `/etc/shishi/shishi.toml`. */
  readonly unit: string;
  /** The first `/etc/shishi/shishi.toml`. */
  readonly settings: string;
  /** roff. */
  readonly manual: string;
  /** What changed, for people. */
  readonly changelog: string;
  /** Shishi's own licence. */
  readonly copyright: string;
  /** The licences of all else that is in the binary. */
  readonly notices: string;
  readonly completions: { readonly bash: string; readonly zsh: string; readonly fish: string };
}

/** @returns the package's path. Throws when dpkg-deb does not make it. */
export function writeDeb(order: DebOrder): string {
  const tree = mkdtempSync(join(tmpdir(), "shishi-deb-"));
  // Everybody may enter the folders of a package, whoever makes it.
  const umask = process.umask(0o022);
  try {
    chmodSync(tree, 0o755);
    return pack(order, tree);
  } finally {
    process.umask(umask);
    rmSync(tree, { recursive: true });
  }
}

function pack(order: DebOrder, tree: string): string {
  const files = filesOf(order);
  for (const [path, content] of files) write(join(tree, path), content, 0o644);
  copyFileSync(order.binary, place(join(tree, "usr/bin/shishi")));
  chmodSync(join(tree, "usr/bin/shishi"), 0o755);
  const paths = ["usr/bin/shishi", ...files.keys()].sort();
  write(join(tree, "DEBIAN/control"), control(order, tree, paths), 0o644);
  write(join(tree, "DEBIAN/conffiles"), `${CONFFILE}\n`, 0o644);
  write(join(tree, "DEBIAN/md5sums"), sums(tree, paths), 0o644);
  for (const name of ["postinst", "prerm", "postrm"]) {
    write(join(tree, "DEBIAN", name), readFileSync(join(SCRIPTS, name)), 0o755);
  }
  const file = `${PACKAGE}_${order.version}-${REVISION}_${order.architecture}.deb`;
  const packed = join(order.folder, file);
  const { status, stderr, error } = spawnSync(
    "dpkg-deb",
    // One thread: with more of them xz cuts other blocks.
    [
      ...["--root-owner-group", "--threads-max=1"],
      ...(order.quick ? ["-Znone"] : ["-Zxz"]),
      ...["--build", tree, packed],
    ],
    {
      encoding: "utf8",
      env: { PATH: process.env["PATH"] ?? "", SOURCE_DATE_EPOCH: String(order.epochS) },
    },
  );
  if (status !== 0) throw new Error(`dpkg-deb: ${error?.message ?? stderr}`);
  return packed;
}

/** Path in the package → content, of all files but the binary. */
function filesOf({ version, texts, epochS }: DebOrder): Map<string, string | Uint8Array> {
  const doc = `usr/share/doc/${PACKAGE}`;
  return new Map<string, string | Uint8Array>([
    [CONFFILE.slice(1), texts.settings],
    ["usr/lib/systemd/system/shishi.service", texts.unit],
    ["usr/share/man/man1/shishi.1.gz", gzip(texts.manual)],
    ["usr/share/bash-completion/completions/shishi", texts.completions.bash],
    ["usr/share/zsh/vendor-completions/_shishi", texts.completions.zsh],
    ["usr/share/fish/vendor_completions.d/shishi.fish", texts.completions.fish],
    [`${doc}/copyright`, texts.copyright],
    [`${doc}/NOTICES.gz`, gzip(texts.notices)],
    [`${doc}/changelog.gz`, gzip(texts.changelog)],
    [`${doc}/changelog.Debian.gz`, gzip(debianChangelog(version, epochS))],
    [`usr/share/lintian/overrides/${PACKAGE}`, readFileSync(join(SCRIPTS, "lintian-overrides"))],
  ]);
}

function control({ version, architecture }: DebOrder, tree: string, paths: string[]): string {
  const bytes = paths.reduce((sum, path) => sum + statSync(join(tree, path)).size, 0);
  return `Package: ${PACKAGE}
Version: ${version}-${REVISION}
Architecture: ${architecture}
Maintainer: ${MAINTAINER}
Section: net
Priority: optional
Installed-Size: ${Math.ceil(bytes / 1024)}
Depends: adduser, libc6 (>= 2.17)
Suggests: clickhouse-server, nats-server
Conflicts: shishi
Description: edge collector for ClickHouse
 Takes JSON events over HTTP, answers when they are safe on disk, gathers them
 into the big batches that ClickHouse wants, and keeps trying until they are
 stored. Mirrors its counts to InfluxDB; can be inspected and stopped over
 NATS.
`;
}

function debianChangelog(version: string, epochS: number): string {
  const date = new Date(epochS * 1000).toUTCString().replace("GMT", "+0000");
  return `${PACKAGE} (${version}-${REVISION}) stable; urgency=medium

  * Shishi ${version}; what it changes stands in changelog.gz.

 -- ${MAINTAINER}  ${date}
`;
}

function sums(tree: string, paths: readonly string[]): string {
  return paths.filter((path) => `/${path}` !== CONFFILE).map((path) => {
    const sum = createHash("md5").update(readFileSync(join(tree, path))).digest("hex");
    return `${sum}  ${path}\n`;
  }).join("");
}

/** Without a name or a time in it. */
function gzip(text: string): Uint8Array {
  return gzipSync(text, { level: 9 });
}

function write(path: string, content: string | Uint8Array, mode: number): void {
  writeFileSync(place(path), content);
  chmodSync(path, mode);
}

/** `path`, once its folder is there. */
function place(path: string): string {
  mkdirSync(dirname(path), { recursive: true });
  return path;
}

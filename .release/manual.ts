/**
 * `shishi.1`, made from the commands' own help and the one table of settings, so that it cannot tell
 * another story than `--help`.
 */

import { allCommands } from "../src/commands/all.ts";
import type { CliCommand } from "../src/commands/cli.ts";
import { envName, type SettingSpec } from "../src/settings/spec.ts";
import { TABLE } from "../src/settings/table.ts";
import { escape, paragraph, type Piece, section, subsection, tagged, verbatim } from "./roff.ts";
import type { Stamp } from "./stamp.ts";

const DESCRIPTION =
  "Takes JSON events over HTTP, answers when they are safe on disk, gathers them into the big batches " +
  "that ClickHouse wants, and keeps trying until they are stored. Mirrors its counts to InfluxDB, and " +
  "can be inspected and stopped from anywhere over NATS.";

const SETTINGS =
  "Every setting is a flag, an environment variable and a key of the TOML file that --config names; a " +
  "flag beats the environment, which beats the file, which beats the default. The key is the flag " +
  "without its dashes. Durations are written 500ms, 1s, 5m or 1h, sizes 64KiB, 10MiB or 1GiB. A secret " +
  "need not stand on the command line: its -file form names a file that holds it. At SIGHUP the file, " +
  "secrets and certificates are read again and changes are taken at once, except where a restart is named.";

const EXIT_STATUS: readonly (readonly [code: string, meaning: string])[] = [
  ["0", "Done; for serve: everything received is stored, dead-lettered or on disk."],
  ["1", "Failed; for serve: rows were lost, and how many is the last line, or it could not start."],
  [
    "2",
    "Unusable flags or settings: every problem has a line on stderr; the spool is not touched.",
  ],
];

const SIGNALS: readonly (readonly [signal: string, meaning: string])[] = [
  [
    "SIGTERM, SIGINT",
    "Refuse new events (503), deliver what is held for at most shutdown-timeout, end. The last line " +
    "on stderr is the ledger. A second one ends at once; what was acknowledged with ack = disk stays " +
    "in the spool.",
  ],
  [
    "SIGHUP",
    "Reload: the settings file, secrets and certificates are read again, and changes taken while " +
    "requests are served. One line on stderr says what changed; what is wrong changes nothing.",
  ],
  [
    "SIGUSR2",
    "Upgrade: the program that lies where this one was started from takes over the port; this one " +
    "drains and ends.",
  ],
];

const FILES: readonly (readonly [path: string, meaning: string])[] = [
  ["DATA-DIR/spool/TABLE/ID....ndjson", "A batch that waits: the very rows of the INSERT."],
  ["DATA-DIR/dead/TABLE.ndjson", "Rows that ClickHouse refuses for good, one a line."],
  ["DATA-DIR/quarantine/", "What a crash or a bad disk left torn."],
  ["DATA-DIR/lock", "Keeps a second collector away."],
];

const ENVIRONMENT: readonly (readonly [name: string, meaning: string])[] = [
  ["SHISHI_...", "The settings, see above."],
  ["STATE_DIRECTORY", "Default of data-dir; systemd sets it."],
  ["CREDENTIALS_DIRECTORY", "A folder of secrets, each in a file of its setting's name; likewise."],
  ["NODE_EXTRA_CA_CERTS", "A PEM file with certificates to trust besides the well-known ones."],
];

const EXAMPLES: readonly (readonly [what: string, ...lines: string[]])[] = [
  ["Collect, and send an event:", ...[
    "shishi --clickhouse-url http://127.0.0.1:8123",
    `curl -d '{"eventType":"click","userId":"u1"}' localhost:8080/events`,
  ]],
  ["Try settings and servers without starting:", "shishi check --config /etc/shishi/shishi.toml"],
  ["Stop a group of collectors, five at a time:", ...[
    "shishi stop --target eu --batch 5 --wait 30s --nats-url nats://127.0.0.1:4222",
  ]],
  ["Send again what ClickHouse refused, after the repair:", "shishi dead replay flights"],
];

/** The page in roff, for man(7); ends in a newline. */
export async function manual({ version, epochS }: Pick<Stamp, "version" | "epochS">) {
  const commands = await allCommands();
  const date = new Date(epochS * 1000).toISOString().slice(0, 10);
  const lines = [
    `.TH SHISHI 1 ${date} "shishi ${escape(version)}" "User Commands"`,
    // Text that is cut at words only: a name broken at its dash could not be copied.
    ".nh",
    ".ad l",
    section("Name"),
    "shishi \\- an edge collector for ClickHouse",
    section("Synopsis"),
    ".nf",
    ...commands.flatMap((command) => usageOf(command).map((usage) => `\\fB${escape(usage)}\\fR`)),
    ".fi",
    section("Description"),
    ...paragraph(DESCRIPTION).slice(1),
    section("Commands"),
    ...commands.flatMap(aboutCommand),
    section("Settings"),
    ...paragraph(SETTINGS).slice(1),
    ...aboutSettings(),
    section("Exit status"),
    ...table(EXIT_STATUS),
    section("Signals"),
    ...table(SIGNALS),
    section("Environment"),
    ...table(ENVIRONMENT),
    section("Files"),
    ...table(FILES),
    section("Examples"),
    ...EXAMPLES.flatMap(([what, ...shell]) => [...paragraph(what), ...verbatim(shell)]).slice(1),
    section("See also"),
    "README.md and the pages in docs, which describe the HTTP interface, metrics and dashboards.",
  ];
  return lines.join("\n") + "\n";
}

function usageOf({ name, page }: CliCommand): string[] {
  const usage = page.usage ?? `shishi ${name} [--SETTING VALUE ...]`;
  return usage.split("\n").map((text) => text.trim());
}

function aboutCommand(command: CliCommand): string[] {
  const { name, summary, page: { about = "", only, extra = [] } } = command;
  // A flag that is off unless given goes without saying.
  const fallback = (spec: SettingSpec) =>
    [undefined, "false"].includes(defaultOf(spec)) ? "" : ` (default ${defaultOf(spec)})`;
  const taken = only === undefined || only.length === 0
    ? []
    : [`Settings: ${only.map((setting) => `--${setting}`).join(", ")}.`];
  // Some begin with their summary, some do not.
  const opening = `${summary[0]!.toUpperCase()}${summary.slice(1)}.`;
  const more = about.split("\n").filter(Boolean);
  return [
    subsection(`shishi ${name}`),
    ...[opening, ...more.filter((text) => text !== opening), ...taken]
      .flatMap((text) => paragraph(text)).slice(1),
    ...extra.flatMap((spec) => tagged(flag(spec, false), spec.meaning + fallback(spec))),
  ];
}

function aboutSettings(): string[] {
  const lines: string[] = [];
  let last = "";
  for (const spec of TABLE as readonly SettingSpec[]) {
    if (spec.section !== last) lines.push(subsection(last = spec.section));
    const later = spec.restart ? ". A change needs a restart" : "";
    lines.push(
      ...tagged(flag(spec, true), spec.meaning),
      ".br",
      escape(`Default: ${defaultOf(spec) ?? "none"}. Environment: ${envName(spec.name)}${later}`),
    );
  }
  return lines;
}

function flag(spec: SettingSpec, withNo: boolean): Piece[] {
  const no = withNo && spec.kind.file === "boolean" ? "[no-]" : "";
  const { placeholder } = spec.kind;
  return [
    { bold: `--${no}${spec.name}` },
    ...(placeholder === "" ? [] : [" ", { italic: placeholder }]),
    ...(spec.aliases ?? []).flatMap((alias) => [", ", { bold: `--${alias}` }]),
    ...(spec.secret ? [", ", { bold: `--${spec.name}-file` }, " ", { italic: "FILE" }] : []),
  ];
}

/** As it is given; undefined where there is none. */
function defaultOf({ default: initial }: SettingSpec): string | undefined {
  return typeof initial === "object" ? initial?.shown : initial;
}

function table(rows: readonly (readonly [string, string])[]): string[] {
  return rows.flatMap(([term, meaning]) => tagged([{ bold: term }], meaning));
}

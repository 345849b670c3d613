/**
 * argv → a command → an exit code. The first word is the command's name; without one the collector
 * runs, so that `shishi --clickhouse-url …` is all there is to it. Settings are parsed by the command
 * itself, from the one table (settings/), hence no argument parser here.
 */

import process from "node:process";
import { allCommands, commandNames, findCommand } from "./commands/all.ts";
import { boundHeap, runtimeName } from "./runtime/host.ts";
import { hint } from "./kernel/text.ts";
import { COMMIT, TARGET, VERSION } from "./version.ts";

const overview = async (): Promise<string> =>
  [
    "shishi — an edge collector for ClickHouse",
    "",
    "Usage: shishi [COMMAND] [--SETTING VALUE ...]",
    "",
    ...(await allCommands()).map((command) => `  ${command.name.padEnd(11)} ${command.summary}`),
    "",
    "  shishi COMMAND --help    what a command takes",
    "  shishi --version",
    "",
    "Without a command the collector runs. Try: shishi --clickhouse-url http://127.0.0.1:8123",
    'then: curl -d \'{"eventType":"click","userId":"u1"}\' localhost:8080/events',
  ].join("\n");

/** @returns the exit code: 0 done, 1 failed, 2 unusable flags or settings. */
async function main(argv: readonly string[]): Promise<number> {
  const [first = "", ...rest] = argv;
  if (first === "--version" || first === "-V") {
    console.log(`shishi ${VERSION} (commit ${COMMIT}, ${runtimeName}, ${TARGET})`);
    return 0;
  }
  const aboutAll = first === "--help" || first === "-h" || (first === "help" && rest.length === 0);
  if (aboutAll) {
    console.log(await overview());
    return 0;
  }
  const isFlag = first === "" || first.startsWith("-");
  const [name = "", ...args] = first === "help"
    ? [...rest, "--help"]
    : isFlag
    ? ["serve", ...argv]
    : argv;
  const wantsHelp = args.includes("--help") || args.includes("-h");
  if (name === "serve" && !wantsHelp) boundHeap();
  const command = await findCommand(name);
  if (command === null) return unknownCommand(name);
  if (wantsHelp) {
    console.log((await import("./settings/help.ts")).helpText(name, command.page));
    return 0;
  }
  return await command.run(args);
}

function unknownCommand(name: string): number {
  const suggestion = hint(name, commandNames, (known) => known) ||
    `; one of: ${commandNames.join(", ")}`;
  console.error(`shishi: unknown command ${JSON.stringify(name.slice(0, 64))}${suggestion}`);
  console.error("shishi: see shishi --help");
  return 2;
}

// Not awaited at the top level: bytecode, which the binary is compiled to, knows no such thing.
void main(process.argv.slice(2)).then((code) => process.exit(code));

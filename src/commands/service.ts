/** `shishi service print`: the systemd unit for this program and these settings, on stdout. */

import { resolve } from "node:path";
import process from "node:process";
import { ownCommand } from "../runtime/self.ts";
import { unitText } from "../service/unit.ts";
import { matching } from "../settings/kinds.ts";
import { section, setting } from "../settings/spec.ts";
import { TABLE } from "../settings/table.ts";
import type { CliCommand } from "./command.ts";
import { settingsOrExitCode } from "./load.ts";
import { operandOf } from "./operand.ts";
import { serviceSettings } from "./service_settings.ts";

const EXTRA = section("Flags", [
  setting({
    name: "user",
    kind: matching("NAME", "the name of a user", /^[a-z_][a-z0-9_-]{0,31}$/),
    default: null,
    meaning: "the user that the service runs as; unless given, one that systemd makes up",
  }),
]);
const USAGE = "shishi service print [--user NAME] [--SETTING VALUE ...]";
const ABOUT =
  "Writes a systemd unit for this program and these settings: readiness, watchdog, a sandbox. Secrets " +
  "are not pasted: each becomes a credential, a file that systemd hands over. Data lies in " +
  "/var/lib/shishi.\n" +
  "shishi service print --config /etc/shishi/shishi.toml > /etc/systemd/system/shishi.service\n" +
  "systemctl daemon-reload && systemctl enable --now shishi";
/** Where the sandbox lets nobody look. */
const HIDDEN = /^\/(?:home|root|tmp|var\/tmp|run\/user)\//;

export const service: CliCommand = {
  name: "service",
  summary: "print a systemd unit for this program and these settings",
  page: { usage: USAGE, about: ABOUT, extra: EXTRA },
  run(argv) {
    const { operand: verb, rest } = operandOf(argv, [...EXTRA, ...TABLE]);
    if (verb === "print") return Promise.resolve(print(rest));
    const found = verb === null ? "nothing" : JSON.stringify(verb.slice(0, 64));
    console.error(`shishi: service: expected print, got ${found}; see shishi service --help`);
    return Promise.resolve(2);
  },
};

function print(argv: readonly string[]): number {
  const loaded = settingsOrExitCode(argv, { command: "service", extra: EXTRA });
  if (typeof loaded === "number") return loaded;
  const { settings, extra: { user } } = loaded;
  const { flags, credentials, toWrite } = serviceSettings(
    argv,
    process.env,
    EXTRA,
    process.cwd(),
  );
  const state = stateOf(settings.dataDir);
  if ("path" in state && user === null) {
    console.error(
      `shishi: data-dir: expected a folder below /var/lib, or --user with the user that owns it, ` +
        `got ${state.path}`,
    );
    return 2;
  }
  const program = ownCommand();
  for (const path of program.filter((word) => HIDDEN.test(word))) {
    console.error(
      `shishi: ${path} cannot be seen by the service; install it in /usr/local/bin first`,
    );
  }
  const remarks = [
    "Put this into /etc/systemd/system/shishi.service, then:",
    "systemctl daemon-reload && systemctl enable --now shishi",
    ...toWrite.map((name) =>
      `Write the value of ${name} into /etc/shishi/${name} (root, mode 600) first.`
    ),
  ];
  const text = unitText({
    command: [
      ...program,
      "serve",
      ...flags,
      ...("path" in state ? [`--data-dir=${state.path}`] : []),
    ],
    credentials,
    state,
    user,
    shutdownTimeoutMs: settings.shutdownTimeoutMs,
    privilegedPort: settings.listen.port > 0 && settings.listen.port < 1024,
    remarks,
  });
  process.stdout.write(text);
  return 0;
}

/** Below /var/lib systemd makes the folder and gives it to the service. */
function stateOf(dataDir: string): { readonly name: string } | { readonly path: string } {
  if (dataDir === "./shishi-data") return { name: "shishi" };
  const path = resolve(dataDir);
  const name = /^\/var\/lib\/((?:[^/\s:]+\/)*[^/\s:]+)$/.exec(path)?.[1];
  return name === undefined ? { path } : { name };
}

/** The unit itself: settings in, text out on stdout. */

import { resolve } from "node:path";
import process from "node:process";
import { ownCommand } from "../runtime/self.ts";
import { unitText } from "../systemd/unit.ts";
import { settingsOrExitCode } from "./load.ts";
import { EXTRA } from "./service_flags.ts";
import { serviceSettings } from "./service_settings.ts";

/** Where the sandbox lets nobody look. */
const HIDDEN = /^\/(?:home|root|tmp|var\/tmp|run\/user)\//;
const CONFIG = "--config=";

/** @returns the exit code. */
export function print(argv: readonly string[]): number {
  const loaded = settingsOrExitCode(argv, { command: "service", extra: EXTRA });
  if (typeof loaded === "number") return loaded;
  const { settings, extra: { user, program: given } } = loaded;
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
  const program = given === null ? ownCommand() : [given];
  const config = flags.flatMap((flag) =>
    flag.startsWith(CONFIG) ? [flag.slice(CONFIG.length)] : []
  );
  const needed: [paths: readonly string[], todo: string][] = [
    [program, "install it in /usr/local/bin first"],
    [config, "move it to /etc/shishi first"],
    ["path" in state ? [state.path] : [], "choose a data-dir elsewhere"],
  ];
  for (const [paths, todo] of needed) {
    for (const path of paths.filter((path) => HIDDEN.test(path))) {
      console.error(`shishi: ${path} cannot be seen by the service; ${todo}`);
    }
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

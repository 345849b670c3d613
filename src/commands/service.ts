/**
 * `shishi service print`: the systemd unit for this program and these settings, on stdout. What of the
 * settings stands in the unit's command line, and what becomes a credential, is decided here: no secret
 * is pasted, and every file is named by its whole path.
 */

import { resolve } from "node:path";
import process from "node:process";
import { ownCommand } from "../runtime/host.ts";
import { type Given, readEnvironment, readFlags, takesCredential } from "../settings/load.ts";
import { boolean, matching, writeAddress } from "../settings/kinds.ts";
import { namesOf, quote, section, setting } from "../settings/spec.ts";
import { TABLE } from "../settings/table.ts";
import { unitText } from "../systemd/unit.ts";
import { type CliCommand, operandOf, settingsOrExitCode } from "./cli.ts";

const USAGE =
  "shishi service print [--template] [--user NAME] [--program PATH] [--SETTING VALUE ...]";
const ABOUT =
  "Writes a systemd unit for this program and these settings: readiness, watchdog, a sandbox. Secrets " +
  "are not pasted: each becomes a credential, a file that systemd hands over. Data lies in " +
  "/var/lib/shishi.\n" +
  "shishi service print --config /etc/shishi/shishi.toml > /etc/systemd/system/shishi.service\n" +
  "systemctl daemon-reload && systemctl enable --now shishi\n" +
  "With --template: shishi@.service, and enable --now shishi@1 shishi@2, as many as there are cores to use.";

const EXTRA = section("Flags", [
  setting({
    name: "user",
    kind: matching("NAME", "the name of a user", /^[a-z_][a-z0-9_-]{0,31}$/),
    default: null,
    meaning: "the user that the service runs as; unless given, one that systemd makes up",
  }),
  setting({
    name: "program",
    kind: matching("PATH", "a whole path", /^\/\P{Cc}+$/u),
    default: null,
    meaning: "where the program will lie; where it lies at the moment unless given",
  }),
  setting({
    name: "template",
    kind: boolean,
    default: "false",
    meaning: "the unit is shishi@.service: several collectors that share a port, one an instance",
  }),
]);

export const service: CliCommand = {
  name: "service",
  summary: "print a systemd unit for this program and these settings",
  page: { usage: USAGE, about: ABOUT, words: ["print"], extra: EXTRA },
  run(argv) {
    const { operand: verb, rest } = operandOf(argv, [...EXTRA, ...TABLE]);
    if (verb === "print") return Promise.resolve(print(rest));
    const found = verb === null ? "nothing" : JSON.stringify(verb.slice(0, 64));
    console.error(`shishi: service: expected print, got ${found}; see shishi service --help`);
    return Promise.resolve(2);
  },
};

/** Folders that the sandbox hides from the service. */
const HIDDEN = /^\/(?:home|root|tmp|var\/tmp|run\/user)\//;
const CONFIG = "--config=";

/** @returns the exit code. */
function print(argv: readonly string[]): number {
  const loaded = settingsOrExitCode(argv, { command: "service", extra: EXTRA });
  if (typeof loaded === "number") return loaded;
  const { settings, extra: { user, program: given, template } } = loaded;
  const { flags, credentials, toWrite } = serviceSettings(argv, process.env, process.cwd());
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
  const [unit, names] = template ? ["shishi@", "shishi@1 shishi@2"] : ["shishi", "shishi"];
  const remarks = [
    `Put this into /etc/systemd/system/${unit}.service, then:`,
    `systemctl daemon-reload && systemctl enable --now ${names}`,
    ...toWrite.map((name) =>
      `Write the value of ${name} into /etc/shishi/${name} (root, mode 600) first.`
    ),
  ];
  const adminListen = settings.adminListen.map(writeAddress);
  const fixed = adminListen.find((address) => !/:\d*0$|^unix:/.test(address));
  if (template && fixed !== undefined) {
    console.error(
      "shishi: admin-listen: expected a port that ends in 0, where each instance puts its number, " +
        `got ${fixed}`,
    );
    return 2;
  }
  const text = unitText({
    command: [
      ...program,
      "serve",
      ...(template
        ? flags.filter((flag) => !/^--(?:id|share-port|admin-listen)=/.test(flag))
        : flags),
    ],
    ...(template ? { instances: { id: givenId(flags), adminListen } } : {}),
    credentials,
    state,
    user,
    shutdownTimeoutMs: settings.shutdownTimeoutMs,
    drainDelayMs: settings.drainDelayMs,
    privilegedPort: [...settings.listen, ...settings.adminListen].some((listen) =>
      "port" in listen && listen.port > 0 && listen.port < 1024
    ),
    remarks,
  });
  process.stdout.write(text);
  return 0;
}

function givenId(flags: readonly string[]): string | null {
  return flags.find((flag) => flag.startsWith("--id="))?.slice("--id=".length) ?? null;
}

/** Below /var/lib systemd makes the folder and gives it to the service. */
function stateOf(dataDir: string): { readonly name: string } | { readonly path: string } {
  if (dataDir === "./shishi-data") return { name: "shishi" };
  const path = resolve(dataDir);
  const name = /^\/var\/lib\/((?:[^/\s:]+\/)*[^/\s:]+)$/.exec(path)?.[1];
  return name === undefined ? { path } : { name };
}

interface ServiceSettings {
  /** `--table=clicks` */
  readonly flags: readonly string[];
  readonly credentials: readonly { readonly name: string; readonly path: string }[];
  /** Credentials whose value stood on the command line or in the environment: their files are missing. */
  readonly toWrite: readonly string[];
}

/** The folder for credentials that were not given as files. */
const CREDENTIALS = "/etc/shishi";
/** The flags of the command itself, and what the unit says elsewhere. */
const NOT_FLAGS: readonly string[] = [...EXTRA.map(({ name }) => name), "data-dir"];

/** @param argv @param env are known to be usable. @param folder that relative paths count from. */
function serviceSettings(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  folder: string,
): ServiceSettings {
  const names = namesOf(TABLE);
  const byFlag = readFlags(argv, namesOf([...EXTRA, ...TABLE]), names).givens;
  const byVariable = readEnvironment(env, names, names).givens.filter(({ spec }) =>
    !byFlag.some((given) => given.spec === spec)
  );
  const flags: string[] = [];
  const credentials = new Map<string, string>();
  const toWrite = new Set<string>();
  for (const given of [...byFlag, ...byVariable]) {
    const { spec, text } = given;
    if (NOT_FLAGS.includes(spec.name)) continue;
    if (!holdsSecret(given)) {
      const isPath = spec.kind.placeholder === "FILE";
      flags.push(`--${spec.name}=${isPath ? resolve(folder, text) : text}`);
    } else if (given.file || spec.secret !== true) {
      credentials.set(spec.name, resolve(folder, text));
    } else {
      credentials.set(spec.name, `${CREDENTIALS}/${spec.name}`);
      toWrite.add(spec.name);
    }
  }
  return {
    flags,
    credentials: [...credentials].map(([name, path]) => ({ name, path })),
    toWrite: [...toWrite],
  };
}

/** A URL without user or password is none. */
function holdsSecret({ spec, text, file }: Given): boolean {
  return takesCredential(spec) && (file || spec.kind.show?.(text) !== quote(text));
}

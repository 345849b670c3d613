/**
 * What of the settings given to `shishi service print` stands in the unit's command line, and what
 * becomes a credential: no secret is pasted, and every file is named by its whole path.
 */

import { resolve } from "node:path";
import { takesCredential } from "../settings/credentials.ts";
import { readEnvironment } from "../settings/environment.ts";
import { readFlags } from "../settings/flags.ts";
import type { Given } from "../settings/given.ts";
import { namesOf } from "../settings/names.ts";
import { quote, type SettingSpec } from "../settings/spec.ts";
import { TABLE } from "../settings/table.ts";

export interface ServiceSettings {
  /** `--table=clicks` */
  readonly flags: readonly string[];
  readonly credentials: readonly { readonly name: string; readonly path: string }[];
  /** Credentials whose value stood on the command line, or in the environment: somebody has to write the file. */
  readonly toWrite: readonly string[];
}

/** Where the file of a credential is looked for that was not given as a file. */
const CREDENTIALS = "/etc/shishi";
/** The unit says where they are. */
const NOT_A_FLAG: readonly string[] = ["data-dir"];

/**
 * @param argv @param env are known to be usable. @param extra flags of the command itself.
 * @param folder that relative paths count from.
 */
export function serviceSettings(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  extra: readonly SettingSpec[],
  folder: string,
): ServiceSettings {
  const names = namesOf(TABLE);
  const byFlag = readFlags(argv, namesOf([...extra, ...TABLE]), names).givens;
  const byVariable = readEnvironment(env, names, names).givens.filter(({ spec }) =>
    !byFlag.some((given) => given.spec === spec)
  );
  const flags: string[] = [];
  const credentials = new Map<string, string>();
  const toWrite = new Set<string>();
  for (const given of [...byFlag, ...byVariable]) {
    const { spec, text } = given;
    if (extra.includes(spec) || NOT_A_FLAG.includes(spec.name)) continue;
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

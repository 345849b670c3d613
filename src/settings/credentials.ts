/**
 * Credentials → given values. A service manager puts each into a file of the folder that
 * `CREDENTIALS_DIRECTORY` names (systemd's `LoadCredential=`), readable by the service alone. One that
 * is called like a secret setting is its value; like a setting that is a file's path, that file. Any
 * other is somebody else's.
 */

import type { Given } from "./given.ts";
import type { Names } from "./names.ts";
import type { SettingSpec } from "./spec.ts";
import type { Outside } from "./load.ts";

/** Settings whose value is the path of a file that only few may read. */
const FILES: readonly string[] = ["tls-cert", "tls-key", "nats-creds"];

/** Whether a setting can be given as a credential. */
export function takesCredential({ name, secret }: SettingSpec): boolean {
  return secret === true || FILES.includes(name);
}

/** @param names the settings of this command. */
export function readCredentials(names: Names, { env, list }: Outside): readonly Given[] {
  const folder = env["CREDENTIALS_DIRECTORY"] ?? "";
  if (folder === "" || list === undefined) return [];
  return list(folder).flatMap((name): Given[] => {
    const meant = names.get(name);
    if (meant === undefined || meant.file || !takesCredential(meant.spec)) return [];
    const { spec } = meant;
    const label = `${name} (credential)`;
    const file = spec.secret === true;
    return [{ spec, source: "credential", label, text: `${folder}/${name}`, file }];
  });
}

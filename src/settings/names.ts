/**
 * What a setting is called in each place, and what somebody may have meant by a name that is none.
 */

import type { SettingSpec } from "./spec.ts";

/** What a name stands for: a setting, or the file that holds a secret's value. */
export interface Meant {
  readonly spec: SettingSpec;
  readonly file: boolean;
}

/** Every name (`flush-interval`, aliases, `nats-token-file`) with what it stands for. */
export type Names = ReadonlyMap<string, Meant>;

export function namesOf(specs: readonly SettingSpec[]): Names {
  const names = new Map<string, Meant>();
  for (const spec of specs) {
    for (const name of [spec.name, ...spec.aliases ?? []]) {
      names.set(name, { spec, file: false });
      if (spec.secret) names.set(`${name}-file`, { spec, file: true });
    }
  }
  return names;
}

export const ENV_PREFIX = "SHISHI_";

/** `flush-interval` → `SHISHI_FLUSH_INTERVAL`. */
export function envName(name: string): string {
  return ENV_PREFIX + name.toUpperCase().replaceAll("-", "_");
}

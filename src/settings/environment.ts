/**
 * Environment → given values. Every variable that begins with `SHISHI_` is ours and must be known,
 * except those that Kubernetes makes up for a service that is called shishi.
 */

import type { Gathered, Given } from "./given.ts";
import { hint, printable } from "../kernel/text.ts";
import { ENV_PREFIX, envName, type Names } from "./names.ts";

/**
 * An empty variable counts as not set, which is how compose files and unit files pass "nothing". Not
 * so for a secret: there it is far more often a mistake that would switch a protection off.
 *
 * @param names the settings of this command; @param others every setting: known, but not used here.
 */
export function readEnvironment(
  env: Readonly<Record<string, string | undefined>>,
  names: Names,
  others: Names,
): Gathered {
  const byVariable = new Map([...names].map(([name, meant]) => [envName(name), { name, meant }]));
  const known = new Set([...others.keys()].map(envName));
  const givens: Given[] = [];
  const problems: string[] = [];
  for (const [variable, text] of Object.entries(env)) {
    if (!variable.startsWith(ENV_PREFIX) || text === undefined) continue;
    const found = byVariable.get(variable);
    if (found) {
      const { spec, file } = found.meant;
      if (text === "" && !spec.secret) continue;
      const label = `${found.name} (environment ${variable})`;
      givens.push({ spec, source: "environment", label, text, file });
    } else if (!known.has(variable) && !isFromKubernetes(variable, text)) {
      const bare = (name: string) => name.slice(ENV_PREFIX.length);
      const suggestion = hint(bare(variable), [...known].map(bare), (name) => ENV_PREFIX + name);
      problems.push(`${printable(variable)}: unknown environment variable${suggestion}`);
    }
  }
  return { givens, problems };
}

/** `SHISHI_SERVICE_HOST`, `SHISHI_PORT=tcp://…`, `SHISHI_PORT_8080_TCP_ADDR`: docker-style links. */
function isFromKubernetes(variable: string, text: string): boolean {
  return /_SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)$/.test(variable) ||
    /_PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?$/.test(variable) ||
    (/_PORT$/.test(variable) && /^(?:tcp|udp|sctp):\/\//.test(text));
}

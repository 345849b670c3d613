/**
 * The settings that travel with every INSERT and every question, and what one server makes of them.
 *
 * A profile, another version's default or a proxy can turn nearly all that a row's fate hangs on: how a
 * value is read, whether a retry is stored twice, whether a view's failure is told. So whatever is relied on
 * is pinned. Before its first INSERT a server is asked which of these settings it knows (18.16: few) and
 * with what value they arrive; one that a profile keeps at another value, or that a proxy drops, makes
 * that server trouble instead of storing something else without a word.
 */

import type { Clock, Endpoint, Trouble } from "../contracts.ts";
import type { Post } from "../kernel/http.ts";
import {
  ASK_SETTINGS,
  EVERY_STATEMENT,
  HTTP_PARAMETERS,
  INSERT_SETTINGS,
  type Settings,
  TOKEN,
} from "../kernel/pinned.ts";
import { exceptionOf, isClickHouse, messageOf, settingOf } from "./verdict.ts";

const TIMEOUT_MS = 5_000;
const MOST_BYTES = 4 * 1024 * 1024;
/** After so long a server is looked at again: its profile, or what stands before it, may have changed. */
const VALID_MS = 60_000;
/** A server that could not be asked is asked again after this. */
const UNKNOWN_MS = 5_000;
/** A question that meets a setting which the server does not know is asked again without it. */
const MOST_TRIES = 32;

/** What one server makes of the pinned settings. */
export interface Pins {
  /** Of what is pinned, what this server does not know. */
  readonly unknown: ReadonlySet<string>;
  /**
   * The address of a statement.
   * @param settings of which those that this server knows are in it; the same object again costs least.
   * @param own what this statement has besides; where both have a name, the settings win.
   */
  address(settings: Settings, own: Settings): string;
  /** What keeps an INSERT's settings from arriving; null: nothing, or it cannot be found out now. */
  check(signal?: AbortSignal): Promise<Trouble | null> | null;
  /** The server refused a setting (115, 452): it is left out, and all are looked at again. */
  refused(code: number, setting: string): void;
}

export function createPins(
  tools: { readonly endpoint: Endpoint; readonly post: Post; readonly clock: Clock },
): Pins {
  const { endpoint, post, clock } = tools;
  const unknown = new Set<string>();
  let trouble: Trouble | null = null;
  let validMs = -Infinity;
  let checking: Promise<Trouble | null> | null = null;

  /** As they stand in an address: a hundred names and values would be written anew for each statement. */
  let written = new WeakMap<Settings, string>();
  const textOf = (settings: Settings): string => {
    let text = written.get(settings);
    if (text === undefined) {
      text = "";
      for (const name in settings) {
        if (!unknown.has(name)) text += parameter(name, settings[name]!);
      }
      written.set(settings, text);
    }
    return text;
  };
  const learn = (name: string, known: boolean) => {
    if (known ? unknown.delete(name) : !unknown.has(name) && unknown.add(name)) {
      written = new WeakMap();
    }
  };

  /** Put together by hand: `searchParams` writes an address anew for each name, up to 7 ms for all. */
  const { origin, pathname } = new URL(endpoint.url);
  const address = (settings: Settings, own: Settings = {}): string => {
    let text = textOf(settings);
    for (const name in own) {
      if (!Object.hasOwn(settings, name) || unknown.has(name)) text += parameter(name, own[name]!);
    }
    return `${origin}${pathname}?${text.slice(1)}`;
  };

  /** Names and values of settings as a statement with `settings` meets them; why not, or null. */
  async function ask(
    settings: Settings,
    signal?: AbortSignal,
  ): Promise<ReadonlyMap<string, string> | Trouble | null> {
    for (let left = MOST_TRIES; left > 0; left--) {
      const url = address(settings);
      const answered = await post({
        method: "POST",
        url,
        headers: credentials(endpoint),
        body: "SELECT name, value FROM system.settings FORMAT TabSeparated",
        timeoutMs: TIMEOUT_MS,
        maxAnswerBytes: MOST_BYTES,
        signal,
      });
      if (!answered.ok || answered.value.cut) return null;
      const exception = exceptionOf(answered.value);
      if (exception !== null) {
        const setting = settingOf(exception);
        if (exception.code === 452 && setting !== null) {
          return { code: 452, message: messageOf(exception.text) };
        }
        if (exception.code !== 115 || setting === null || !carries(url, setting)) return null;
        learn(setting, false);
        continue;
      }
      if (answered.value.status !== 200 || !isClickHouse(answered.value)) return null;
      const text = new TextDecoder().decode(answered.value.body);
      const found = new Map<string, string>();
      for (const line of text.split("\n")) {
        const tab = line.indexOf("\t");
        if (tab > 0) found.set(line.slice(0, tab), line.slice(tab + 1));
      }
      return found;
    }
    return null;
  }

  async function look(signal?: AbortSignal): Promise<Trouble | null> {
    validMs = clock.monotonicMs() + UNKNOWN_MS;
    const before = await ask(EVERY_STATEMENT, signal);
    if (before === null || !(before instanceof Map)) return asTrouble(before);
    // A list that is cut says nothing of what is not in it.
    if (!before.has("max_threads")) return null;
    for (const name of [...Object.keys(INSERT_SETTINGS), ...Object.keys(ASK_SETTINGS), TOKEN]) {
      learn(name, before.has(name));
    }
    const sent = { ...INSERT_SETTINGS, [TOKEN]: "shishi-check" };
    const after = await ask(sent, signal);
    if (after === null || !(after instanceof Map)) return asTrouble(after);
    validMs = clock.monotonicMs() + VALID_MS;
    const lost = Object.entries(sent).filter(([name, value]) =>
      !unknown.has(name) && after.get(name) !== value
    );
    if (lost.length === 0) return null;
    const [name, value] = lost[0]!;
    const more = lost.length > 1 ? ` (and ${lost.length - 1} more)` : "";
    return {
      code: 0,
      message:
        `settings do not arrive: ${name} is ${
          JSON.stringify(after.get(name) ?? "")
        } there, sent as ${
          JSON.stringify(value)
        }${more}; what stands before ClickHouse must pass on all ` +
        "parameters of a request",
    };
  }

  function asTrouble(found: unknown): Trouble | null {
    if (found === null || typeof found !== "object" || !("code" in found)) return null;
    const { message } = found as Trouble;
    return {
      code: 452,
      message: `the profile of this user forbids a setting that rows rely on: ${message}`,
    };
  }

  return {
    unknown,
    address: (settings, own) => address(settings, { ...HTTP_PARAMETERS, ...own }),
    check(signal) {
      if (trouble === null && clock.monotonicMs() < validMs) return null;
      const known = trouble === null && validMs !== -Infinity;
      checking ??= look(signal).then((found) => trouble = found).finally(() => checking = null);
      // Beside what goes on well: no INSERT waits for a look that is taken once more.
      return known ? null : checking;
    },
    refused(code, setting) {
      if (code === 115) learn(setting, false);
      validMs = -Infinity;
    },
  };
}

function parameter(name: string, value: string): string {
  return `&${encodeURIComponent(name)}=${encodeURIComponent(value)}`;
}

/** Whether a statement was sent with a setting. */
export function carries(address: string, setting: string): boolean {
  return new URL(address).searchParams.has(setting);
}

/**
 * What every request to this endpoint carries: headers of its own, and who the collector is, where a user is
 * named and no `Authorization` takes its place (ClickHouse refuses both together).
 */
export function credentials(endpoint: Endpoint): Record<string, string> {
  const { user, password } = endpoint;
  const own: Record<string, string> = {};
  for (const [name, value] of Object.entries(endpoint.headers ?? {})) own[name] = headerSafe(value);
  const authorized = Object.keys(own).some((name) => name.toLowerCase() === "authorization");
  const anonymous = user === "" || user === "default" && authorized;
  if (anonymous && password === "") return own;
  return {
    ...own,
    "X-ClickHouse-User": headerSafe(endpoint.user || "default"),
    "X-ClickHouse-Key": headerSafe(endpoint.password),
  };
}

/** Header values are bytes: the UTF-8 of a secret is sent as it is, one byte a character. */
function headerSafe(value: string): string {
  let bytes = "";
  for (const byte of new TextEncoder().encode(value)) bytes += String.fromCharCode(byte);
  return bytes;
}

/**
 * URLs of the servers, and how a wrong one is printed. A URL carries its password in the open, so the
 * printable form is built from parts that are known to be harmless; where the text cannot be taken
 * apart with certainty nothing but its scheme is shown.
 */

import type { Endpoint } from "../contracts.ts";
import { type Kind, type Parsed, quote } from "./spec.ts";

export interface EndpointDefaults {
  readonly user: string;
  readonly database: string;
  /** For examples in messages. */
  readonly port: number;
}

const HOSTNAME = /^(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9.])?|\[[0-9a-f:.]+\])$/;
const SCHEME = /^(?:https?|wss?|tcp|tls|nats|native|clickhouse|influx|influxdb):\/\//i;
/** A bare address on a port that everybody knows tells nothing. */
const BARE = /^[a-z0-9][a-z0-9.-]*:(?:80|443|4222|8080|8086|8123|8443|9000|9440)\/?$/i;

/** The text, quoted, without credentials, query and anything that might be a piece of them. */
export function redactUrl(text: string): string {
  if (BARE.test(text)) return quote(text);
  const scheme = SCHEME.exec(text)?.[0].toLowerCase() ?? "";
  const hidden = quote(`${scheme}***`);
  const url = parseUrl(text);
  if (!url || scheme === "" || url.host === "") return hidden;
  const credentials = url.username !== "" || url.password !== "";
  // Any other "@" means that a "@", "/", "?" or "#" in the password may have torn the URL apart.
  if (text.split("@").length - 1 !== (credentials ? 1 : 0)) return hidden;
  return quote(
    scheme + (credentials ? "***@" : "") + url.host + (url.pathname === "/" ? "" : url.pathname) +
      (url.search ? "?***" : "") + (url.hash ? "#***" : ""),
  );
}

/** One `http(s)://user:password@host:port/database`, percent-encoding undone. */
export function parseEndpoint(text: string, defaults: EndpointDefaults): Parsed<Endpoint> {
  const example = `http(s)://user:password@host:${defaults.port}/database`;
  const wrong = (wanted: string, found?: string): Parsed<Endpoint> => ({
    ok: false,
    wanted,
    found: found ?? redactUrl(text),
  });
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase();
  if (scheme !== "http" && scheme !== "https") {
    return wrong(`a URL of the HTTP interface (not of a native port) such as ${example}`);
  }
  const url = parseUrl(text);
  if (!url || !HOSTNAME.test(url.hostname)) {
    return wrong(`${example} with special characters percent-encoded`);
  }
  const inQuery = text.indexOf("?") >= 0 && !text.includes("@", text.indexOf("?"));
  if (url.search !== "" || text.includes("?")) {
    const names = inQuery ? [...url.searchParams].filter(([, value]) => value !== "") : [];
    const plain = names.map(([name]) => name).filter((name) => /^[A-Za-z_]{1,32}$/.test(name));
    return wrong(
      `${example} without a query string`,
      plain.length > 0 ? `the query parameters ${plain.slice(0, 5).join(", ")}` : undefined,
    );
  }
  if (text.includes("#")) return wrong(`${example} without "#" (percent-encoded it is %23)`);
  const path = url.pathname.replace(/^\/|\/$/g, "");
  if (path.includes("/")) return wrong(`${example} with one database name as its path`);
  const [user, password, database] = [url.username, url.password, path].map(decode);
  if (user === null || password === null || database === null) {
    return wrong(`${example} with "%" written as %25`);
  }
  const name = database || defaults.database;
  if (hasControl(name) || name.includes("/")) return wrong(`${example} with a printable database`);
  return {
    ok: true,
    value: {
      url: url.origin,
      user: user || defaults.user,
      password: password ?? "",
      database: name,
      label: `${url.origin}/${encodeURIComponent(name)}`,
    },
  };
}

/** One URL. */
export function endpoint(defaults: EndpointDefaults): Kind<Endpoint> {
  return {
    placeholder: "URL",
    wanted: `http(s)://user:password@host:${defaults.port}/database`,
    parse: (text) => parseEndpoint(text, defaults),
    show: redactUrl,
  };
}

/** One URL or several, comma separated. */
export function endpoints(defaults: EndpointDefaults): Kind<readonly Endpoint[]> {
  return {
    ...urlList((text) => parseEndpoint(text, defaults)),
    wanted: `http(s)://user:password@host:${defaults.port}/database, several separated by commas`,
  };
}

const NATS_WANTED = "ws://host:port or wss://host:port, the websocket port of the NATS server";

/** `ws://` or `wss://` addresses of NATS servers. */
export function websockets(): Kind<readonly string[]> {
  return { ...urlList(parseWebsocket), wanted: NATS_WANTED, show: showAddress };
}

/** An address carries no secret, unless somebody put credentials into it. */
function showAddress(text: string): string {
  return /[@?]/.test(text) ? redactUrl(text) : quote(text);
}

function parseWebsocket(text: string): Parsed<string> {
  const url = /^wss?:\/\//i.test(text) ? parseUrl(text) : null;
  if (!url || !HOSTNAME.test(url.hostname) || url.search !== "" || url.hash !== "") {
    return { ok: false, wanted: NATS_WANTED, found: showAddress(text) };
  }
  if (url.username !== "" || url.password !== "") {
    return {
      ok: false,
      wanted: "an address without credentials (nats-user, nats-password and nats-token take them)",
      found: redactUrl(text),
    };
  }
  const path = url.pathname === "/" ? "" : url.pathname;
  return { ok: true, value: `${url.protocol}//${url.host}${path}` };
}

/** A comma separates only where a new URL begins: one inside a password does not tear it in two. */
function urlList<T>(parse: (text: string) => Parsed<T>): Kind<readonly T[]> {
  return {
    placeholder: "URL[,URL]",
    wanted: "URLs, separated by commas",
    show: redactUrl,
    file: "list",
    parse(text) {
      const values: T[] = [];
      for (const item of text.split(/,\s*(?=[a-z][a-z0-9+.-]*:\/\/)/i)) {
        const parsed = parse(item.trim());
        if (!parsed.ok) return parsed;
        values.push(parsed.value);
      }
      return { ok: true, value: values };
    },
  };
}

function parseUrl(text: string): URL | null {
  try {
    return hasControl(text) || /\s/.test(text) ? null : new URL(text);
  } catch {
    return null;
  }
}

function decode(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

function hasControl(text: string): boolean {
  return /\p{Cc}/u.test(text);
}

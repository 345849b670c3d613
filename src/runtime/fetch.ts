/**
 * `fetch` for requests that must not be sent twice without the caller's knowledge. Deno resends a POST
 * on a reused connection that dies after the server has read it, which is two inserts for one answer; a
 * client that pools no idle connection does not. Bun reports the broken connection instead. Failures
 * come in plain words.
 *
 * Both runtimes read proxies from the environment, each a little differently, and both send even what is
 * meant for this host through one. So they are told of each request which proxy it goes through, or none.
 */

import process from "node:process";
import { isWithin, parseAddress, parseNetwork } from "../kernel/address.ts";
import { plainNetworkError } from "../kernel/errors.ts";
import type { Fetch } from "../kernel/http.ts";
import { done, failed, type Result } from "../kernel/result.ts";
import { deno } from "./host.ts";

export interface FetchOptions {
  /** `false` costs a connection a request and is right for anything that is not idempotent. */
  readonly pooled: boolean;
  /**
   * PEM texts: authorities that are trusted besides the usual ones; a function is asked at the first
   * request that needs them. A server's own certificate is one of these on Bun; Deno takes none that calls
   * itself an authority for a server's.
   */
  readonly certificates?: readonly string[] | (() => readonly string[]);
  /** Where proxies are named; the process's own environment unless given. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** Ways to servers that are remembered: one for each server that the settings name. */
const MOST_WAYS = 64;

export function createFetch(
  { pooled, certificates = [], env = process.env }: FetchOptions,
): Fetch {
  const ways = new Map<string, Way>();
  const trusted = () => typeof certificates === "function" ? certificates() : certificates;
  const wayTo = (url: string): Way => {
    const { origin, protocol } = new URL(url);
    let way = ways.get(origin);
    if (way === undefined) {
      way = makeWay(url, pooled, protocol === "https:" ? trusted() : [], env);
      if (ways.size >= MOST_WAYS) ways.clear();
      ways.set(origin, way);
    }
    return way;
  };
  return (url, init) => {
    const way = wayTo(url);
    if (way.problem !== null) return Promise.reject(new Error(way.problem));
    return fetch(url, { ...init, ...way.init } as RequestInit).catch((error) => {
      const plain = plainNetworkError(error);
      return Promise.reject(way.via === null ? plain : through(way.via, plain));
    });
  };
}

/** How a server is reached. */
interface Way {
  /** For `fetch`. */
  readonly init: object;
  readonly via: Proxy | null;
  /** Why it cannot be reached at all. */
  readonly problem: string | null;
}

function makeWay(
  url: string,
  pooled: boolean,
  certificates: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Way {
  const found = proxyFor(url, env);
  if (!found.ok) return { init: {}, via: null, problem: found.problem };
  const via = found.value;
  const init = deno === undefined
    ? {
      ...(via !== null
        ? { proxy: withCredentials(via) }
        : PROXIES.some((name) => (process.env[name] ?? "") !== "")
        // The environment is not asked then.
        ? { proxy: false }
        : {}),
      ...(certificates.length > 0 ? { tls: { ca: roots(certificates) } } : {}),
    }
    : { client: clientOf(pooled, certificates, via) };
  return { init, via, problem: null };
}

function withCredentials({ url, user, password }: Proxy): string {
  if (user === "") return url;
  const named = new URL(url);
  named.username = encodeURIComponent(user);
  named.password = encodeURIComponent(password);
  return named.href;
}

function through(via: Proxy, error: unknown): Error {
  const { message } = error instanceof Error ? error : new Error(String(error));
  return new Error(`${message}, through the proxy ${via.label}`, { cause: error });
}

/** Without a proxy but the one that is given: a client takes those of the environment when it is made. */
export function clientOf(
  pooled: boolean,
  caCerts: readonly string[],
  via: Proxy | null,
  identity: { readonly cert?: string; readonly key?: string } = {},
): unknown {
  const kept = new Map(PROXIES.map((name) => [name, process.env[name]]));
  for (const name of PROXIES) delete process.env[name];
  try {
    return deno!.createHttpClient!({
      caCerts,
      ...identity,
      ...(pooled ? {} : { poolMaxIdlePerHost: 0 }),
      ...(via === null ? {} : { proxy: proxyOf(via) }),
    });
  } finally {
    for (const [name, value] of kept) if (value !== undefined) process.env[name] = value;
  }
}

const PROXIES = ["http_proxy", "https_proxy", "all_proxy"]
  .flatMap((name) => [name, name.toUpperCase()]);

function proxyOf({ url, user, password }: Proxy): object {
  return { url, ...(user === "" ? {} : { basicAuth: { username: user, password } }) };
}

/** What is given takes the place of the usual ones, so these are given too. */
export function roots(certificates: readonly string[]): string[] {
  // Loaded late: no start needs it.
  return [...process.getBuiltinModule("node:tls").rootCertificates, ...certificates];
}

// ── Which proxy a request goes through, by the environment as curl reads it: `https_proxy` or `HTTPS_PROXY` for
// https, `http_proxy` or `HTTP_PROXY` for http, `all_proxy` or `ALL_PROXY` for both, and `no_proxy` or
// `NO_PROXY` for the hosts that are reached without one; the name in lower case counts where both are set.
// Two things are not curl's: `HTTP_PROXY` counts, since no client can set it here as a CGI's could, and this host
// is always reached without a proxy, as Go has it: what listens on a loopback address is on no other host.

/** A proxy, and where it was named. */
interface Proxy {
  /** Without credentials. */
  readonly url: string;
  readonly user: string;
  readonly password: string;
  /** Safe to print: `http://proxy:3128 (HTTPS_PROXY)`. */
  readonly label: string;
}

type Env = Readonly<Record<string, string | undefined>>;

/** Null: the server is reached directly. */
export function proxyFor(url: string, env: Env): Result<Proxy | null> {
  const { protocol, hostname } = new URL(url);
  const host = hostname.replace(/^\[(.*)\]$/, "$1").replace(/\.$/, "").toLowerCase();
  const names = [protocol === "https:" ? "https_proxy" : "http_proxy", "all_proxy"]
    .flatMap((name) => [name, name.toUpperCase()]);
  const name = names.find((name) => (env[name] ?? "") !== "");
  if (name === undefined || isHere(host) || isExcepted(host, env)) return done(null);
  return readProxy(name, env[name]!.trim());
}

function readProxy(name: string, text: string): Result<Proxy> {
  const full = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  const wrong = (found: string) => failed(`${name}: expected http://host:port, got ${found}`);
  let url: URL;
  try {
    url = new URL(full);
  } catch {
    return wrong("what is no URL");
  }
  if (!/^https?:$/.test(url.protocol)) return wrong(`a proxy of the kind ${url.protocol}//`);
  if (url.hostname === "") return wrong("what is no URL");
  return done({
    url: url.origin,
    user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    label: `${url.origin} (${name})`,
  });
}

const LOOPBACK = ["127.0.0.0/8", "::1"].map((network) => parseNetwork(network)!);

function isHere(host: string): boolean {
  if (host === "localhost" || host.endsWith(".localhost")) return true;
  const address = parseAddress(host);
  return address !== null && LOOPBACK.some((network) => isWithin(address, network));
}

/** Hosts with all below them, addresses, networks such as 10.0.0.0/8, or `*`; a port is no part of an entry. */
function isExcepted(host: string, env: Env): boolean {
  const text = env["no_proxy"] ?? env["NO_PROXY"] ?? "";
  const address = parseAddress(host);
  return text.split(/[\s,]+/).filter((entry) => entry !== "").some((entry) => {
    if (entry === "*") return true;
    const bare = entry.toLowerCase().replace(/^\[(.*)\]$/, "$1").replace(/\.$/, "");
    if (address !== null) {
      const network = parseNetwork(bare);
      return network !== null && isWithin(address, network);
    }
    const domain = bare.replace(/^\./, "");
    return host === domain || host.endsWith(`.${domain}`);
  });
}

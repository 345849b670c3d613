/**
 * Which proxy a request goes through, by the environment as curl reads it: `https_proxy` or `HTTPS_PROXY` for
 * https, `http_proxy` or `HTTP_PROXY` for http, `all_proxy` or `ALL_PROXY` for both, and `no_proxy` or
 * `NO_PROXY` for the hosts that are reached without one; the name in lower case counts where both are set.
 * Two things are not curl's: `HTTP_PROXY` counts, since no client can set it here as a CGI's could, and this host
 * is always reached without a proxy, as Go has it: what listens on a loopback address is on no other host.
 */

import { isWithin, parseAddress, parseNetwork } from "../kernel/address.ts";
import { done, failed, type Result } from "../kernel/result.ts";

/** A proxy, and where it was named. */
export interface Proxy {
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

/**
 * What every request passes on its way in, and its answer on the way out. In, before anything else is looked
 * at: no page of another site, no client that asks too often, none without a token where there are some, and
 * a write token to its tables alone. Out: what browsers learn of it, from a preflight and from the headers of
 * every answer, and the count and the id of the answer. With no setting of these it costs a write a look at
 * `Origin`.
 */

import type { MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { getPath } from "hono/utils/url";
import { nodeNet } from "../kernel/builtins.ts";
import type { Ledger, Log, WriteToken } from "../contracts.ts";
import { isWithin, type Network, parseAddress } from "../kernel/address.ts";
import type { Rate, RateLimiter } from "../kernel/rate.ts";
import { excerpt } from "../kernel/text.ts";
import * as reply from "./reply.ts";
import { type Account, type Accounts, createTokens, type Found } from "./tokens.ts";

export interface GateSettings {
  /** May do everything. None of these and of the next = no token is asked for. */
  readonly authTokens: readonly string[];
  /** May append; none unless given. */
  readonly writeTokens?: readonly WriteToken[];
  /** None = no CORS headers at all. `*` = every origin. */
  readonly corsOrigins: readonly string[];
  /** No events are taken here: where no token may read, none is asked for. */
  readonly onlyReads?: boolean;
  /** Events may stand in an address. */
  readonly pixel?: boolean;
  /** Only this host can reach the server, in plain HTTP. */
  readonly loopback: boolean;
  /** Of each token, and of each address that comes without one. */
  readonly rateLimit: Rate | null;
}

interface Gate {
  /** The answer to a request for anything but a write that has no right to it, or null. */
  readonly checkToken: (request: Request) => Response | null;
  /**
   * The answer to a write that has no right to it; else whose account it is on, or null: on no one's.
   * @param names what the table is called, in the path and in ClickHouse.
   */
  readonly checkWriter: (
    request: Request,
    ...names: readonly string[]
  ) => Response | Account | null;
  /** The answer to a page of another site and to a client that asks too often, or null. @param posting as of `Origins`. */
  readonly checkClient: (
    request: Request,
    addressOf: AddressOf,
    posting: boolean,
  ) => Response | null;
  /** Answers what a browser asks before it posts for a page of another origin; null without CORS. */
  readonly preflight: MiddlewareHandler | null;
  /** Sets the headers that say what browsers may do with the answer. */
  readonly mark: (response: Response, request: Request) => void;
  /** The label of the write token that a request has, for the log; null: it has none. */
  readonly labelOf: (request: Request) => string | null;
}

/**
 * @param limit what is known of clients; it outlives a change of settings.
 * @param accounts of the write tokens' labels; the same.
 * @param clientAddress whose request counts for which client.
 */
export function createGate(
  settings: GateSettings,
  limit: RateLimiter,
  accounts: Accounts,
  ledger: Pick<Ledger, "tokenRefused">,
  clientAddress: ClientAddress = (request, addressOf) => addressOf(request),
): Gate {
  const { authTokens, writeTokens = [], corsOrigins, pixel, loopback, rateLimit } = settings;
  const open = settings.onlyReads === true && authTokens.length === 0;
  const tokens = open ? null : createTokens(authTokens, writeTokens, accounts);
  const origins = createOrigins({
    corsOrigins,
    pixel: pixel ?? false,
    onlyOwnHost: loopback && tokens === null,
  });
  const crossOrigin = corsOrigins.length > 0;
  const isHeld = (found: Found) => typeof found === "object" ? found : null;

  return {
    checkToken(request) {
      if (tokens === null) return null;
      const found = tokens.inHeader(request);
      const holder = isHeld(found);
      if (holder === null) return reply.unauthorized(found === "unknown", tokens, false);
      if (holder.appender === null) return null;
      const { label } = holder.appender.account;
      ledger.tokenRefused(label, "right");
      return reply.mayOnlyAppend(label);
    },
    checkWriter(request, ...names) {
      if (tokens === null) return null;
      const found = tokens.ofWrite(request);
      const holder = isHeld(found);
      if (holder === null) return reply.unauthorized(found === "unknown", tokens, true);
      const { appender } = holder;
      if (appender === null) return null;
      const { account, tables, mayWrite } = appender;
      if (mayWrite(...names)) return account;
      ledger.tokenRefused(account.label, "right");
      return reply.notItsTable(account.label, names[0]!, tables ?? []);
    },
    checkClient(request, addressOf, posting) {
      const foreign = origins.refusal(request, posting);
      if (foreign !== null) return reply.foreign(foreign);
      if (rateLimit === null || request.method === "OPTIONS") return null;
      const found = tokens === null
        ? "none"
        : posting
        ? tokens.ofWrite(request)
        : tokens.inHeader(request);
      const waitMs = limit.waitMs(
        isHeld(found)?.key ?? clientOf(clientAddress(request, addressOf)),
        rateLimit,
      );
      return waitMs === 0 ? null : reply.tooOften(rateLimit, waitMs / 1000);
    },
    preflight: crossOrigin ? createPreflight(origins.allowed) : null,
    mark(response, request) {
      if (request.method !== "POST") protect(response, request);
      if (crossOrigin) share(response, request, origins.allowed);
    },
    labelOf(request) {
      const found = tokens === null ? "none" : tokens.ofWrite(request);
      return isHeld(found)?.appender?.account.label ?? null;
    },
  };
}

// ── Paths, as far as they must be known before a request is routed.

/** A request without a usable `Host` (HTTP/1.0, some health checks) may come with its path only. */
export function pathOf(request: Request): string {
  const { url } = request;
  return getPath(url.startsWith("/") ? { url: `http://host${url}` } as Request : request);
}

const EVENTS = "/events";

/**
 * The table in a URL that is exactly `/events/TABLE` on any host, `""` for `/events` alone; null for
 * what is written in another way (a query, an escape, a slash more): that is the router's.
 */
export function plainTable(url: string): string | null {
  const path = url.indexOf("/", "https://".length);
  if (path < 0 || !url.startsWith(EVENTS, path)) return null;
  const end = path + EVENTS.length;
  if (end === url.length) return "";
  if (url.charCodeAt(end) !== SLASH || end + 1 === url.length) return null;
  for (let at = end + 1; at < url.length; at++) if (!isPlain(url.charCodeAt(at))) return null;
  return url.slice(end + 1);
}

const SLASH = 0x2f;

/** Of a name that no router would read in another way: a letter, a digit, `_`, `-` or `.`. */
function isPlain(code: number): boolean {
  return (code >= 0x61 && code <= 0x7a) || (code >= 0x30 && code <= 0x39) || code === 0x5f ||
    (code >= 0x41 && code <= 0x5a) || code === 0x2d || code === 0x2e;
}

/** Whether events or rows are posted there. */
export function isPosting(path: string): boolean {
  return /^\/events(\/[^/]+)?$/.test(path);
}

/** What counts as one client: an IPv4 address, or the /64 of an IPv6 one, which is given to one site. */
export function clientOf(address: string): string {
  const bare = address.replace(/%.*$/, "").toLowerCase();
  if (!nodeNet().isIPv6(bare)) return bare;
  const mapped = bare.replace(/^::ffff:/, "");
  if (nodeNet().isIPv4(mapped)) return mapped;
  const [head = "", tail = ""] = bare.split("::");
  const left = head.split(":");
  const missing = 8 - left.length - tail.split(":").length;
  const groups = [...left, ...new Array(Math.max(0, missing)).fill("0"), ...tail.split(":")];
  return groups.slice(0, 4).map((group) => group.replace(/^0*(?=.)/, "") || "0").join(":");
}

// ── Requests that a browser sends for a page of another site. Any page that is opened can post to a
// collector on the same host or network without asking first (a beacon, a form, text/plain), and one
// whose owner lets its name point to 127.0.0.1 even counts as the collector's own page (DNS rebinding).
// No page can make a browser hide where a request comes from: a POST always carries `Origin`, and `Sec-Fetch-Site` comes
// with every request to https or to this host. Other clients send neither and are not held up.

export interface OriginSettings {
  /** Whose pages may post events, as browsers send them in `Origin`; `*` = all. */
  readonly corsOrigins: readonly string[];
  /**
   * Nothing but being reachable from this host alone keeps strangers out: a name that is not this
   * host's is one.
   */
  readonly onlyOwnHost: boolean;
  /** Pages of every site may show what is asked of a path that takes events. */
  readonly pixel?: boolean;
}

export interface Origins {
  /** Whether pages of this origin may post events and read the answer. */
  readonly allowed: (origin: string) => boolean;
  /**
   * Why a request is refused, or null.
   * @param posting it is for a path that takes events; to the others no other origin has access.
   */
  readonly refusal: (request: Request, posting: boolean) => string | null;
}

export function createOrigins(
  { corsOrigins, onlyOwnHost, pixel = false }: OriginSettings,
): Origins {
  const known = new Set(corsOrigins);
  const knownHosts = new Set(corsOrigins.map(hostOf));
  const allowed = known.has("*") ? () => true : (origin: string) => known.has(origin);
  const isOwn = (host: string) => !onlyOwnHost || isOwnHost(host) || knownHosts.has(host);

  return {
    allowed,
    refusal({ headers, method }, posting) {
      const origin = headers.get("origin");
      // Not a browser's: one would say whose page it is.
      if (origin === null && method === "POST") return null;
      if (origin !== null && posting && allowed(origin)) return null;
      const site = headers.get("sec-fetch-site");
      // Also behind a proxy that hands on another Host than it was asked for.
      if (site === "same-origin") return null;
      const host = headers.get("host")?.toLowerCase() ?? "";
      if (origin !== null && hostOf(origin) !== host) {
        const wanted = posting
          ? "this collector's own or one of cors-origins"
          : "the collector's own";
        return `Origin: expected ${wanted}, got ${excerpt(origin)}`;
      }
      // What is posted has been let in, or carries an origin.
      if (pixel && posting && origin === null) return isOwn(host) ? null : foreignHost(host);
      if (site !== null) return isLink(site, headers) ? null : foreignSite(site);
      return isOwn(host) ? null : foreignHost(host);
    },
  };
}

/** A person typed the address, followed a link, or another program of this host asks. */
function isLink(site: string, headers: Headers): boolean {
  return site === "none" || headers.get("sec-fetch-mode") === "navigate";
}

/** Addresses, and names that cannot be owned (RFC 6761, 8375 and 9476), so that none lets them point here. */
function isOwnHost(host: string): boolean {
  const name = host.replace(/:\d*$/, "").replace(/^\[(.*)\]$/, "$1");
  return !name.includes(".") || nodeNet().isIP(name) !== 0 ||
    /\.(localhost|test|internal|home\.arpa)$/.test(name);
}

/** `https://app.example:8443` → `app.example:8443`; `null` stays. */
function hostOf(origin: string): string {
  return origin.replace(/^[^/]*:\/\//, "");
}

function foreignSite(site: string): string {
  return `Sec-Fetch-Site: expected same-origin or none, got ${excerpt(site)}`;
}

function foreignHost(host: string): string {
  return `Host: expected localhost or an address, got ${excerpt(host)}; ` +
    "set auth-tokens, or add its origin to cors-origins";
}

// ── What browsers learn.

/** Browsers keep what a preflight said no longer than this. */
const CORS_MAX_AGE_S = 7200;
const ALLOWED_HEADERS = [
  "authorization",
  "content-type",
  "content-encoding",
  "idempotency-key",
  "prefer",
  reply.REQUEST_ID,
];
/** What scripts of another origin may read besides status and body. */
const EXPOSED = ["retry-after", "preference-applied", reply.REQUEST_ID];
/** For what a browser can show: in no frame, in no page of another site, and without telling the next one. */
const SHOWN = [
  ["x-frame-options", "DENY"],
  ["cross-origin-resource-policy", "same-origin"],
  ["referrer-policy", "no-referrer"],
] as const;
const HSTS = "max-age=31536000";

function createPreflight(allowed: Origins["allowed"]): MiddlewareHandler {
  return cors({
    origin: (origin) => allowed(origin) ? origin : null,
    allowMethods: ["POST"],
    allowHeaders: ALLOWED_HEADERS,
    exposeHeaders: EXPOSED,
    maxAge: CORS_MAX_AGE_S,
  });
}

/** What the answer says itself stays. */
function protect({ headers }: Response, { url }: Request): void {
  for (const [name, value] of SHOWN) if (!headers.has(name)) headers.set(name, value);
  // For https without a port alone: it speaks for all ports of the host, and for those of other programs.
  if (/^https:\/\/(\[[^\]]*\]|[^:/]*)\//.test(url)) headers.set("strict-transport-security", HSTS);
}

/** Lets a page of another origin read the answer. Preflights have been answered in full already. */
function share(
  response: Response,
  { method, headers }: Request,
  allowed: Origins["allowed"],
): void {
  const origin = headers.get("origin");
  if (origin === null || method === "OPTIONS" || !allowed(origin)) return;
  // What every page may read is the same for all, so that it can be kept for all.
  if (response.headers.get("access-control-allow-origin") === "*") return;
  response.headers.set("access-control-allow-origin", origin);
  response.headers.set("access-control-expose-headers", EXPOSED.join(", "));
  response.headers.append("vary", "Origin");
}

// ── Whose request it is: the address of the connection or, where a trusted proxy has the other end of that,
// the one that it names (`X-Forwarded-For`, else `Forwarded`, RFC 7239). Each proxy appends the address
// that it was reached from, so the last one that is no trusted proxy is the client's; what stands before it
// may be made up. From any other peer both headers count for nothing.

/** `unix`: every client of a socket in the file system. */
export type TrustedProxy = Network | "unix";

/** The peer's address; it is asked for only where it is needed. */
export type AddressOf = (request: Request) => string;

/** The client's address; `""` for one that comes through a socket in the file system. */
type ClientAddress = (request: Request, addressOf: AddressOf) => string;

export function createClientAddress(trusted: readonly TrustedProxy[]): ClientAddress {
  if (trusted.length === 0) return (request, addressOf) => addressOf(request);
  const networks = trusted.filter((proxy) => proxy !== "unix");
  const trusts = (address: string): boolean => {
    if (address === "") return trusted.includes("unix");
    const bytes = parseAddress(address);
    return bytes !== null && networks.some((network) => isWithin(bytes, network));
  };
  return (request, addressOf) => {
    let client = addressOf(request);
    if (!trusts(client)) return client;
    const told = toldIn(request.headers);
    while (told.length > 0 && trusts(client)) {
      const address = told.pop()!;
      // `unknown`, or a name that hides the address: then it is not known beyond the proxy.
      if (parseAddress(address) === null) break;
      client = address;
    }
    return client;
  };
}

/** The addresses that were passed on, the one that the last proxy saw at the end. */
function toldIn(headers: Headers): string[] {
  const listed = headers.get("x-forwarded-for");
  if (listed !== null) return listed.split(",").map(bare);
  const forwarded = headers.get("forwarded");
  if (forwarded === null) return [];
  return forwarded.split(",").map((element) =>
    bare(/(?:^|;)\s*for\s*=\s*("[^"]*"|[^;]*)/i.exec(element)?.[1] ?? "")
  );
}

/** `"[2001:db8::1]:4711"`, `192.0.2.1:80` → the address alone. */
function bare(text: string): string {
  const plain = text.trim().replace(/^"(.*)"$/, "$1");
  return /^\[([^\]]*)\](?::\w+)?$/.exec(plain)?.[1] ?? plain.replace(/^([\d.]+):\w+$/, "$1");
}

// ── On the way out: every answer is counted, its headers say what browsers may do with it, and it has an id
// that also stands in the log. An answer that says yes carries an id only where the client sent one: to
// make one for each would cost every request, and there is nothing to look up.

export interface FinishDeps {
  readonly ledger: Pick<Ledger, "http" | "certified">;
  readonly log: Log;
}

export interface Finish {
  /** @param subject of the client's certificate; null: it has shown none. */
  readonly done: (
    response: Response,
    request: Request,
    addressOf: AddressOf,
    subject?: string | null,
  ) => Response;
  /** The answer to a request whose work threw; `done` comes after it. */
  readonly failed: (
    error: unknown,
    request: Request,
    addressOf: AddressOf,
    subject?: string | null,
  ) => Response;
}

const ID = reply.REQUEST_ID;

export function createFinish(
  { ledger, log }: FinishDeps,
  { mark, labelOf }: Pick<Gate, "mark" | "labelOf">,
  clientAddress: ClientAddress,
): Finish {
  const about = (
    request: Request,
    { headers }: Response,
    addressOf: AddressOf,
    subject: string | null,
  ) => {
    const token = labelOf(request);
    return {
      request: headers.get(ID),
      method: excerpt(request.method),
      // Without its query: a token may stand there.
      path: excerpt(pathOf(request)),
      client: clientAddress(request, addressOf),
      ...(subject === null ? {} : { certificate: subject }),
      ...(token === null ? {} : { token }),
    };
  };
  return {
    done(response, request, addressOf, subject = null) {
      const { status } = response;
      ledger.http(status);
      if (subject !== null) ledger.certified(subject);
      if (status >= 400) {
        if (!response.headers.has(ID)) {
          response.headers.set(ID, idOf(request) ?? crypto.randomUUID());
        }
        if (status !== 500) {
          log.debug("a request was refused", {
            ...about(request, response, addressOf, subject),
            status,
          });
        }
      } else {
        const id = idOf(request);
        if (id !== null) response.headers.set(ID, id);
      }
      mark(response, request);
      return response;
    },
    failed(error, request, addressOf, subject = null) {
      const response = reply.internalError();
      response.headers.set(ID, idOf(request) ?? crypto.randomUUID());
      log.error("a request failed", {
        ...about(request, response, addressOf, subject),
        error: String(error),
      });
      return response;
    },
  };
}

/** Ids that requests have got here. */
const given = new WeakMap<Request, string>();

/** The client's own id, where it is one that a log line and a header can hold, or the one it has got here. */
function idOf(request: Request): string | null {
  const id = request.headers.get(ID);
  return id !== null && /^[\x21-\x7e]{1,128}$/.test(id) ? id : given.get(request) ?? null;
}

/** The id of a request that needs one; its answer will have it too. */
export function requestId(request: Request): string {
  let id = idOf(request);
  if (id === null) given.set(request, id = crypto.randomUUID());
  return id;
}

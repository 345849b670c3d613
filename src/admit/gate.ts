/**
 * Who is let in before anything else is looked at: no page of another site, nobody who asks too often,
 * nobody without a token where there are some. With neither of them set it costs a look at `Origin`.
 */

import type { MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { createAuth, nameOf } from "./auth.ts";
import { EXPOSED } from "./finish.ts";
import { nodeNet } from "../kernel/builtins.ts";
import type { Rate, RateLimiter } from "../kernel/rate.ts";
import { createOrigins, type Origins } from "./origins.ts";
import * as reply from "./reply.ts";

export interface GateSettings {
  /** None = everybody may. */
  readonly authTokens: readonly string[];
  /** None = no CORS headers at all. `*` = every origin. */
  readonly corsOrigins: readonly string[];
  /** Only this host can reach the server, in plain HTTP. */
  readonly loopback: boolean;
  /** Of each token, and of each address that comes without one. */
  readonly rateLimit: Rate | null;
}

/** The peer's address; it is asked for only where it is needed. */
export type AddressOf = (request: Request) => string;

export interface Gate {
  /** Which origins may post, null without CORS. */
  readonly crossOrigin: Origins["allowed"] | null;
  /** The answer to a request without a token, or null. */
  readonly turnedAway: (request: Request) => Response | null;
  /** The answer to a page of another site and to who asks too often, or null. @param posting as of `Origins`. */
  readonly keptOut: (request: Request, addressOf: AddressOf, posting: boolean) => Response | null;
}

/** Browsers keep what a preflight said no longer than this. */
const CORS_MAX_AGE_S = 7200;
const ALLOWED_HEADERS = [
  "authorization",
  "content-type",
  "content-encoding",
  "prefer",
  "x-request-id",
];

/** @param limit what is known of clients; it outlives a change of settings. */
export function createGate(settings: GateSettings, limit: RateLimiter): Gate {
  const { authTokens, corsOrigins, loopback, rateLimit } = settings;
  const authorize = createAuth(authTokens);
  const origins = createOrigins({ corsOrigins, onlyOwnHost: loopback && authorize === null });
  // Not by their place: another change of settings may order them otherwise.
  const names = rateLimit === null ? [] : authTokens.map(nameOf);

  return {
    crossOrigin: corsOrigins.length > 0 ? origins.allowed : null,
    turnedAway({ headers }) {
      if (authorize === null) return null;
      const header = headers.get("authorization");
      return authorize(header) >= 0 ? null : reply.unauthorized(header);
    },
    keptOut(request, addressOf, posting) {
      const foreign = origins.refusal(request, posting);
      if (foreign !== null) return reply.foreign(foreign);
      if (rateLimit === null || request.method === "OPTIONS") return null;
      const token = authorize?.(request.headers.get("authorization")) ?? -1;
      const waitMs = limit.waitMs(names[token] ?? clientOf(addressOf(request)), rateLimit);
      return waitMs === 0 ? null : reply.tooOften(rateLimit, waitMs / 1000);
    },
  };
}

/** Answers the question that a browser asks before it posts for a page of another origin. */
export function preflight(allowed: Origins["allowed"]): MiddlewareHandler {
  return cors({
    origin: (origin) => allowed(origin) ? origin : null,
    allowMethods: ["POST"],
    allowHeaders: ALLOWED_HEADERS,
    exposeHeaders: EXPOSED,
    maxAge: CORS_MAX_AGE_S,
  });
}

/** Who counts as one client: an IPv4 address, or the /64 of an IPv6 one, which is given to one site. */
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

/**
 * What every answer gets on its way out: it is counted, a page of another origin may read it, and it has
 * an id that also stands in the log. An answer that says yes carries an id only where the client sent
 * one: to make one for each would cost every request, and there is nothing to look up.
 */

import type { Ledger, Log } from "../contracts.ts";
import { pathOf } from "./paths.ts";
import * as reply from "./reply.ts";
import { shown } from "./scan.ts";

export interface FinishDeps {
  readonly ledger: Pick<Ledger, "http">;
  readonly log: Log;
}

export interface Finish {
  readonly done: (response: Response, request: Request) => Response;
  /** The answer to a request whose work threw; `done` comes after it. */
  readonly failed: (error: unknown, request: Request) => Response;
}

const ID = "x-request-id";
/** For what a browser can show: in no frame, in no page of another site, and without telling the next one. */
const SHOWN = [
  ["x-frame-options", "DENY"],
  ["cross-origin-resource-policy", "same-origin"],
  ["referrer-policy", "no-referrer"],
] as const;
const HSTS = "max-age=31536000";
/** What scripts of another origin may read besides status and body. */
export const EXPOSED = ["retry-after", "preference-applied", ID];

/** @param crossOrigin which origins may read answers; null: CORS is off. */
export function createFinish(
  { ledger, log }: FinishDeps,
  crossOrigin: ((origin: string) => boolean) | null,
): Finish {
  return {
    done(response, request) {
      const { status } = response;
      ledger.http(status);
      if (status >= 400) {
        if (!response.headers.has(ID)) {
          response.headers.set(ID, idOf(request) ?? crypto.randomUUID());
        }
        if (status !== 500) {
          log.debug("a request was refused", { ...about(request, response), status });
        }
      } else {
        const id = idOf(request);
        if (id !== null) response.headers.set(ID, id);
      }
      if (request.method !== "POST") protect(response, request);
      if (crossOrigin !== null) share(response, request, crossOrigin);
      return response;
    },
    failed(error, request) {
      const response = reply.internalError();
      response.headers.set(ID, idOf(request) ?? crypto.randomUUID());
      log.error("a request failed", { ...about(request, response), error: String(error) });
      return response;
    },
  };
}

/** The client's own id, where it is one that a log line and a header can hold. */
function idOf({ headers }: Request): string | null {
  const id = headers.get(ID);
  return id !== null && /^[\x21-\x7e]{1,128}$/.test(id) ? id : null;
}

/** What the answer says itself stays. */
function protect({ headers }: Response, { url }: Request): void {
  for (const [name, value] of SHOWN) if (!headers.has(name)) headers.set(name, value);
  // For https without a port alone: it speaks for all ports of the host, and for those of other programs.
  if (/^https:\/\/(\[[^\]]*\]|[^:/]*)\//.test(url)) headers.set("strict-transport-security", HSTS);
}

function about(request: Request, { headers }: Response) {
  const { method } = request;
  return { request: headers.get(ID), method: shown(method), path: shown(pathOf(request)) };
}

/** Preflights have been answered in full already. */
function share(
  response: Response,
  { method, headers }: Request,
  allowed: (origin: string) => boolean,
) {
  const origin = headers.get("origin");
  if (origin === null || method === "OPTIONS" || !allowed(origin)) return;
  response.headers.set("access-control-allow-origin", origin);
  response.headers.set("access-control-expose-headers", EXPOSED.join(", "));
  response.headers.append("vary", "Origin");
}

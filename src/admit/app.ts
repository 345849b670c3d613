/**
 * The HTTP interface as one Hono app: which path does what, who may, and which tables may be written.
 * No middleware stands before a write unless a setting asks for one: each costs every request.
 */

import { type Context, Hono } from "hono";
import { cors } from "hono/cors";
import { getPath } from "hono/utils/url";
import type { Clock, Intake, Ledger, Log, Page, Status, Tables } from "../contracts.ts";
import { createAuth } from "./auth.ts";
import { compileGlobs } from "./globs.ts";
import * as reply from "./reply.ts";
import { shown } from "./scan.ts";
import { Writer, type WriteSettings } from "./write.ts";

export interface AdmitSettings extends WriteSettings {
  /** The table behind `POST /events`. */
  readonly table: string;
  /** Names or globs of the other tables that may be written. */
  readonly tables: readonly string[];
  /** None = everybody may. */
  readonly authTokens: readonly string[];
  /** None = no CORS headers at all. `*` = every origin. */
  readonly corsOrigins: readonly string[];
}

export interface AdmitDeps {
  readonly intake: Intake;
  readonly tables: Tables;
  readonly ledger: Ledger;
  readonly control: {
    status(): Status | Promise<Status>;
    unready(): readonly string[] | Promise<readonly string[]>;
  };
  readonly clock: Clock;
  readonly log: Log;
  /** Prometheus' text format 0.0.4. */
  readonly metrics: () => string | Promise<string>;
  readonly page: Page;
  readonly settings: AdmitSettings;
}

const READ_METHODS = "GET, HEAD";
const WRITE_METHODS = "POST";
const CLOSED = {
  stopping: "the collector is stopping; nothing was taken",
  paused: "the collector is paused; nothing was taken",
} as const;

/** Preflight answers may be kept this long by a browser. */
const CORS_MAX_AGE_S = 600;

/** What `serve` needs. */
export interface App {
  /** Never rejects. */
  readonly fetch: (request: Request) => Response | Promise<Response>;
}

export function createApp(deps: AdmitDeps): App {
  const { intake, ledger, control, settings } = deps;
  const app = new Hono({ getPath: pathOf });
  const writer = new Writer(deps);
  const authorized = createAuth(settings.authTokens);
  const allowed = compileGlobs(settings.tables);

  const counted = (response: Response): Response => {
    ledger.http(response.status);
    return response;
  };
  const failed = (error: unknown, request: Request): Response => {
    deps.log.error("a request failed", { path: pathOf(request), error: String(error) });
    return counted(reply.internalError());
  };
  /** The answer that a request gets without being looked at further, or null. */
  const turnedAway = (request: Request): Response | null =>
    authorized === null || authorized(request.headers.get("authorization"))
      ? null
      : reply.unauthorized();
  /** The answer that a write gets without a look at its body, or null. */
  const shut = (request: Request): Response | null => {
    const closed = intake.closed();
    return closed === null ? turnedAway(request) : reply.closed(CLOSED[closed]);
  };
  const write = (request: Request, work: () => Response | Promise<Response>) => {
    try {
      const answer = shut(request) ?? work();
      return answer instanceof Response
        ? counted(answer)
        : answer.then(counted, (error) => failed(error, request));
    } catch (error) {
      return failed(error, request);
    }
  };
  const postEvents = (request: Request) =>
    write(request, () => writer.events(request, settings.table));

  if (settings.corsOrigins.length > 0) addCors(app, settings.corsOrigins, ledger);

  app.post("/events", (c) => postEvents(c.req.raw));
  app.post("/events/:table", (c) => {
    const table = c.req.param("table");
    return write(c.req.raw, () => {
      if (table === settings.table) {
        return reply.notFound(`${table} takes analytics events: use POST /events`);
      }
      if (!allowed(table)) {
        return reply.notFound(`${shown(table)} is not one of the tables that may be written`);
      }
      return writer.rows(c.req.raw, table);
    });
  });
  app.get("/healthz", () => counted(reply.alive()));
  app.get("/readyz", async () => counted(reply.readiness(await control.unready())));
  app.get(
    "/metrics",
    async (c) => counted(turnedAway(c.req.raw) ?? reply.metricsText(await deps.metrics())),
  );
  app.get(
    "/api/status",
    async (c) => counted(turnedAway(c.req.raw) ?? reply.value(await control.status())),
  );

  app.get("/", async (c) => counted(await deps.page.document(c.req.raw)));
  app.get(
    "/api/live",
    async (c) => counted(turnedAway(c.req.raw) ?? await deps.page.live()),
  );

  app.notFound((c) => counted(unknown(c)));
  app.onError((error, c) => failed(error, c.req.raw));
  // A request of one event costs the router about a fifth of what it costs at all.
  const direct = settings.corsOrigins.length === 0;
  return {
    fetch: (request) =>
      direct && request.method === "POST" && isEvents(request.url)
        ? postEvents(request)
        : app.fetch(request),
  };
}

/** Exactly `/events` on any host; what is written in another way is the router's. */
function isEvents(url: string): boolean {
  return url.endsWith("/events") && url.indexOf("/", "https://".length) === url.length - 7;
}

/** A request without a usable `Host` (HTTP/1.0, some health checks) may come with its path only. */
function pathOf(request: Request): string {
  const { url } = request;
  return getPath(url.startsWith("/") ? { url: `http://host${url}` } as Request : request);
}

/** A known path with a method that it does not take, or nothing at all. */
function unknown(c: Context): Response {
  const { path, method } = c.req;
  if (/^\/events(\/[^/]+)?$/.test(path)) {
    return reply.wrongMethod(method, shown(path), WRITE_METHODS);
  }
  if (["/", "/healthz", "/readyz", "/metrics", "/api/live", "/api/status"].includes(path)) {
    return reply.wrongMethod(method, path, READ_METHODS);
  }
  return reply.notFound(`${shown(path)} does not exist; events go to POST /events`);
}

function addCors(app: Hono, origins: readonly string[], ledger: Ledger): void {
  app.use(async (c, next) => {
    await next();
    // `cors` answers these itself.
    if (c.req.method === "OPTIONS" && c.res.status === 204) ledger.http(c.res.status);
  });
  app.use(cors({
    origin: origins.includes("*") ? "*" : [...origins],
    allowMethods: ["GET", "HEAD", "POST"],
    allowHeaders: ["authorization", "content-type", "content-encoding", "prefer"],
    exposeHeaders: ["preference-applied", "retry-after"],
    maxAge: CORS_MAX_AGE_S,
  }));
}

/**
 * The HTTP interface as one Hono app: which path does what, who may, and which tables may be written.
 * No middleware stands before a write unless a setting asks for one: each costs every request.
 */

import { type Context, Hono } from "hono";
import { cors } from "hono/cors";
import { METHOD_NAME_ALL } from "hono/router";
import { getPath } from "hono/utils/url";
import type {
  Clock,
  DeadLetters,
  Intake,
  Ledger,
  Log,
  Page,
  Queries,
  Shape,
  Status,
  Tables,
} from "../contracts.ts";
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
  readonly version: string;
  readonly page: Page;
  /** Made when they are wanted first. */
  readonly queries: () => Promise<Queries>;
  readonly deadLetters: () => Promise<DeadLetters>;
  readonly settings: AdmitSettings;
}

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
  /** Rows that the program itself gives again, in a request as of `POST /events…`: no token is asked for. */
  readonly again: (request: Request, table: string, shape: Shape) => Promise<Response>;
  /** What is served, for those who describe it. */
  readonly routes: readonly { readonly method: string; readonly path: string }[];
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
  /** Loaded late: the first answer does not need it. */
  const loadReads = async () => (await import("./reads.ts")).createReads(deps);
  let reads: ReturnType<typeof loadReads> | null = null;
  const loadDescription = async () =>
    (await import("./openapi/document.ts")).describe(deps.version);
  let description: ReturnType<typeof loadDescription> | null = null;
  const read = (path: string, answer: (request: Request) => Promise<Response>) =>
    app.get(path, async (c) => counted(turnedAway(c.req.raw) ?? await answer(c.req.raw)));
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

  const postRows = (request: Request, table: string) => {
    if (table === settings.table) {
      return reply.notFound(`${table} takes analytics events: use POST /events`);
    }
    if (!allowed(table)) {
      return reply.notFound(`${shown(table)} is not one of the tables that may be written`);
    }
    return writer.rows(request, table);
  };

  if (settings.corsOrigins.length > 0) addCors(app, settings.corsOrigins, ledger);

  app.post("/events", (c) => postEvents(c.req.raw));
  app.post("/events/:table", (c) => {
    const table = c.req.param("table");
    return write(c.req.raw, () => postRows(c.req.raw, table));
  });
  app.get("/healthz", () => counted(reply.alive()));
  app.get("/readyz", async () => counted(reply.readiness(await control.unready())));
  read("/metrics", async () => reply.metricsText(await deps.metrics()));
  read("/api/status", async () => reply.value(await control.status()));
  read("/api/metrics", async (request) => (await (reads ??= loadReads())).metrics(request));
  read("/api/events", async (request) => (await (reads ??= loadReads())).events(request));
  read("/api/dead", async (request) => (await (reads ??= loadReads())).dead(request));
  read("/openapi.json", async (request) => {
    const { text, tag } = await (description ??= loadDescription());
    return reply.document(text, tag, request.headers.get("if-none-match"));
  });
  app.post(
    "/api/dead/replay",
    (c) => write(c.req.raw, async () => (await (reads ??= loadReads())).replay(c.req.raw)),
  );

  app.get("/", async (c) => counted(await deps.page.document(c.req.raw)));
  read("/api/live", async (request) => {
    const live = await deps.page.live();
    // Nobody would ever read what follows.
    if (request.method === "HEAD") await live.body?.cancel();
    return live;
  });

  app.notFound((c) => counted(unknown(c, app.routes)));
  app.onError((error, c) => failed(error, c.req.raw));
  // A request of one event costs the router about a fifth of what it costs at all.
  const direct = settings.corsOrigins.length === 0;
  return {
    fetch: (request) =>
      direct && request.method === "POST" && isEvents(request.url)
        ? postEvents(request)
        : app.fetch(request),
    async again(request, table, shape) {
      const closed = intake.closed();
      if (closed !== null) return reply.closed(CLOSED[closed]);
      return await (shape === "event"
        ? writer.events(request, settings.table)
        : postRows(request, table));
    },
    routes: app.routes.filter(({ method }) => method !== METHOD_NAME_ALL),
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
function unknown(c: Context, routes: App["routes"]): Response {
  const { path, method } = c.req;
  const taken = routes.filter((route) => isOn(route, path)).map(({ method }) => method);
  return taken.length === 0
    ? reply.notFound(`${shown(path)} does not exist; events go to POST /events`)
    : reply.wrongMethod(method, shown(path), taken.join(", ").replace("GET", "GET, HEAD"));
}

function isOn({ method, path: pattern }: App["routes"][number], path: string): boolean {
  return method !== METHOD_NAME_ALL &&
    new RegExp(`^${pattern.replace(/:\w+/, "[^/]+").replaceAll(".", "\\.")}$`).test(path);
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

/**
 * The HTTP interface as one Hono app: which path does what, who may, and which tables may be written.
 * No middleware stands before a write unless a setting asks for one: each costs every request.
 */

import { type Context, Hono } from "hono";
import type { Clock, Intake, Ledger, Log, Status, Tables } from "../contracts.ts";
import { createFinish } from "./finish.ts";
import { type AddressOf, createGate, type GateSettings, preflight } from "./gate.ts";
import { compileGlobs } from "./globs.ts";
import { isEvents, isPosting, pathOf } from "./paths.ts";
import * as reply from "./reply.ts";
import { shown } from "./scan.ts";
import { Writer, type WriteSettings } from "./write.ts";

export interface AdmitSettings extends WriteSettings, GateSettings {
  /** The table behind `POST /events`. */
  readonly table: string;
  /** Names or globs of the other tables that may be written. */
  readonly tables: readonly string[];
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
  readonly settings: AdmitSettings;
}

const READ_METHODS = "GET, HEAD";
const WRITE_METHODS = "POST";
const HEALTH: readonly string[] = ["/healthz", "/readyz"];
const CLOSED = {
  stopping: "the collector is stopping; nothing was taken",
  paused: "the collector is paused; nothing was taken",
} as const;

/** What `serve` needs. */
export interface App {
  /** Never rejects. */
  readonly fetch: (request: Request, addressOf: AddressOf) => Response | Promise<Response>;
}

export function createApp(deps: AdmitDeps): App {
  const { intake, control, settings, clock } = deps;
  const app = new Hono({ getPath: pathOf });
  const writer = new Writer(deps);
  const allowed = compileGlobs(settings.tables);
  const { turnedAway, keptOut, crossOrigin } = createGate(settings, clock);
  const finish = createFinish(deps, crossOrigin);

  /** The answer that a write gets without a look at its body, or null. */
  const shut = (request: Request): Response | null => {
    const closed = intake.closed();
    return closed === null ? turnedAway(request) : reply.closed(CLOSED[closed]);
  };
  const postEvents = (request: Request) => shut(request) ?? writer.events(request, settings.table);

  if (crossOrigin !== null) {
    app.on("OPTIONS", ["/events", "/events/:table"], preflight(crossOrigin));
  }
  app.post("/events", (c) => postEvents(c.req.raw));
  app.post("/events/:table", (c) => {
    const answer = shut(c.req.raw);
    if (answer !== null) return answer;
    const table = c.req.param("table");
    if (table === settings.table) {
      return reply.notFound(`${table} takes analytics events: use POST /events`);
    }
    if (!allowed(table)) {
      return reply.notFound(`${shown(table)} is not one of the tables that may be written`);
    }
    return writer.rows(c.req.raw, table);
  });
  app.get("/healthz", () => reply.alive());
  app.get("/readyz", async () => reply.readiness(await control.unready()));
  app.get(
    "/metrics",
    async (c) => turnedAway(c.req.raw) ?? reply.metricsText(await deps.metrics()),
  );
  app.get(
    "/api/status",
    async (c) => turnedAway(c.req.raw) ?? reply.value(await control.status()),
  );
  app.notFound(unknown);
  app.onError((error, c) => finish.failed(error, c.req.raw));

  const answer: App["fetch"] = (request, addressOf) => {
    // A request of one event costs the router about a fifth of what it costs at all.
    if (request.method === "POST" && isEvents(request.url)) {
      return keptOut(request, addressOf, true) ?? postEvents(request);
    }
    const path = pathOf(request);
    // Who watches the collector comes by any name, and often.
    const refused = HEALTH.includes(path) ? null : keptOut(request, addressOf, isPosting(path));
    return refused ?? app.fetch(request);
  };
  return {
    fetch(request, addressOf) {
      try {
        const answered = answer(request, addressOf);
        return answered instanceof Response ? finish.done(answered, request) : answered.then(
          (response) => finish.done(response, request),
          (error) => finish.done(finish.failed(error, request), request),
        );
      } catch (error) {
        return finish.done(finish.failed(error, request), request);
      }
    },
  };
}

/** A known path with a method that it does not take, or nothing at all. */
function unknown(c: Context): Response {
  const { path, method } = c.req;
  if (isPosting(path)) return reply.wrongMethod(method, shown(path), WRITE_METHODS);
  if ([...HEALTH, "/metrics", "/api/status"].includes(path)) {
    return reply.wrongMethod(method, path, READ_METHODS);
  }
  return reply.notFound(`${shown(path)} does not exist; events go to POST /events`);
}

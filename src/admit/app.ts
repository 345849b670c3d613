/**
 * The HTTP interface as one Hono app: which path does what, for whom, and which tables may be written.
 * No middleware stands before a write unless a setting asks for one: each costs every request.
 */

import { type Context, Hono } from "hono";
import { TrieRouter } from "hono/router/trie-router";
import { METHOD_NAME_ALL } from "hono/router";
import {
  type Clock,
  type DeadLetters,
  FOLDER_HEADER,
  type Intake,
  type Ledger,
  type Log,
  type Page,
  type Queries,
  type SetAsideNow,
  type Status,
  type TableMaker,
  type Tables,
} from "../contracts.ts";
import { stillSends, type StillThere, throwAwayBody } from "./body.ts";
import {
  type AddressOf,
  createClientAddress,
  createFinish,
  createGate,
  type GateSettings,
  isPosting,
  pathOf,
  plainTable,
  type TrustedProxy,
} from "./gate.ts";
import { DecodeQueue } from "./decode.ts";
import { compileGlobs } from "../kernel/names.ts";
import { RateLimiter } from "../kernel/rate.ts";
import { excerpt } from "../kernel/text.ts";
import { Strangers } from "./reading.ts";
import * as reply from "./reply.ts";
import { type Account, Accounts } from "./tokens.ts";
import { Writer, type WriteSettings } from "./write.ts";

export { createJudge } from "./judge.ts";
export { eventTypes } from "./event.ts";

/** What of the interface is served: where there is an admin port, all but health is on one of the two. */
export type Part = "all" | "events" | "admin";

export interface AdmitSettings extends WriteSettings, GateSettings {
  /** The table behind `POST /events`. */
  readonly table: string;
  /** Names or globs of the other tables that may be written. */
  readonly tables: readonly string[];
  /** Whose word on the client's address counts; none unless given. */
  readonly trustedProxies?: readonly TrustedProxy[];
}

export interface AdmitDeps {
  /** All unless given. */
  readonly part?: Part;
  readonly intake: Intake;
  readonly tables: Tables;
  /** As of `WriterDeps`. */
  readonly maker?: TableMaker;
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
  readonly setAside: SetAsideNow;
  /** As of `WriterDeps`. */
  readonly stillThere?: StillThere | null;
  readonly settings: AdmitSettings;
}

/** A probe comes by any name, and often; the script is loaded by pages of every site. */
const FOR_ALL: readonly string[] = ["/healthz", "/readyz", "/shishi.js"];
const CLOSED = {
  stopping: "the collector is stopping; nothing was taken",
  paused: "the collector is paused; nothing was taken",
} as const;

/** What `serve` needs. */
export interface App {
  /** Never rejects. */
  readonly fetch: (
    request: Request,
    addressOf: AddressOf,
    /** Of the client's certificate; null or absent: it has shown none. */
    subject?: string | null,
  ) => Response | Promise<Response>;
  /** What is served, for those who describe it. */
  readonly routes: readonly { readonly method: string; readonly path: string }[];
}

/** What every app of one collector uses: it outlives a change of settings, which makes a new app. */
export interface Shared {
  readonly limit: RateLimiter;
  readonly queue: DecodeQueue;
  readonly strangers: Strangers;
  readonly accounts: Accounts;
}

export function createShared(clock: Clock): Shared {
  return {
    limit: new RateLimiter(clock),
    queue: new DecodeQueue(async () => (await import("./csv.ts")).decodeCsv),
    strangers: new Strangers(),
    accounts: new Accounts(clock),
  };
}

export function createApp(deps: AdmitDeps, shared: Shared = createShared(deps.clock)): App {
  const { intake, control, ledger, settings, part = "all" } = deps;
  // The usual router gets ready at the first request, in 4 ms; this one is as soon as it is filled.
  const app = new Hono<{ Bindings: { readonly addressOf: AddressOf } }>({
    getPath: pathOf,
    router: new TrieRouter(),
  });
  shared.strangers.adopt(settings.tables);
  // So that its series begin at 0, and not at what came first.
  for (const { label } of settings.writeTokens ?? []) ledger.tokenTook(label, 0, 0);
  const writer = new Writer(deps, shared.queue, shared.strangers);
  const allowed = compileGlobs(settings.tables);
  const clientAddress = createClientAddress(settings.trustedProxies ?? []);
  const gate = createGate(
    { ...settings, onlyReads: part === "admin" },
    shared.limit,
    shared.accounts,
    ledger,
    clientAddress,
  );
  const { checkToken, checkWriter, checkClient, preflight } = gate;
  const finish = createFinish(deps, gate, clientAddress);

  const refusesAll = (): Response | null => {
    const closed = intake.closed();
    return closed === null ? null : reply.closed(CLOSED[closed]);
  };
  /** Loaded with the first read: the first answer does not need it. */
  const loadReads = async () => (await import("./reads.ts")).createReads(deps);
  let reads: ReturnType<typeof loadReads> | null = null;
  const read = (path: string, answer: (request: Request) => Promise<Response>) =>
    app.get(path, async (c) => checkToken(c.req.raw) ?? await answer(c.req.raw));
  const postEvents = (request: Request) => {
    const refused = refusesAll();
    if (refused !== null) return refused;
    const account = checkWriter(request, "events", settings.table);
    return account instanceof Response ? account : writer.events(request, settings.table, account);
  };
  const getEvent = (request: Request) => {
    const refused = refusesAll();
    if (refused !== null) return refused;
    const account = checkWriter(request, "events", settings.table);
    if (account instanceof Response) return account;
    // A look at what a link leads to does not follow it.
    return request.method === "HEAD"
      ? reply.pixel(request)
      : writer.pixel(request, settings.table, account);
  };
  const postRows = (request: Request, table: string, addressOf: AddressOf) => {
    const refused = refusesAll();
    if (refused !== null) return refused;
    // The right to events leads on to where they go, as it is told below.
    const account = checkWriter(request, table, ...table === settings.table ? ["events"] : []);
    return account instanceof Response ? account : postRowsOn(account, request, table, addressOf);
  };
  const postRowsOn = (
    account: Account | null,
    request: Request,
    table: string,
    addressOf: AddressOf,
  ) => {
    if (table === settings.table) {
      return reply.notFound(`${table} takes analytics events: use POST /events`);
    }
    if (!allowed(table)) {
      return reply.noTable(table, `${excerpt(table)} is not one of the tables that may be written`);
    }
    return writer.rows(request, table, account, (request) => clientAddress(request, addressOf));
  };

  const serveEvents = () => {
    if (preflight !== null) app.on("OPTIONS", ["/events", "/events/:table"], preflight);
    if (settings.pixel) app.get("/events", (c) => getEvent(c.req.raw));
    app.post("/events", (c) => postEvents(c.req.raw));
    app.post("/events/:table", (c) => postRows(c.req.raw, c.req.param("table"), c.env.addressOf));
    app.get("/shishi.js", (c) => deps.page.snippet(c.req.raw));
  };
  const serveAdmin = () => {
    read("/metrics", async () => reply.metricsText(await deps.metrics()));
    read(
      "/api/status",
      async (request) =>
        request.headers.has(FOLDER_HEADER)
          ? (await (reads ??= loadReads())).status(request)
          : reply.value(await control.status()),
    );
    read("/api/metrics", async (request) => (await (reads ??= loadReads())).metrics(request));
    read("/api/events", async (request) => (await (reads ??= loadReads())).events(request));
    read("/api/dead", async (request) => (await (reads ??= loadReads())).dead(request));
    read(
      "/api/dead/tables",
      async (request) => (await (reads ??= loadReads())).deadTables(request),
    );
    read(
      "/api/dead/letters",
      async (request) => (await (reads ??= loadReads())).deadLines(request),
    );
    read("/openapi.json", async (request) => (await (reads ??= loadReads())).description(request));
    app.post(
      "/api/dead/replay",
      async (c) =>
        refusesAll() ?? checkToken(c.req.raw) ??
          (await (reads ??= loadReads())).replay(c.req.raw),
    );
    app.delete(
      "/api/dead",
      async (c) => checkToken(c.req.raw) ?? (await (reads ??= loadReads())).purge(c.req.raw),
    );
    app.post(
      "/api/spool/set-aside",
      async (c) =>
        checkToken(c.req.raw) ?? await (await (reads ??= loadReads())).setAside(c.req.raw),
    );
    app.get("/", (c) => deps.page.document(c.req.raw));
    read("/api/live", async (request) => {
      const live = await deps.page.live();
      // What follows would never be read.
      if (request.method === "HEAD") await live.body?.cancel();
      return live;
    });
  };
  app.get("/healthz", () => reply.alive());
  app.get("/readyz", async () => reply.readiness(await control.unready()));
  if (part !== "admin") serveEvents();
  if (part !== "events") serveAdmin();
  app.notFound((c) => unknown(c, app.routes, part));
  // It is answered below, where the client's address is known.
  app.onError((error) => {
    throw error;
  });

  const answer = (request: Request, addressOf: AddressOf): Response | Promise<Response> => {
    // A small request costs the router about a fifth of what it costs at all.
    if (request.method === "POST" && part !== "admin") {
      const table = plainTable(request.url);
      if (table !== null) {
        const refused = checkClient(request, addressOf, true);
        if (refused !== null) return refused;
        return table === "" ? postEvents(request) : postRows(request, table, addressOf);
      }
    }
    const path = pathOf(request);
    const refused = FOR_ALL.includes(path)
      ? null
      : checkClient(request, addressOf, isPosting(path));
    return refused ?? app.fetch(request, { addressOf });
  };
  /** A refusal waits until its client can read it. */
  const done = (
    answered: Response,
    request: Request,
    addressOf: AddressOf,
    subject: string | null,
  ) => {
    const response = finish.done(answered, request, addressOf, subject);
    if (response.status < 400 || !stillSends(request)) return response;
    return throwAwayBody(request, deps.clock, settings.bodyTimeoutMs).then(() => response);
  };
  const failed = (
    error: unknown,
    request: Request,
    addressOf: AddressOf,
    subject: string | null,
  ) => done(finish.failed(error, request, addressOf, subject), request, addressOf, subject);
  return {
    fetch(request, addressOf, subject = null) {
      try {
        const answered = answer(request, addressOf);
        if (answered instanceof Response) return done(answered, request, addressOf, subject);
        return answered.then(
          (response) => done(response, request, addressOf, subject),
          (error) => failed(error, request, addressOf, subject),
        );
      } catch (error) {
        return failed(error, request, addressOf, subject);
      }
    },
    routes: app.routes.filter(({ method }) => method !== METHOD_NAME_ALL),
  };
}

/** A known path with a method that it does not take, or nothing at all. */
function unknown(c: Context, routes: App["routes"], part: Part): Response {
  const { path, method } = c.req;
  const taken = routes.filter((route) => isOn(route, path)).map(({ method }) => method);
  return taken.length === 0
    ? reply.notFound(
      `${excerpt(path)} does not exist${part === "admin" ? " here" : ""}; events go to ${
        part === "admin" ? "the addresses of listen" : "POST /events"
      }`,
    )
    : reply.wrongMethod(method, excerpt(path), taken.join(", ").replace("GET", "GET, HEAD"));
}

function isOn({ method, path: pattern }: App["routes"][number], path: string): boolean {
  return method !== METHOD_NAME_ALL &&
    new RegExp(`^${pattern.replace(/:\w+/, "[^/]+").replaceAll(".", "\\.")}$`).test(path);
}

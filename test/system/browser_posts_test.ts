/**
 * A browser as client: real pages in a real Chromium, on another origin than the collector's, post to
 * it, and what they post while they close is in ClickHouse. Pages that nobody allowed get nowhere: not
 * by asking first, not without asking, and not by giving their own name to the collector's address.
 * Runs once: http_answers_test.ts has what a browser is answered on both runtimes.
 */
import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { startBrowser } from "../kit/browser.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { eventually } from "../kit/wait.ts";
import { metrics, sum } from "./books.ts";

/** A name of somebody else's who lets it point to this host. */
const REBOUND = "rebound.example";
/** What a browser's `navigator` has, and the runtimes' own has not. */
interface Beacons {
  sendBeacon(url: string, body: string): boolean;
}
const TOKEN = "0123456789abcdef";

let clickhouse: ClickHouse;
let browser: Browser;
/** One for all pages, as a person's is: it lives on when a page closes. */
let profile: BrowserContext;
/** Serves an empty page under any path, and under two names: one is allowed, one is not. */
let site: Server;
let shop = "";
let stranger = "";
let shishi: Shishi;
let withToken: Shishi;

before(async () => {
  site = createServer((_request, response) => {
    response.setHeader("content-type", "text/html");
    response.end("<!doctype html><title>a page</title>");
  });
  await new Promise<void>((resolve) => site.listen(0, "127.0.0.1", () => resolve()));
  const { port } = site.address() as AddressInfo;
  [shop, stranger] = [`http://127.0.0.1:${port}`, `http://localhost:${port}`];
  [clickhouse, browser] = await Promise.all([
    startClickHouse(),
    startBrowser(`--host-resolver-rules=MAP ${REBOUND} 127.0.0.1`),
  ]);
  profile = await browser.newContext();
  const args = [
    "--clickhouse-url",
    clickhouse.url,
    "--flush-interval=50ms",
    "--cors-origins",
    shop,
  ];
  [shishi, withToken] = await Promise.all([
    startShishi({ args }),
    startShishi({ args, env: { SHISHI_AUTH_TOKENS: TOKEN } }),
  ]);
});
after(async () => {
  await Promise.all([browser?.close(), shishi?.close(), withToken?.close()]);
  await clickhouse?.close();
  site?.closeAllConnections();
  await new Promise((resolve) => site.close(resolve));
});

async function pageOn(url: string): Promise<Page> {
  const page = await profile.newPage();
  await page.goto(url);
  return page;
}

/** `fetch` in the page: what its script sees, or the name of what it throws. */
function fetchIn(page: Page, url: string, init: Record<string, unknown> = {}) {
  return page.evaluate(async ([url, init]) => {
    try {
      const answer = await fetch(url as string, init as RequestInit);
      return {
        type: answer.type,
        status: answer.status,
        headers: Object.fromEntries(answer.headers) as Record<string, string>,
        text: await answer.text(),
      };
    } catch (error) {
      return {
        type: (error as Error).name,
        status: 0,
        headers: {} as Record<string, string>,
        text: "",
      };
    }
  }, [url, init] as const);
}

const event = (user: string) => JSON.stringify({ eventType: "view", userId: user });
const json = (user: string, headers: Record<string, string> = {}) => ({
  method: "POST",
  headers: { "content-type": "application/json", ...headers },
  body: event(user),
});

async function stored(...users: readonly string[]): Promise<void> {
  await eventually(async () => {
    const there = await clickhouse.query("SELECT user_id FROM analytics_events");
    for (const user of users) assert.ok(there.split("\n").includes(user), `${user} in ${there}`);
  }, { withinMs: 20_000 });
}

test("a page of an allowed origin asks first, posts, and reads the answer", async () => {
  const page = await pageOn(shop);
  const answer = await fetchIn(
    page,
    `${shishi.url}/events`,
    json("asked", { prefer: "handling=strict", "x-request-id": "page-1" }),
  );
  assert.deepEqual([answer.type, answer.status], ["cors", 202], answer.text);
  assert.equal(JSON.parse(answer.text).accepted, 1);
  assert.equal(answer.headers["preference-applied"], "handling=strict");
  assert.equal(answer.headers["x-request-id"], "page-1");
  const wrong = await fetchIn(page, `${shishi.url}/events`, { ...json(""), body: "" });
  assert.equal(wrong.status, 400);
  assert.match(JSON.parse(wrong.text).error, /the body is empty/);
  await stored("asked");
  await page.close();
});

test("a page posts with a token; without one it can read what is wrong", async () => {
  const page = await pageOn(shop);
  const url = `${withToken.url}/events`;
  assert.equal((await fetchIn(page, url, json("no token"))).status, 401);
  const authorization = `Bearer ${TOKEN}`;
  assert.equal((await fetchIn(page, url, json("token", { authorization }))).status, 202);
  await stored("token");
  await page.close();
});

for (const leave of ["navigates away", "is closed"] as const) {
  test(`what a page sends while it ${leave} arrives`, async () => {
    const page = await pageOn(shop);
    const user = (how: string) => `${how}, ${leave}`;
    const users = ["beacon", "keepalive", "keepalive, asked first"].map(user);
    await page.evaluate(([url, events]) => {
      addEventListener("pagehide", () => {
        (navigator as unknown as Beacons).sendBeacon(url as string, events[0]!);
        for (const [n, type] of [[1, "text/plain"], [2, "application/json"]] as const) {
          const headers = { "content-type": type };
          void fetch(url as string, { method: "POST", keepalive: true, headers, body: events[n]! });
        }
      });
    }, [`${shishi.url}/events`, users.map(event)] as const);
    if (leave === "is closed") await page.close({ runBeforeUnload: true });
    else await page.goto("about:blank");
    await stored(...users);
    if (leave !== "is closed") await page.close();
  });
}

test("a page of a foreign origin is refused, asked first or not, and nothing is stored", async () => {
  const before = await refusals();
  const page = await pageOn(stranger);
  const url = `${shishi.url}/events`;
  assert.equal((await fetchIn(page, url, json("stranger"))).type, "TypeError");
  const blind = { method: "POST", mode: "no-cors", body: event("stranger") };
  assert.equal((await fetchIn(page, url, blind)).type, "opaque");
  await page.evaluate(
    ([url, body]) => (navigator as unknown as Beacons).sendBeacon(url, body),
    [
      url,
      event("stranger"),
    ] as const,
  );
  assert.equal((await fetchIn(page, `${shishi.url}/api/status`)).type, "TypeError");
  // The preflight, the two posts without one, and the read.
  await eventually(async () => assert.equal(await refusals() - before, 4), {
    withinMs: 10_000,
  });
  await page.close();
});

test("an allowed page may post, and not read what is stored or counted", async () => {
  const page = await pageOn(shop);
  const answer = await fetchIn(page, `${shishi.url}/api/status`);
  assert.equal(answer.status, 403, answer.text);
  await page.close();
});

test("a page under its own name for this host's address gets nothing", async () => {
  const { port } = new URL(shishi.url);
  const page = await pageOn(`http://${REBOUND}:${port}/healthz`);
  for (const path of ["/api/status", "/metrics"]) {
    const answer = await fetchIn(page, path);
    assert.deepEqual([answer.type, answer.status], ["basic", 403]);
    assert.match(JSON.parse(answer.text).error, /^Host: expected localhost/);
  }
  assert.equal((await fetchIn(page, "/events", json("rebound"))).status, 403);
  await page.close();
});

test("the collector's own pages may do all, and no stranger's row was stored", async () => {
  const page = await pageOn(`${shishi.url}/healthz`);
  assert.equal((await fetchIn(page, "/events", json("own"))).status, 202);
  assert.equal((await fetchIn(page, "/api/status")).status, 200);
  await stored("own");
  const there = await clickhouse.query("SELECT user_id FROM analytics_events ORDER BY user_id");
  assert.doesNotMatch(there, /stranger|rebound|no token/);
  await page.close();
});

async function refusals(): Promise<number> {
  return sum(await metrics(shishi), "shishi_http_requests_total", 'status="403"');
}

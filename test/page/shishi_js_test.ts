/**
 * `GET /shishi.js` in pages of another site, in a real Chromium: what they tell is in a real ClickHouse,
 * each event once, whatever happens to page, network and collector in between; and nothing leaves a page
 * against its visitor's will.
 * Runs once: what is tested is a script in a browser.
 */
import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import type { Browser, BrowserContext, Page, Route } from "playwright-core";
import { startBrowser } from "../kit/browser.ts";
import { freePort } from "../kit/free_port.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";

/** Stands in pages before the script has come. */
const STUB = "window.shishi=window.shishi||function(){(shishi.q=shishi.q||[]).push(arguments)}";
const WITHIN = { withinMs: 20_000 };
type Told = [what: string | Record<string, unknown>, properties?: Record<string, unknown>];

let clickhouse: ClickHouse;
let browser: Browser;
let site: Server;
/** Of pages whose attributes stand in the query; another site than the collector's. */
let shop = "";
let listen = "";
let dataDir = "";
let shishi: Shishi;

function startCollector(): Promise<Shishi> {
  const args = ["--clickhouse-url", clickhouse.url, "--flush-interval=50ms", "--data-dir", dataDir];
  return startShishi({ args: [...args, "--listen", listen, "--cors-origins", shop] });
}

before(async () => {
  site = createServer(({ url = "" }, response) => {
    const given = new URL(url, "http://site").searchParams.get("script") ?? "";
    response.setHeader("content-type", "text/html");
    response.end(
      `<!doctype html><title>a page</title><link rel="icon" href="data:,"><script>${STUB}</script>` +
        `<script async src="http://${listen}/shishi.js" ${given}></script>`,
    );
  });
  await new Promise<void>((resolve) => site.listen(0, "127.0.0.1", () => resolve()));
  shop = `http://localhost:${(site.address() as AddressInfo).port}`;
  listen = `127.0.0.1:${await freePort()}`;
  dataDir = tempDir("snippet");
  [clickhouse, browser] = await Promise.all([startClickHouse(), startBrowser()]);
  shishi = await startCollector();
});
after(async () => {
  await Promise.all([browser?.close(), shishi?.close()]);
  await clickhouse?.close();
  removeDir(dataDir);
  site?.closeAllConnections();
  await new Promise((resolve) => site.close(resolve));
});

/** A visitor with a profile of his own. */
async function visitor(run: (context: BrowserContext) => Promise<void>): Promise<void> {
  const context = await browser.newContext();
  try {
    await run(context);
  } finally {
    await context.close();
  }
}

/** @param script attributes of its element. */
async function open(context: BrowserContext, script = "", path = "/"): Promise<Page> {
  const page = await context.newPage();
  page.setDefaultTimeout(WITHIN.withinMs);
  await page.goto(`${shop}${path}?script=${encodeURIComponent(script)}`);
  return page;
}

/** Calls of `shishi` in the page, one after the other. */
function tell(page: Page, ...calls: readonly Told[]): Promise<void> {
  return page.evaluate((calls) => {
    const { shishi } = globalThis as unknown as { shishi: (...call: unknown[]) => void };
    for (const call of calls) shishi(...call);
  }, calls);
}

const clicks = (from: number, to: number): Told[] =>
  Array.from({ length: to - from }, (_, at) => ["click", { n: from + at }]);
const numbers = (from: number, to: number) => clicks(from, to).map(([, of]) => String(of!["n"]));

/** What is stored of a user, as `n` of each event, sorted; each as often as it is there. */
async function stored(user: string): Promise<string[]> {
  const rows = await clickhouse.query(
    `SELECT properties['n'] AS n FROM analytics_events WHERE user_id = '${user}' ORDER BY toUInt32OrZero(n)`,
  );
  return rows.split("\n").filter(Boolean);
}
const are = (user: string, expected: readonly string[]) =>
  eventually(async () => assert.deepEqual(await stored(user), expected), WITHIN);

/** Names in the storage of the page's site. */
const kept = (page: Page) => page.evaluate(() => Object.keys(localStorage));
/** Once nothing waits any more, nothing can come twice. */
const isEmpty = (page: Page) =>
  eventually(async () => assert.deepEqual(await kept(page), []), WITHIN);

const POSTS = /\/events\?/;

/** Where pages of this visitor post to from now on, one after the other. */
function postsOf(context: BrowserContext): string[] {
  const posts: string[] = [];
  context.on("request", (request) => {
    if (POSTS.test(request.url())) posts.push(`${request.method()} ${request.url()}`);
  });
  return posts;
}

test("what a page tells before and after the script has come is stored, in few requests", async () => {
  await visitor(async (context) => {
    const posts = postsOf(context);
    let letScriptGo = () => {};
    const held = new Promise<void>((resolve) => letScriptGo = resolve);
    await context.route("**/shishi.js", async (route) => {
      await held;
      await route.continue();
    });
    const page = await context.newPage();
    await page.goto(`${shop}/?script=`, { waitUntil: "commit" });
    await page.waitForFunction(() => "shishi" in globalThis);
    await tell(page, [{ user: "early" }], ...clicks(0, 3));
    letScriptGo();
    await page.waitForFunction(() =>
      (globalThis as unknown as { shishi: { ready?: boolean } }).shishi.ready
    );
    await tell(page, ...clicks(3, 6), ["odd", { n: 6, nested: { a: [1] }, none: undefined }]);
    await are("early", numbers(0, 7));
    await isEmpty(page);
    assert.ok(posts.length <= 2, posts.join());
    assert.match(posts[0]!, /^POST http:.*\/events\?key=[0-9a-f-]{36}$/);
    const nested = "SELECT properties['nested'] FROM analytics_events WHERE event_type = 'odd'";
    assert.equal((await clickhouse.query(nested)).trim(), '{"a":[1]}');
  });
});

for (
  const [leave, confirm] of [
    ["navigates away", ""],
    ["navigates away", "data-confirm"],
    ["is closed", ""],
    ["is closed", "data-confirm"],
  ] as const
) {
  test(`what a page tells in its last moment arrives when it ${leave}, and the next page adds nothing ${confirm}`, async () => {
    await visitor(async (context) => {
      const user = `last ${leave} ${confirm}`;
      const page = await open(context, `data-user="${user}" ${confirm}`);
      await tell(page, ["click", { n: 0 }]);
      await page.evaluate(() =>
        addEventListener("pagehide", () => {
          (globalThis as unknown as { shishi: (...call: unknown[]) => void }).shishi("bye", {
            n: 1,
          });
        }, { capture: true })
      );
      if (leave === "is closed") await page.close({ runBeforeUnload: true });
      else await page.goto("about:blank");
      await are(user, numbers(0, 2));
      const next = await open(context, confirm);
      await isEmpty(next);
      // As the page itself has it: the browser may tell of the last page's request after that page has gone.
      const posts = () =>
        next.evaluate(
          (events) =>
            performance.getEntriesByType("resource").filter(({ name }) => name.includes(events))
              .length,
          "/events?key=",
        );
      // Only with one collector may it be sent again: others do not know its key.
      if (confirm === "") assert.equal(await posts(), 0);
      else await eventually(async () => assert.ok(await posts() > 0), WITHIN);
      assert.deepEqual(await stored(user), numbers(0, 2));
    });
  });
}

test("an answer that is lost: the same batch goes again under its key, and is stored once", async () => {
  await visitor(async (context) => {
    let lost = 0;
    await context.route(POSTS, async (route: Route) => {
      if (lost++ > 0) return await route.continue();
      assert.equal((await route.fetch()).status(), 202);
      await route.abort();
    });
    const page = await open(context, 'data-user="lost"');
    await tell(page, ...clicks(0, 5));
    await eventually(() => assert.equal(lost, 2), WITHIN);
    await isEmpty(page);
    await are("lost", numbers(0, 5));
  });
});

test("a collector that is full is asked again when it says; what it refuses is given up", async () => {
  await visitor(async (context) => {
    const asked: number[] = [];
    await context.route(POSTS, async (route: Route) => {
      asked.push(performance.now());
      if (asked.length > 1) return await route.continue();
      const headers = {
        "access-control-allow-origin": shop,
        "access-control-expose-headers": "retry-after",
        "retry-after": "3", // longer than it would wait by itself
      };
      await route.fulfill({ status: 429, headers, body: "{}" });
    });
    const page = await open(context, 'data-user="full"');
    await tell(page, ...clicks(0, 2));
    await are("full", numbers(0, 2));
    assert.ok(asked[1]! - asked[0]! >= 2_900, `after ${asked[1]! - asked[0]!} ms`);
    await tell(page, ["", { n: 2 }]);
    await isEmpty(page);
    await tell(page, ["click", { n: 3 }]);
    await are("full", ["0", "1", "3"]);
  });
});

for (const confirm of ["", "data-confirm"]) {
  test(`offline: two tabs, a reload and a closed tab in between; back again, each event is there once ${confirm}`, async () => {
    await visitor(async (context) => {
      const user = `away ${confirm}`;
      const script = `data-user="${user}" ${confirm}`;
      const [one, two] = [await open(context, script), await open(context, script)];
      const failed = [one, two].map((page) => page.waitForEvent("requestfailed"));
      await shishi.kill();
      await tell(one, ...clicks(0, 25));
      await tell(two, ...clicks(25, 50));
      // A page that has heard of no trouble takes its last words for heard.
      if (confirm === "") await Promise.all(failed);
      else for (const unheard of failed) unheard.catch(() => {});
      // The script itself is in the browser's cache.
      await one.reload();
      await tell(one, ...clicks(50, 55));
      const closed = two.waitForEvent("close");
      await two.close({ runBeforeUnload: true });
      await closed;
      await context.setOffline(true);
      await tell(one, ...clicks(55, 60));
      assert.ok(await one.reload().then(() => false, () => true), "nothing can be loaded");
      shishi = await startCollector();
      await context.setOffline(false);
      const back = await Promise.all([open(context, confirm), open(context, confirm)]);
      await are(user, numbers(0, 60));
      for (const page of back) await isEmpty(page);
      assert.deepEqual(await stored(user), numbers(0, 60));
    });
  });
}

test("a page that stays while the network goes sends as soon as it is back", async () => {
  await visitor(async (context) => {
    const page = await open(context, 'data-user="stayed"');
    await context.setOffline(true);
    await tell(page, ...clicks(0, 30));
    await eventually(async () => assert.ok((await kept(page)).length > 0), WITHIN);
    await context.setOffline(false);
    await are("stayed", numbers(0, 30));
    await isEmpty(page);
  });
});

test("what may have come longer ago than keys are remembered is given up, what surely has not is kept", async () => {
  await visitor(async (context) => {
    const page = await open(context, 'data-user="old" data-confirm');
    await context.setOffline(true);
    await tell(page, ...clicks(0, 20), ...clicks(20, 40));
    const names = await eventually(async () => {
      const names = await kept(page);
      assert.equal(names.length, 2);
      return names.sort();
    }, WITHIN);
    await page.evaluate(([name]) => {
      const [, body] = /^\d+ ([^]*)$/.exec(localStorage.getItem(name!)!)!;
      localStorage.setItem(name!, `${Date.now() - 3_600_000} ${body}`);
    }, names);
    await context.setOffline(false);
    await isEmpty(page);
    await are("old", numbers(20, 40));
  });
});

test("what waits is bounded: the oldest goes", async () => {
  await visitor(async (context) => {
    const page = await open(context, 'data-user="many"');
    await context.setOffline(true);
    await tell(page, ...clicks(0, 3_000), ["click", { n: "x".repeat(50_000) }]);
    assert.equal((await kept(page)).length, 50);
    await context.setOffline(false);
    await are("many", numbers(2_000, 3_000));
    await isEmpty(page);
  });
});

for (
  const [signal, script] of [
    ["globalPrivacyControl", "navigator.globalPrivacyControl = true"],
    ["doNotTrack", "Object.defineProperty(navigator, 'doNotTrack', { value: '1' })"],
    ["data-consent", ""],
  ] as const
) {
  test(`${signal}: nothing is sent or stored before the visitor agrees, nor after a change of mind`, async () => {
    await visitor(async (context) => {
      const posts = postsOf(context);
      if (script !== "") await context.addInitScript(script);
      const attributes = `data-user="${signal}" ${signal === "data-consent" ? signal : ""}`;
      const page = await open(context, attributes);
      await tell(page, ...clicks(0, 30));
      await page.reload();
      await tell(page, ...clicks(30, 60));
      // Hiding is when a page would send at once.
      await page.evaluate(() => {
        dispatchEvent(new Event("pagehide"));
        dispatchEvent(new Event("pageshow"));
      });
      assert.deepEqual([posts, await kept(page)], [[], []]);
      await tell(page, [{ consent: true }]);
      await are(signal, numbers(30, 60));
      await isEmpty(page);
      await context.setOffline(true);
      await tell(page, ...clicks(60, 80));
      assert.equal((await kept(page)).length, 1);
      await tell(page, [{ consent: false }], ...clicks(80, 120));
      assert.deepEqual(await kept(page), []);
      await context.setOffline(false);
      await page.reload();
      // What is told first is sent first: had anything been left, it would be there with this.
      await tell(page, [{ consent: true }], ...clicks(120, 121));
      await are(signal, [...numbers(30, 60), "120"]);
      await isEmpty(page);
      assert.deepEqual(await stored(signal), [...numbers(30, 60), "120"]);
    });
  });
}

test("data-pages: every page of an application without reloads is seen once, by its path alone", async () => {
  await visitor(async (context) => {
    const page = await open(context, 'data-user="router" data-pages', "/start");
    await page.evaluate(() => {
      history.pushState(null, "", "/cart?secret=1");
      history.replaceState({ scroll: 1 }, "", "/cart?secret=2#top");
      history.pushState(null, "", "/paid");
      history.back();
    });
    const seen = () =>
      clickhouse.query(
        "SELECT properties['path'], properties['referrer'] FROM analytics_events " +
          "WHERE user_id = 'router' AND event_type = 'page_view' ORDER BY timestamp, properties['path'] = '/cart'",
      );
    await eventually(
      async () => assert.equal((await seen()).split("\n").filter(Boolean).length, 4),
      WITHIN,
    );
    const paths = (await seen()).trim().split("\n").map((line) => line.split("\t"));
    assert.deepEqual(paths.map(([path]) => path).sort(), ["/cart", "/cart", "/paid", "/start"]);
    assert.deepEqual(paths.find(([path]) => path === "/paid"), ["/paid", "/cart"]);
    assert.doesNotMatch(
      await clickhouse.query("SELECT toString(properties) FROM analytics_events"),
      /secret/,
    );
  });
});

test("data-pages=hash: the part behind # is a page as well", async () => {
  await visitor(async (context) => {
    const page = await open(context, 'data-user="hash" data-pages="hash"', "/app");
    await page.evaluate(() => location.hash = "#/cart");
    const seen =
      "SELECT properties['path'] FROM analytics_events WHERE user_id = 'hash' ORDER BY 1";
    await eventually(async () => {
      assert.equal((await clickhouse.query(seen)).trim(), "/app\n/app#/cart");
    }, WITHIN);
  });
});

test("where the browser stores nothing for the page, what it tells is sent all the same", async () => {
  await visitor(async (context) => {
    await context.addInitScript(
      "Object.defineProperty(window, 'localStorage', { get() { throw new Error('no') } })",
    );
    const page = await open(context, 'data-user="bare"');
    await tell(page, ...clicks(0, 25));
    await are("bare", numbers(0, 25));
    // Not a word of what is wrong with it may reach the page.
    const problems: string[] = [];
    page.on("pageerror", (error) => problems.push(String(error)));
    await page.evaluate(() => {
      const { shishi } = globalThis as unknown as { shishi: (...call: unknown[]) => void };
      const circle: Record<string, unknown> = {};
      circle["self"] = circle;
      shishi("circle", circle);
      shishi();
      shishi(null);
    });
    assert.deepEqual(problems, []);
  });
});

test("a collector of its own, with a token that may only append: fetch and beacon carry it", async () => {
  const other = await startShishi({
    args: ["--clickhouse-url", clickhouse.url, "--flush-interval=50ms", "--cors-origins", shop],
    env: { SHISHI_WRITE_TOKENS: "web:in-a-page+=events;100/h", SHISHI_AUTH_TOKENS: "for-all" },
  });
  try {
    await visitor(async (context) => {
      const script = `data-user="token" data-url="${other.url}/events" data-token="in-a-page+"`;
      const page = await open(context, script);
      await tell(page, ...clicks(0, 2));
      await are("token", numbers(0, 2));
      await tell(page, ["click", { n: 2 }]);
      await page.goto("about:blank");
      await are("token", numbers(0, 3));
      assert.doesNotMatch(other.stderr(), /in-a-page/);
    });
  } finally {
    await other.close();
  }
});

test("no event was stored twice, of no page", async () => {
  const [all, different] =
    (await clickhouse.query("SELECT count(), uniqExact(id) FROM analytics_events"))
      .trim().split("\t").map(Number);
  assert.ok(all! > 1_000);
  assert.equal(all, different);
});

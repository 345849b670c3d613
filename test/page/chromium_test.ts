/**
 * The page as people see and use it: in a real Chromium, on a real collector and a real ClickHouse.
 * Runs once: what is tested is the page in a browser.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import type { Page } from "playwright-core";
import { freePort } from "../kit/free_port.ts";
import { type ClickHouse, startClickHouse } from "../kit/servers.ts";
import { type Shishi, startShishi } from "../kit/shishi.ts";
import { sees, startTestBrowser, type TestBrowser } from "./browser.ts";

let clickhouse: ClickHouse;
let shishi: Shishi;
let browser: TestBrowser;
before(async () => {
  clickhouse = await startClickHouse();
  await clickhouse.query("CREATE TABLE narrow (n UInt8) ENGINE = MergeTree ORDER BY tuple()");
  const args = ["--clickhouse-url", clickhouse.url, "--flush-interval", "200ms"];
  [shishi, browser] = await Promise.all([
    // What the door finds by itself never becomes a letter.
    startShishi({ args: [...args, "--tables", "narrow,log_*", "--type-check=off"] }),
    startTestBrowser(),
  ]);
});
after(async () => {
  await browser?.close();
  await shishi?.close();
  await clickhouse?.close();
});

const AWAY = /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET/;

/** Pixels of the first chart in the colour of a line. */
function drawn(page: Page, name: string): Promise<number> {
  return page.evaluate((name) => {
    const canvas = document.querySelector<HTMLCanvasElement>("#c-rows canvas")!;
    const probe = document.createElement("canvas").getContext("2d")!;
    probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
    probe.fillRect(0, 0, 1, 1);
    const [red, green, blue] = probe.getImageData(0, 0, 1, 1).data;
    const { data } = canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let at = 0; at < data.length; at += 4) {
      if (data[at] === red && data[at + 1] === green && data[at + 2] === blue) count++;
    }
    return count;
  }, name);
}

/** Waits until the legend of the first chart tells of rows. */
async function moves(page: Page): Promise<void> {
  await page.waitForFunction(() => {
    const legend = document.querySelector("#c-rows-legend .value")?.textContent ?? "";
    return Number(legend.replaceAll(",", "")) > 0;
  });
}

test("figures and charts move when events arrive, and nothing on the page jumps", async () => {
  const { page, close } = await browser.open(shishi.url, {}, /willReadFrequently/);
  await page.evaluate(() => {
    Object.assign(globalThis, { jumped: 0 });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        (globalThis as unknown as { jumped: number }).jumped +=
          (entry as unknown as { value: number }).value;
      }
    }).observe({ type: "layout-shift", buffered: true });
  });
  await sees(page, "state-name", /^running$/);
  const before = await drawn(page, "--bamboo");
  const types = Array.from({ length: 30 }, (_, n) => `type${n}`);
  await shishi.post(types.flatMap((eventType) => Array(10).fill({ eventType })));
  await sees(page, "b-stored", /^300$/);
  await moves(page);
  await page.waitForFunction(() => document.querySelectorAll("#types-body tr").length === 20);
  assert.ok(await drawn(page, "--bamboo") > before + 20, "no curve was drawn");
  await sees(page, "types-more", /^and 10 more$/);
  await sees(page, "tables-body", /analytics_events/);
  await sees(page, "balance", /The books balance/);
  await page.reload();
  await sees(page, "state-name", /^running$/);
  assert.ok(await drawn(page, "--bamboo") > before + 20, "a reload has forgotten the past");
  const jumped = await page.evaluate(() => (globalThis as unknown as { jumped?: number }).jumped);
  assert.ok((jumped ?? 0) < 0.01, `layout shifts of ${jumped}`);
  await close();
});

test("the playground: sent with the keyboard, answered, and there as ClickHouse has it", async () => {
  const { page, close } = await browser.open(shishi.url, {}, /400 \(Bad Request\)/);
  await sees(page, "state-name", /^running$/);
  await page.locator("#event").fill('{"eventType":"garden","properties":{"stone":1.50}}');
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await sees(page, "answer-status", /^202 Accepted after /);
  await sees(page, "answer", /"accepted":1/);
  await sees(page, "row-status", /^In ClickHouse after /);
  await sees(page, "row", /garden[^]*"stone":"1.50"/);
  const { id } = JSON.parse(await page.locator("#event").inputValue());
  const count = `SELECT count() FROM analytics_events WHERE id = '${id}'`;
  assert.equal(await clickhouse.query(count), "1");
  await sees(page, "curl", new RegExp(`curl -d '\\{\\s*"id": "${id}"[^]*' ${shishi.url}/events`));

  await page.locator("#event").fill('{"eventType":5}');
  await page.locator("#playground-form button[type=submit]").click();
  await sees(page, "answer", /eventType: expected a string, got 5/);

  await page.locator("#target").selectOption("narrow");
  await page.locator("#event").fill('{"n":7}');
  await page.locator("#playground-form button[type=submit]").click();
  await sees(page, "row-status", /^ClickHouse has it\.$/);
  assert.equal(await clickhouse.query("SELECT count() FROM narrow WHERE n = 7"), "1");
  await close();
});

test("a dead letter: its reason and row, and after the repair it is sent again by its button", async () => {
  const { page, close } = await browser.open(shishi.url);
  await shishi.post('{"n":1000000}\n{"n":"many"}', { path: "/events/narrow" });
  await sees(page, "letters-total", /^1 dead letter\.$/);
  await sees(page, "letters-list", /narrow[^]*"many"/);
  await sees(page, "problems-list", /ClickHouse refused a row of narrow for good/);
  await clickhouse.query("ALTER TABLE narrow MODIFY COLUMN n String");
  await page.getByRole("button", { name: "Send again: this row of narrow" }).click();
  await sees(page, "letters-status", /^1 row is in ClickHouse\.$/);
  await sees(page, "letters-total", /^None/);
  assert.equal(await clickhouse.query("SELECT count() FROM narrow WHERE n = 'many'"), "1");
  await close();
});

test("both colour schemes, a phone, and axe finds nothing", async () => {
  const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  const { page, close } = await browser.open(
    shishi.url,
    { colorScheme: "light" },
    /willReadFrequently/,
  );
  const findsNothing = async (where: string) => {
    const violations = await page.evaluate(async () => {
      // deno-lint-ignore no-explicit-any
      const { violations } = await (globalThis as any).axe.run();
      // deno-lint-ignore no-explicit-any
      return violations.map((one: any) => `${one.id}: ${one.nodes[0].html}`);
    });
    assert.deepEqual(violations, [], where);
  };
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await sees(page, "state-name", /^running$/);
  await sees(page, "letters-total", /\.$/);
  await page.evaluate(axe);
  await findsNothing("light, 1200 px");
  const light = await paper();
  const curve = await drawn(page, "--bamboo");
  assert.ok(curve > 0);

  await page.emulateMedia({ colorScheme: "dark" });
  await page.setViewportSize({ width: 360, height: 740 });
  assert.notEqual(await paper(), light);
  await page.waitForFunction(() => document.querySelector("#c-rows canvas")!.clientWidth < 360);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(wide <= 360, `${wide} px wide on 360`);
  assert.ok(await drawn(page, "--bamboo") > 0, "the curve has kept its colour of the day");
  await findsNothing("dark, 360 px");
  await close();
});

test("by keyboard: past the head, the time shown, the values under the cursor", async () => {
  const { page, close } = await browser.open(shishi.url);
  await sees(page, "state-name", /^running$/);
  await page.keyboard.press("Tab");
  assert.equal(
    await page.evaluate(() => document.activeElement?.textContent),
    "Skip to the figures",
  );
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.locator("input[name=span]:checked").inputValue(), "900");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "c-rows");
  await page.keyboard.press("ArrowLeft");
  await sees(page, "c-rows-legend", /\d\d:\d\d:\d\d/);
  await page.keyboard.press("Escape");
  await page.waitForFunction(() =>
    document.querySelector("#c-rows-legend .at")?.textContent === ""
  );
  await close();
});

test("ClickHouse is killed: degraded, with the reason; back: running", async () => {
  const { page, close } = await browser.open(shishi.url);
  await sees(page, "state-name", /^running$/);
  await clickhouse.kill();
  await shishi.post({ eventType: "kept" });
  await sees(page, "state-name", /^degraded$/);
  await sees(page, "state-why", /clickhouse: /);
  await sees(page, "problems-list", /ClickHouse did not take 1 row|ClickHouse does not answer/);
  await sees(page, "f-held", /^1$/);
  await clickhouse.start();
  await sees(page, "state-name", /^running$/);
  await sees(page, "f-held", /^0$/);
  await sees(page, "state-why", /^events are taken and flow$/);
  await close();
});

test("with a token: asked for, told when it is wrong, kept in this tab and in no address", async () => {
  const args = ["--clickhouse-url", clickhouse.url, "--auth-tokens", "bamboo"];
  const locked = await startShishi({ args });
  try {
    const { page, close } = await browser.open(locked.url, {}, /401/);
    const addresses: string[] = [];
    page.on("request", (request) => addresses.push(request.url()));
    for (const token of ["moss", "bamboo"]) {
      await page.locator("#login[open]").waitFor();
      await page.locator("#token").fill(token);
      await page.keyboard.press("Enter");
      if (token === "moss") await sees(page, "login-problem", /does not know this token/);
    }
    await sees(page, "state-name", /^running$/);
    await page.locator("#playground-form button[type=submit]").click();
    await sees(page, "row-status", /^In ClickHouse after /);
    await sees(page, "curl", /Authorization: Bearer \$SHISHI_TOKEN/);
    const links = page.getByRole("navigation").getByRole("link");
    assert.deepEqual(await links.allInnerTexts(), ["readyz"], "the others would be refused");
    assert.ok(addresses.length > 2 && !addresses.some((url) => url.includes("bamboo")));
    assert.equal(await page.evaluate(() => localStorage.length), 0);
    await page.reload();
    await sees(page, "state-name", /^running$/);
    await page.locator("#forget").click();
    await page.locator("#login[open]").waitFor();
    await close();
  } finally {
    await locked.close();
  }
});

test("the collector goes: the page says since when, and goes on by itself when it is back", async () => {
  const port = await freePort();
  const args = ["--clickhouse-url", clickhouse.url, "--listen", `127.0.0.1:${port}`];
  const first = await startShishi({ args });
  let second: Shishi | null = null;
  try {
    const { page, close } = await browser.open(first.url, {}, AWAY);
    await sees(page, "state-name", /^running$/);
    first.signal("SIGTERM");
    await sees(page, "gone", /^The collector has stopped; it is gone since \d\d:\d\d:\d\d\.$/);
    await first.exited;
    second = await startShishi({ args });
    await sees(page, "connection", /^live$/);
    await sees(page, "gone", /^$/);
    await second.kill();
    await sees(page, "gone", /^No word from the collector since \d\d:\d\d:\d\d: /);
    await close();
  } finally {
    await first.close();
    await second?.close();
  }
});

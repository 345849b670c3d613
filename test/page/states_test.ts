/**
 * The page in states that a real collector seldom comes to: in a real Chromium, on one that is made up.
 * Runs once: what is tested is the page in a browser.
 */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { eventually } from "../kit/wait.ts";
import { sees, startTestBrowser, type TestBrowser, WITHIN_MS } from "./browser.ts";
import { type MadeUp, NO_ROWS, startMadeUp } from "./made_up.ts";

let browser: TestBrowser;
let collector: MadeUp;
before(async () => {
  browser = await startTestBrowser();
});
after(() => browser?.close());
beforeEach(() => {
  collector = startMadeUp();
});
afterEach(() => collector.close());

const letterOf = (n: number) => ({
  table: "flights",
  id: `b.${n}`,
  time: "2026-01-31T23:30:00.000Z",
  code: 27,
  message: `refused ${n}`,
  row: `{"n":${n}}`,
  rowLength: 7,
});
const dead = (n: number) => ({ books: { ...NO_ROWS, received: n, dead: n } });

test("dead letters: told in the viewer's zone, sent once, and the keyboard stays where it was", async () => {
  const isSent = (times: number) =>
    eventually(() => assert.equal(sent, times), { withinMs: WITHIN_MS });
  let letters = [{ ...letterOf(1), rowLength: 7000 }, letterOf(2), letterOf(3)];
  let sent = 0;
  const { answers } = collector;
  answers.set("GET /api/dead", () => Response.json({ letters, total: letters.length }));
  let answer = (_: Response) => {};
  answers.set("POST /api/dead/replay", () => {
    sent++;
    return new Promise((resolve) => answer = resolve);
  });
  const { page, close } = await browser.open(collector.url, { timezoneId: "Asia/Tokyo" });
  await collector.tell(dead(3));
  await sees(page, "letters-total", /^3 dead letters\.$/);
  await sees(page, "letters-list", /^\s*2026-02-01 08:30:00[^]*\{"n":1\}7,000 characters in all/);
  const second = page.locator("#letters-list button").nth(1);
  await second.press("Enter");
  await second.press("Enter");
  await sees(page, "letters-status", /^Sending …$/);
  await isSent(1);
  letters = letters.filter(({ id }) => id !== "b.2");
  answer(Response.json({ stored: 1, dead: 0, left: 0, problems: [] }));
  await sees(page, "letters-total", /^2 dead letters\.$/);
  await sees(page, "letters-status", /^1 row is in ClickHouse\.$/);
  const held = () => page.evaluate(() => document.activeElement?.closest("li")?.textContent ?? "");
  assert.match(await held(), /refused 3/);
  letters = [letterOf(4), ...letters];
  await collector.tell(dead(4));
  await sees(page, "letters-list", /refused 4/);
  assert.match(await held(), /refused 3/, "a letter that came has taken the focus");
  letters = [];
  await page.keyboard.press("Enter");
  await isSent(2);
  answer(Response.json({ stored: 1, dead: 0, left: 0, problems: [] }));
  await sees(page, "letters-total", /^None\.$/);
  assert.equal(
    await page.evaluate(() => document.activeElement?.getAttribute("aria-labelledby")),
    "letters-title",
  );
  await close();
});

test("sources: a row each, those that do not read are marked; none: nothing", async () => {
  const { page, close } = await browser.open(collector.url);
  await collector.tell({});
  const isShown = () => page.locator("#sources").isVisible();
  await sees(page, "state-name", /running/);
  assert.equal(await isShown(), false);
  const one = {
    name: "kafka:flights",
    state: "running" as const,
    why: null,
    lag: 1200,
    unacked: 7,
    rows: 345_678,
    repeated: 5,
    dead: 2,
    last_ack_s: 0,
  };
  const away = {
    ...one,
    name: "redis:clicks",
    state: "waiting" as const,
    why: "refused",
    lag: null,
  };
  await collector.tell({ sources: { first: [away, one], more: 3 } });
  await sees(page, "sources-body", /redis:clicks: refusedwaiting[^]*kafka:flightsrunning/);
  assert.equal(await isShown(), true);
  const marks = await page.locator("#sources-body tr").evaluateAll((rows) =>
    rows.map((row) => row.getAttribute("data-mark"))
  );
  assert.deepEqual(marks, ["trouble", ""]);
  await sees(page, "sources-more", /and 3 more/);
  await close();
});

test("dead letters that cannot be looked at, and that somebody else has sent again", async () => {
  const { answers } = collector;
  const refused = () =>
    Response.json({ error: "the disk with the dead letters says EIO" }, { status: 503 });
  answers.set("GET /api/dead", refused);
  const { page, close } = await browser.open(collector.url, {}, /503/);
  await page.clock.install();
  await collector.tell(dead(1));
  await sees(page, "letters-total", /^They cannot be looked at: the disk .* says EIO\.$/);
  answers.set("GET /api/dead", () => Response.json({ letters: [letterOf(1)], total: 1 }));
  await collector.tell(dead(1));
  await sees(page, "letters-total", /^1 dead letter\.$/);
  answers.set("GET /api/dead", () => Response.json({ letters: [], total: 0 }));
  await page.clock.fastForward(21_000);
  await collector.tell(dead(1));
  await sees(page, "letters-total", /^None\.$/);
  await close();
});

test("problems: dated, and one that goes on to be told stays what it is, as where it is selected", async () => {
  const problem = (n: number, times = 1) => ({
    level: "warn",
    text: `Problem ${n}.`,
    times,
    firstMs: Date.UTC(2026, 0, 31, 23, 30),
    lastMs: Date.UTC(2026, 0, 31, 23, 30) + times,
  });
  const { page, close } = await browser.open(collector.url, { timezoneId: "Asia/Tokyo" });
  await collector.tell({}, [problem(2), problem(1)]);
  await sees(page, "problems-list", /^\s*2026-02-01 08:30:00\s*warning\s*Problem 2/);
  await page.evaluate(() => {
    getSelection()!.selectAllChildren(document.querySelector("#problems-list li:last-child p")!);
  });
  await collector.tell({}, [problem(3), problem(2, 5), problem(1)]);
  await sees(page, "problems-list", /Problem 3[^]*Problem 2[^]*5 times since 2026-02-01/);
  assert.equal(await page.evaluate(() => String(getSelection())), "Problem 1.");
  await collector.tell({}, []);
  await sees(page, "problems-list", /^$/);
  await close();
});

test("on an admin port there is no playground: events are taken elsewhere", async () => {
  const shown = async (takesEvents: boolean) => {
    collector.introduce({ takesEvents });
    const { page, close } = await browser.open(collector.url);
    await collector.tell();
    await sees(page, "connection", /^live$/);
    const visible = await page.locator("#playground-title").isVisible();
    await close();
    return visible;
  };
  assert.deepEqual([await shown(true), await shown(false)], [true, false]);
});

test("the playground: which rows ClickHouse has; and an answer stays when the row cannot be looked for", async () => {
  const { answers } = collector;
  const { page, close } = await browser.open(collector.url, {}, /ERR_/);
  await page.clock.install();
  await collector.tell();
  await sees(page, "connection", /^live$/);
  const send = () => page.locator("#playground-form button[type=submit]").click();
  await page.locator("#target").selectOption("flights");
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ accepted: 1, ack: "clickhouse" }, /^ClickHouse has it\.$/],
    [{ accepted: 3, ack: "clickhouse" }, /^ClickHouse has the 3 rows\.$/],
    [
      { accepted: 3, ack: "clickhouse", dead: 1 },
      /^ClickHouse has 2 of 3 rows, and refused 1 for good: see the dead letters\.$/,
    ],
    [{ accepted: 1, ack: "disk" }, /^Taken: 1 row, not in ClickHouse within 10 s; on the way/],
  ];
  for (const [told, row] of cases) {
    answers.set("POST /events/flights", () => Response.json({ rejected: 0, errors: [], ...told }));
    await send();
    await sees(page, "row-status", row);
  }

  await page.locator("#target").selectOption("");
  await page.locator("#copy-curl").click();
  await sees(page, "copied", /^(Copied|Selected)/);
  await page.locator("#event").fill('{"eventType":"click"}');
  await sees(page, "copied", /^$/);
  const taken = { accepted: 1, rejected: 0, ack: "disk", errors: [] };
  answers.set("POST /events", () => Response.json(taken, { status: 202 }));
  await page.route("**/api/events?*", (route) => route.abort());
  await send();
  await sees(page, "row-status", /^Looking for its row/);
  await page.clock.runFor(30_000);
  await sees(page, "row-status", /^The collector does not answer any more\.$/);
  await sees(page, "answer-status", /^202 /);
  await sees(page, "answer", /"accepted":1/);
  await close();
});

test("paused, draining, locked: the state says so, and so does the title of the tab", async () => {
  const { page, close } = await browser.open(collector.url, {}, /401/);
  await collector.tell({ state: "paused", reasons: ["paused"] });
  await sees(page, "state-name", /^paused$/);
  await sees(page, "state-why", /^new events are refused; what is held is sent$/);
  assert.equal(await page.title(), "paused · eu.edge-1 · Shishi");
  await collector.tell({ state: "draining", reasons: ["draining", "clickhouse: away"] });
  await sees(page, "state-why", /^clickhouse: away$/);
  collector.answers.set("GET /api/live", () => Response.json({}, { status: 401 }));
  collector.live.letGo(true);
  await sees(page, "state-name", /^locked$/);
  assert.equal(await page.title(), "locked · eu.edge-1 · Shishi");
  await page.locator("#login[open]").waitFor();
  await close();
});

test("let go and let in again: nothing is said of it, but of another version", async () => {
  const { page, close } = await browser.open(collector.url, {}, /503/);
  await sees(page, "state-name", /^running$/);
  await page.evaluate(() => {
    Object.assign(globalThis, { said: [] });
    new MutationObserver(() => {
      (globalThis as unknown as { said: unknown[] }).said.push(
        document.querySelector("#gone")!.textContent,
      );
    }).observe(document.querySelector("#gone")!, { childList: true });
  });
  const outdated = page.locator("#outdated");
  for (const version of ["1.0.0", "2.0.0"]) {
    collector.introduce({ version, id: `of-${version}` });
    collector.live.letGo(true);
    await new Promise<void>((resolve) =>
      collector.answers.set("GET /api/live", async () => {
        const refused = await collector.live.open();
        collector.live.letGo(false);
        resolve();
        return refused;
      })
    );
    await sees(page, "who", new RegExp(`^eu\\.of-${version}$`));
    assert.equal(await outdated.isVisible(), version === "2.0.0", version);
  }
  await sees(page, "outdated", /^This page is of version 1\.0\.0, the collector is not\.$/);
  assert.deepEqual(await page.evaluate("said"), []);
  await page.getByRole("link", { name: "Load its page" }).click();
  await sees(page, "who", /^eu\.of-2\.0\.0$/);
  assert.equal(await outdated.isVisible(), false);
  await close();
});

test("a fault of the page is told, and the connection stays", async () => {
  const { page, close } = await browser.open(collector.url);
  await sees(page, "state-name", /^running$/);
  let opened = 0;
  collector.answers.set("GET /api/live", () => (opened++, collector.live.open()));
  const told = page.waitForEvent("pageerror");
  await collector.tell({ reasons: null as unknown as string[] });
  await told;
  await collector.tell({ state: "paused" });
  await sees(page, "state-name", /^paused$/);
  assert.equal(opened, 0);
  await assert.rejects(close(), /TypeError/);
});

test("another attempt that is not answered, while one is under way, is given up as well", async () => {
  const { page, close } = await browser.open(collector.url);
  await sees(page, "state-name", /^running$/);
  await page.clock.install();
  collector.answers.set("GET /api/live", () => new Promise(() => {}));
  await page.evaluate(() => dispatchEvent(new Event("online")));
  await page.clock.runFor(20_000);
  await sees(page, "gone", /^No word from the collector since .*: it does not answer\./);
  await close();
});

test("large numbers are whole at every width", async () => {
  const { page, close } = await browser.open(collector.url, {}, /willReadFrequently/);
  const many = 9_999_999_999;
  const MIB = 1024 ** 2;
  const table = {
    table: "a_table_of_some_name",
    received: 999_999,
    stored: 999_999,
    held: 999_999,
    dead: 999_999,
    recovered: 0,
    rejected: 0,
    lost: 0,
    state: "ok" as const,
  };
  const type = { table: "t", eventType: "click", accepted: 999_999, stored: 999_999 };
  const at = (n: number) => ({
    sample: [n, 888_888, 888_888, 888_888, 1023 * MIB, 888.8 * MIB, 3599, 888, 888, 88.8, 88.8],
    books: {
      received: many,
      recovered: many,
      rejected: many,
      stored: many,
      dead: many,
      held: many,
      lost: many,
    },
    retries: 888_888,
    inserts: many,
    tables: { first: [{ ...table, received: 888_888 * n }], more: 0 },
    types: { first: [{ ...type, accepted: 888_888 * n }], more: 0 },
  });
  await sees(page, "state-name", /^running$/);
  for (const n of [1, 2]) await collector.tell(at(n));
  await sees(page, "tables-body", /888,888/);
  for (const width of [360, 768, 1024, 1101, 1200]) {
    await page.setViewportSize({ width, height: 800 });
    const cut = await page.evaluate(() =>
      [...document.querySelectorAll<HTMLElement>("h1, dt, dd, td, thead th, .legend")]
        .filter(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth)
        .map(({ id, textContent }) => `${id} ${textContent}`)
    );
    assert.deepEqual(cut, [], `${width} px`);
    const lines = await page.evaluate(() => {
      const range = document.createRange();
      range.selectNodeContents(document.querySelector("h1")!);
      return range.getClientRects().length;
    });
    assert.equal(lines, 1, `${width} px: the name in one line`);
  }
  await close();
});

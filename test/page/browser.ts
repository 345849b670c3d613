/** Pages in a real Chromium: what went wrong in them, and what they asked for elsewhere. */
import assert from "node:assert/strict";
import type { BrowserContextOptions, Page } from "playwright-core";
import { startBrowser } from "../kit/browser.ts";

/** On a slow machine beside another runner. */
export const WITHIN_MS = 20_000;

/** A page that must do without errors, and without anything from elsewhere. */
export interface Seen {
  readonly page: Page;
  /** Asserts that nothing went wrong in it, and closes it. */
  close(): Promise<void>;
}

export interface TestBrowser {
  /** @param allowed texts that may stand in the console, as of a server that is killed. */
  open(url: string, options?: BrowserContextOptions, allowed?: RegExp): Promise<Seen>;
  close(): Promise<void>;
}

export async function startTestBrowser(): Promise<TestBrowser> {
  const browser = await startBrowser();
  return {
    async open(url, options = {}, allowed = /^$/) {
      const context = await browser.newContext({
        viewport: { width: 1200, height: 900 },
        reducedMotion: "reduce",
        ...options,
      });
      const page = await context.newPage();
      page.setDefaultTimeout(WITHIN_MS);
      const problems: string[] = [];
      const elsewhere: string[] = [];
      page.on("pageerror", (error) => problems.push(String(error)));
      page.on("console", (message) => {
        const text = message.text();
        if (["error", "warning"].includes(message.type()) && !allowed.test(text)) {
          problems.push(text);
        }
      });
      page.on("request", (request) => {
        const to = request.url();
        if (!to.startsWith(url) && !to.startsWith("data:")) elsewhere.push(to);
      });
      await page.goto(url);
      return {
        page,
        async close() {
          assert.deepEqual(problems, [], "the console");
          assert.deepEqual(elsewhere, [], "requests that go elsewhere");
          await context.close();
        },
      };
    },
    close: () => browser.close(),
  };
}

/** Waits until the text of the element with this id matches. */
export async function sees(page: Page, id: string, text: RegExp): Promise<void> {
  try {
    await page.locator(`#${id}`).filter({ hasText: text }).waitFor({ state: "attached" });
  } catch {
    assert.match(await page.locator(`#${id}`).innerText(), text, `#${id}`);
  }
}

/** What the tests of the page share: a source that is told what to say, and a reader of its answers. */
import type { PageMoment, PageSource } from "../../src/page/live.ts";

/** Says a moment when it is told to. */
export class ScriptedSource implements PageSource {
  /** Moments that somebody waits for. */
  asked = 0;
  about = "{}";
  past = "{}";
  now = '{"n":0}';
  problems = "[]";
  readonly #waiting: ((moment: PageMoment) => void)[] = [];
  readonly #failing: ((error: Error) => void)[] = [];

  first() {
    const { about, past, now, problems } = this;
    return Promise.resolve({ about, past, now, problems });
  }

  next(): Promise<PageMoment> {
    this.asked++;
    return new Promise((resolve, reject) => {
      this.#waiting.push(resolve);
      this.#failing.push(reject);
    });
  }

  /** @returns whether anybody waited for it. */
  tell(now: string): boolean {
    const waiting = this.#waiting.splice(0);
    this.#failing.length = 0;
    for (const resolve of waiting) resolve({ now, problems: this.problems });
    return waiting.length > 0;
  }

  fail(): void {
    this.#waiting.length = 0;
    for (const reject of this.#failing.splice(0)) reject(new Error("gone"));
  }
}

export interface Told {
  readonly name: string;
  // deno-lint-ignore no-explicit-any
  readonly data: any;
}

/** Reads server-sent events one by one; null at the end. */
export function eventsOf(
  answer: Response,
): { next(): Promise<Told | null>; close(): Promise<void> } {
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  return {
    async next() {
      while (!text.includes("\n\n")) {
        const { done, value } = await reader.read();
        if (done) return null;
        text += value;
      }
      const end = text.indexOf("\n\n");
      const [, name = "", data = ""] = /^event: (.*)\ndata: (.*)$/.exec(text.slice(0, end)) ?? [];
      text = text.slice(end + 2);
      return { name, data: JSON.parse(data) };
    },
    close: () => reader.cancel(),
  };
}

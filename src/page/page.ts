/**
 * The page at `GET /`. Nothing of it is loaded before the first request for it, except the recorder of
 * the past hour, and that a moment after the start: a page that is opened after an incident has to show
 * the incident.
 */

import type { Clock, Page } from "../contracts.ts";
import { repeat } from "../kernel/time.ts";
import type { Fixed } from "./fixed.ts";
import type { Live, PageSource } from "./live.ts";
import type { RecorderDeps } from "./recorder.ts";

export interface OpenPage extends Page {
  /**
   * The same server; while each of its answers is the last of a connection, viewers are sent away, to
   * come again on another one: their answers would not end.
   */
  leaving<T extends { lastAnswers(last: boolean): void }>(server: T): T;
  /** Settings have changed: viewers connect again, to be sent those, and only if they still may. */
  adopted(): void;
  /** Ends the answers of viewers, and the recording. */
  close(): Promise<void>;
}

const FIRST_SAMPLE_MS = 1_000;
const SAMPLE_EVERY_MS = 1_000;

/** @param deps what there is to record. */
export function createPage(deps: RecorderDeps, clock: Pick<Clock, "after">): OpenPage {
  let closed = false;
  let cancel = () => {};
  let source: Promise<PageSource> | null = null;
  let live: Promise<Live> | null = null;
  let document: Promise<Fixed> | null = null;
  let snippet: Promise<Fixed> | null = null;

  async function record(): Promise<PageSource> {
    const recorder = (await import("./recorder.ts")).createRecorder(deps);
    cancel();
    if (closed) return recorder;
    recorder.sample();
    cancel = repeat(clock, SAMPLE_EVERY_MS, () => recorder.sample());
    return recorder;
  }
  const recorded = () => source ??= record();
  cancel = clock.after(FIRST_SAMPLE_MS, () => void recorded());

  return {
    async document(request) {
      document ??= import("./document.ts").then(({ createDocument }) => createDocument());
      return (await document).answer(request);
    },

    async snippet(request) {
      snippet ??= import("./fixed.ts").then(({ createSnippet }) => createSnippet());
      return (await snippet).answer(request);
    },

    async live() {
      live ??= Promise.all([import("./live.ts"), recorded()])
        .then(([{ createLive }, source]) => createLive({ source }));
      const opened = await live;
      if (closed) opened.close();
      return opened.open();
    },

    leaving: (server) => ({
      ...server,
      lastAnswers(last) {
        void live?.then((opened) => opened.letGo(last));
        server.lastAnswers(last);
      },
    }),

    adopted() {
      void live?.then((opened) => opened.again());
    },

    async close() {
      closed = true;
      cancel();
      (await live)?.close();
    },
  };
}

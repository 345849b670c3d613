/**
 * `GET /api/live`: the figures as server-sent events, for as long as the viewer's connection lasts.
 *
 * Promises: viewers are bounded in number, and a viewer that reads too slowly misses moments instead of
 * filling memory; after a minute of that its answer is ended. One moment is made for all viewers, and
 * none while there are none. `close` sends a last event and ends all answers, so that they hold up no
 * stop.
 */

import { UNAVAILABLE_RETRY_S } from "../contracts.ts";

/** What viewers are sent of one moment; every text is JSON. */
export interface PageMoment {
  /** The last sample with state, books, tables and event types. */
  readonly now: string;
  /** The last problems; sent again only when they have changed. */
  readonly problems: string;
}

/** Where the figures come from. */
export interface PageSource {
  /** For a new viewer: which collector this is, and the hour that has passed. */
  first(): Promise<PageMoment & { readonly about: string; readonly past: string }>;
  /** Resolves with the next sample, within about a second; costs nothing while it is not called. */
  next(): Promise<PageMoment>;
}

export interface Live {
  open(): Promise<Response>;
  viewers(): number;
  /** Ends the answers of all viewers; their pages connect again. */
  again(): void;
  /** True: viewers are let go, and new ones refused until it is false. */
  letGo(go: boolean): void;
  close(): void;
}

export interface LiveOptions {
  readonly source: PageSource;
  readonly mostViewers?: number;
}

interface Viewer {
  readonly controller: ReadableStreamDefaultController<Uint8Array>;
  missed: number;
  /** As they were last sent to it. */
  problems: string;
}

const MOST_VIEWERS = 32;
const MOST_MISSED = 60;
/** Not yet sent to one viewer; more than the past hour takes. */
const MOST_WAITING_BYTES = 512 * 1024;
const HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
  // Some proxies keep an answer until it is whole.
  "x-accel-buffering": "no",
};

export function createLive({ source, mostViewers = MOST_VIEWERS }: LiveOptions): Live {
  const encoder = new TextEncoder();
  const viewers = new Set<Viewer>();
  let opening = 0;
  /** Why viewers are refused; null while they are not. */
  let shut: string | null = null;
  let running = false;

  const drop = (viewer: Viewer) => {
    if (!viewers.delete(viewer)) return;
    try {
      viewer.controller.close();
    } catch {
      // It has gone by itself.
    }
  };
  const again = () => {
    for (const viewer of [...viewers]) drop(viewer);
  };
  const tell = ({ now, problems }: PageMoment) => {
    const bytes = encoder.encode(event("now", now));
    for (const viewer of [...viewers]) {
      const { controller } = viewer;
      viewer.missed = (controller.desiredSize ?? 0) > 0 ? 0 : viewer.missed + 1;
      if (viewer.missed > MOST_MISSED) drop(viewer);
      else if (viewer.missed === 0) {
        controller.enqueue(bytes);
        if (viewer.problems === problems) continue;
        controller.enqueue(encoder.encode(event("problems", problems)));
        viewer.problems = problems;
      }
    }
  };

  async function run(): Promise<void> {
    running = true;
    while (viewers.size > 0 && shut === null) {
      let moment: PageMoment;
      try {
        moment = await source.next();
      } catch {
        // Without figures there is nothing to send; the pages connect again.
        again();
        break;
      }
      tell(moment);
    }
    running = false;
  }

  return {
    async open() {
      if (shut !== null) return unavailable(shut);
      if (viewers.size + opening >= mostViewers) {
        return unavailable(`no more than ${mostViewers} viewers at a time`);
      }
      opening++;
      try {
        const { about, past, now, problems } = await source.first();
        if (shut !== null) return unavailable(shut);
        const first = event("about", about) + event("past", past) + event("now", now) +
          event("problems", problems);
        let viewer: Viewer;
        const body = new ReadableStream<Uint8Array>({
          start(controller) {
            viewer = { controller, missed: 0, problems };
            viewers.add(viewer);
            controller.enqueue(encoder.encode(first));
            if (!running) void run();
          },
          cancel() {
            viewers.delete(viewer);
          },
        }, new ByteLengthQueuingStrategy({ highWaterMark: MOST_WAITING_BYTES }));
        return new Response(body, { headers: HEADERS });
      } finally {
        opening--;
      }
    },

    viewers: () => viewers.size,

    again,

    letGo(go) {
      shut = go ? "another process takes over" : null;
      if (go) again();
    },

    close() {
      shut = "the collector is stopping";
      const last = encoder.encode(event("end", "{}"));
      for (const viewer of [...viewers]) {
        if ((viewer.controller.desiredSize ?? 0) > 0) viewer.controller.enqueue(last);
        drop(viewer);
      }
    },
  };
}

function event(name: string, data: string): string {
  return `event: ${name}\ndata: ${data}\n\n`;
}

function unavailable(error: string): Response {
  return Response.json({ error }, {
    status: 503,
    headers: { "retry-after": String(UNAVAILABLE_RETRY_S) },
  });
}

/** A collector that is made up: the real page, told what the test says, for what a real one seldom does. */
import assert from "node:assert/strict";
import { createDocument } from "../../src/page/document.ts";
import { type About, type Moment, SERIES } from "../../src/page/recorder.ts";
import { createLive, type Live } from "../../src/page/live.ts";
import { serve } from "../../src/runtime/server.ts";
import { eventually } from "../kit/wait.ts";
import { ScriptedSource } from "./kit.ts";

type Answer = (request: Request) => Response | Promise<Response>;

export interface MadeUp {
  readonly url: string;
  readonly live: Live;
  /** Answers by `METHOD /path`; what is not here is 404. */
  readonly answers: Map<string, Answer>;
  /** What viewers are told when they come. */
  introduce(more: Partial<About>): void;
  /** A moment, a second after the one before. @param more what is not as usual. */
  tell(more?: Partial<Moment>, problems?: readonly unknown[]): Promise<void>;
  close(): Promise<void>;
}

const BEGAN_S = 1_760_000_000;
const NONE = { first: [], more: 0 };
const ABOUT: About = {
  group: "eu",
  id: "edge-1",
  version: "1.0.0",
  runtime: "made up",
  table: "analytics_events",
  tables: ["flights"],
  backlog: 1_000_000,
  backlogBytes: 64 * 1024 ** 2,
  takesEvents: true,
  spoolMaxBytes: 1024 ** 3,
};
export const NO_ROWS: Moment["books"] = {
  received: 0,
  recovered: 0,
  rejected: 0,
  stored: 0,
  dead: 0,
  held: 0,
  lost: 0,
};

export function startMadeUp(): MadeUp {
  const document = createDocument();
  const source = new ScriptedSource();
  const live = createLive({ source });
  let atS = BEGAN_S;
  const momentOf = (more: Partial<Moment> = {}): string => {
    const usual: Moment = {
      sample: [atS, ...SERIES.map(() => 0)],
      state: "running",
      reasons: [],
      uptime_s: atS - BEGAN_S,
      recovering: false,
      books: NO_ROWS,
      difference: 0,
      inserts: 0,
      retries: 0,
      tables: NONE,
      types: NONE,
      sources: NONE,
    };
    return JSON.stringify({ ...usual, ...more });
  };
  source.about = JSON.stringify(ABOUT);
  source.past = JSON.stringify({ series: SERIES, columns: [[], ...SERIES.map(() => [])] });
  source.now = momentOf();
  const answers = new Map<string, Answer>([
    ["GET /", (request) => document.answer(request)],
    ["GET /api/live", () => live.open()],
    ["GET /api/dead", () => Response.json({ letters: [], total: 0 })],
  ]);
  const listening = serve({
    hostname: "127.0.0.1",
    port: 0,
    handler: (request) =>
      answers.get(`${request.method} ${new URL(request.url).pathname}`)?.(request) ??
        Response.json({ error: "not made up" }, { status: 404 }),
    onError: (error) => assert.fail(String(error)),
  });
  return {
    url: `http://127.0.0.1:${listening.port}`,
    live,
    answers,
    introduce(more) {
      source.about = JSON.stringify({ ...ABOUT, ...more });
    },
    async tell(more, problems = []) {
      atS++;
      source.now = momentOf(more);
      source.problems = JSON.stringify(problems);
      const told = () => assert.ok(source.tell(source.now), "nobody waits for it");
      if (live.viewers() > 0) await eventually(told, { withinMs: 10_000 });
    },
    async close() {
      live.close();
      // Answers that a test has kept back are never given.
      await listening.kill();
    },
  };
}

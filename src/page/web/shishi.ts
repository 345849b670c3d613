/**
 * What pages of other sites load as `GET /shishi.js`: it sends what happens in them as events, in
 * batches. `npm run snippet` makes `shishi_js.ts` of it, as small as it gets. Nothing of it may ever
 * stop the page that it runs in, and without consent it neither sends nor stores.
 *
 * *Once.* A batch never changes once it is closed, lies in localStorage until an answer says what became
 * of it, and has a key under which a collector takes it once: so it may be sent again after a lost
 * answer, or by another tab. Of what a page sends in its last moment no page learns the end. It counts as taken, unless
 * the collector did not take what came before; with `data-confirm` the next page sends it again under its
 * key. That is exact with one collector alone, for each of several remembers its own keys, and only for as
 * long as keys are remembered (`idempotency-window`, an hour).
 */

type Properties = Readonly<Record<string, unknown>>;
interface Change {
  /** Of all events from now on. */
  readonly user?: string;
  /** False also forgets what waits. */
  readonly consent?: boolean;
}
/** `shishi("click", {…})` is an event, `shishi({…})` a change. */
type Call = readonly [what: string | Change, properties?: Properties];

/** What a page has and the runtimes' own types have not. */
interface Page {
  readonly document: {
    readonly currentScript: {
      readonly src: string;
      readonly dataset: Readonly<Record<string, string | undefined>>;
    };
    readonly referrer: string;
    readonly visibilityState: string;
  };
  readonly location: { readonly pathname: string; readonly hash: string };
  readonly history: Record<"pushState" | "replaceState", (...args: unknown[]) => void>;
  readonly navigator: {
    readonly doNotTrack?: string | null;
    readonly globalPrivacyControl?: boolean;
    readonly onLine: boolean;
    readonly locks?: {
      request(
        name: string,
        options: { readonly ifAvailable: true },
        work: (lock: unknown) => Promise<void> | null,
      ): Promise<void>;
    };
    sendBeacon(url: string, body: string): boolean;
  };
  /** Before this script is there: a function that keeps the calls in `q`. */
  shishi?: unknown;
}

/** Events wait so long for others. */
const TOGETHER_MS = 1000;
const MOST_IN_BATCH = 20;
/** Characters; a browser carries 64 KiB past the end of a page, and no more. */
const BATCH_LENGTH = 10_000;
const EVENT_LENGTH = 30_000;
/** Batches; beyond that the oldest goes. Also of events that wait for consent. */
const MOST_WAITING = 50;
const [FIRST_WAIT_MS, LONGEST_WAIT_MS] = [1000, 60_000];
const MOST_RETRY_S = 3600;
const ANSWER_MS = 30_000;
/** How long the collector surely knows a key: less than `idempotency-window`. */
const KEY_MS = 50 * 60_000;
/** Of a batch that will be refused however often it comes. */
const REFUSED = [400, 413, 422];

const page = globalThis as unknown as Page;
const { navigator, document, location, history } = page;
const { src, dataset: told } = document.currentScript;
const target = new URL(told.url ?? "events", src).href;
const name = `shishi ${target} `;
const before = page.shishi as { q?: readonly Call[]; ready?: boolean } | undefined;

const opposed = navigator.doNotTrack === "1" || navigator.globalPrivacyControl;
let allowed = opposed || "consent" in told ? null : true as boolean | null;
const confirms = "confirm" in told;
let user = told.user ?? "";
/** Events of no batch yet, as JSON. */
let open: string[] = [];
/** In a row. What an earlier page could not send tells of one. */
let failures = 0;
let timer = 0;
let sending = false;
/** The page ends, unless it comes back. */
let leaving = false;
/** Where the page before stood; the first came from elsewhere. */
let path: string | null = null;

// ── What waits: name → since when it may have been taken (0: it was not), and the body.

/** Where the browser stores nothing for this page. */
const memory: Record<string, string> = {};
const stored = () => {
  try {
    return localStorage as unknown as Record<string, string> ?? memory;
  } catch {
    return memory;
  }
};

function keep(batch: string, sentMs: number, body: string): void {
  try {
    stored()[batch] = `${sentMs} ${body}`;
  } catch {
    memory[batch] = `${sentMs} ${body}`;
  }
}

function forget(batch: string): void {
  delete stored()[batch];
  delete memory[batch];
}

/** The oldest first: a name has the time in it. */
const waiting = () =>
  [...new Set([memory, stored()].flatMap(Object.keys))]
    .filter((batch) => batch.startsWith(name)).sort();

function read(batch: string): readonly [sentMs: number, body: string] | null {
  const text = stored()[batch] ?? memory[batch];
  if (!text) return null;
  const at = text.indexOf(" ");
  return [Number(text.slice(0, at)), text.slice(at + 1)];
}

/** What is open becomes a batch. */
function close(): void {
  if (!open[0]) return;
  keep(`${name}${Date.now()} ${uuid()}`, 0, open.join("\n"));
  open = [];
  for (const batch of waiting().slice(0, -MOST_WAITING)) forget(batch);
}

// ── Sending.

function addressOf(batch: string): string {
  const address = new URL(target);
  address.searchParams.set("key", batch.slice(-36));
  if (told.token) address.searchParams.set("token", told.token);
  return address.href;
}

function later(ms: number): void {
  clearTimeout(timer);
  timer = setTimeout(send, ms) as unknown as number;
}

/** One tab at a time where browsers can say so; where two send the same, its key makes it one. */
function send(): void {
  timer = 0;
  if (!allowed || sending) return;
  sending = true;
  const work = navigator.locks
    ? navigator.locks.request(name, { ifAvailable: true }, (lock) => lock ? sendAll() : null)
    : sendAll();
  work.catch(() => {}).then(() => {
    sending = false;
    if (allowed && (open[0] || waiting()[0]) && !timer) {
      later(Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** failures) * (1 + Math.random()) / 2);
    }
  });
}

/** Until nothing waits, or something stands in the way: what comes meanwhile travels together. */
async function sendAll(): Promise<void> {
  while (open[0] || waiting()[0]) {
    if (!waiting()[0]) close();
    for (const batch of waiting()) if (!await sendOne(batch)) return;
  }
}

/** What a batch is marked with when it is sent and the answer may never be seen. */
const sent = () => confirms || !failures ? Date.now() : 0;

/** @returns whether its fate is known. */
async function sendOne(batch: string): Promise<boolean> {
  // Another tab may have dealt with it: that is long ago as well.
  const [sentMs, body] = read(batch) ?? [1, ""];
  if (sentMs && (!confirms || Date.now() - sentMs > KEY_MS)) {
    forget(batch);
    return true;
  }
  keep(batch, sentMs || sent(), body);
  let retryAfterS = 0;
  try {
    const answer = await fetch(addressOf(batch), {
      method: "POST",
      body,
      credentials: "omit",
      keepalive: body.length < 2 * BATCH_LENGTH,
      // Not every browser has it.
      signal: AbortSignal.timeout?.(ANSWER_MS),
    });
    if (answer.ok || REFUSED.includes(answer.status)) {
      forget(batch);
      failures = 0;
      return true;
    }
    retryAfterS = Number(answer.headers.get("retry-after"));
  } catch {
    // No answer, and hardly ever more than that: it waits as after a refusal.
  }
  failures++;
  if (allowed) keep(batch, sentMs, body);
  if (retryAfterS > 0) later(Math.min(retryAfterS, MOST_RETRY_S) * 1000);
  return false;
}

/** The page ends: what the browser takes over is sent, but no answer will tell. */
function leave(): void {
  leaving = true;
  if (!allowed) return;
  close();
  for (const batch of waiting()) {
    const [sentMs, body] = read(batch)!;
    if (!sentMs && navigator.onLine && navigator.sendBeacon(addressOf(batch), body)) {
      keep(batch, sent(), body);
    }
  }
}

// ── What pages call.

const uuid = () =>
  "10000000-1000-4000-8000-100000000000".replace(
    /[018]/g,
    (digit) =>
      (Number(digit) ^ crypto.getRandomValues(new Uint8Array(1))[0]! & 15 >> Number(digit) / 4)
        .toString(16),
  );

function record(eventType: string, properties?: Properties): void {
  if (allowed === false) return;
  const timestamp = Date.now();
  const event = JSON.stringify({ id: uuid(), timestamp, eventType, userId: user, properties });
  if (event.length > EVENT_LENGTH) return;
  open.push(event);
  if (!allowed) open = open.slice(-MOST_WAITING);
  else {
    if (open.length >= MOST_IN_BATCH || open.join().length > BATCH_LENGTH) close();
    // Others may tell something when the page ends, later than this script hears of it.
    if (leaving) leave();
    else if (!timer && !sending) later(TOGETHER_MS);
  }
}

function change({ user: other, consent }: Change): void {
  user = other ?? user;
  if (consent === undefined) return;
  allowed = consent;
  if (consent) return send();
  open = [];
  waiting().forEach(forget);
}

function shishi(...[what, properties]: Call): void {
  try {
    if (typeof what === "string") record(what, properties);
    else change(what);
  } catch {
    // A page goes on, whatever it gave.
  }
}

/** Where the page is now, unless that has been told. */
function view(): void {
  const now = location.pathname + (told.pages === "hash" ? location.hash : "");
  if (now === path) return;
  shishi("page_view", { path: now, referrer: path ?? document.referrer.split(/[?#]/)[0] });
  path = now;
}

/** A tab out of sight may end without a word. */
function hide(): void {
  // What a page told before is under way, and at its end it has been sent.
  if (document.visibilityState !== "hidden" || !allowed || !open[0]) return;
  close();
  if (failures === 0) send();
}

/** From the browser's memory, as it was; it is seen once more. */
function comeBack(): void {
  if (!leaving) return;
  leaving = false;
  path = null;
  if ("pages" in told) view();
  send();
}

function watchViews(): void {
  for (const move of ["pushState", "replaceState"] as const) {
    const original = history[move];
    history[move] = (...args) => {
      original.apply(history, args);
      view();
    };
  }
  addEventListener("popstate", view);
  view();
}

// A page may hold the script twice.
if (!before?.ready) {
  page.shishi = Object.assign(shishi, { ready: true });
  before?.q?.forEach((call) => shishi(...call));
  if ("pages" in told) watchViews();
  failures = waiting().some((batch) => !read(batch)![0]) ? 1 : 0;
  addEventListener("pagehide", leave);
  addEventListener("pageshow", comeBack);
  addEventListener("visibilitychange", hide);
  addEventListener("online", () => {
    failures = 0;
    send();
  });
  send();
}

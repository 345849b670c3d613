/**
 * The loop of one source: connect, for ever → read → rows → the intake → wait until they are safe → acknowledge.
 * Knows no broker; its time is the `Clock`'s.
 *
 * Promises: nothing is acknowledged before it is safe, and in each partition only what is contiguous
 * (a first-in, first-out list of what was read together, of which the safe beginning is acknowledged); every
 * message is acknowledged in the end, also one without rows; a message that can never become rows is a
 * dead letter first; what cannot be taken is held, and nothing more is read meanwhile; whatever a broker
 * does, nothing but this source waits for it.
 *
 * A connection that is lost is forgotten with all that it has given: the broker gives it again, and what was
 * taken is recognized by its position or its id.
 */

import {
  type Ack,
  type Broker,
  type Clock,
  type Feed,
  type Intake,
  type Log,
  type Mark,
  type Message,
  type MessageReader,
  type Refused,
  type SourceAddress,
  type SourceLetter,
  type SourceStatus,
  type SourceTotals,
  type TakenMark,
  type Ticket,
} from "../contracts.ts";
import { Backoff } from "../kernel/backoff.ts";
import { nodeCrypto, nodeZlib } from "../kernel/builtins.ts";
import { reasonOf } from "../kernel/errors.ts";
import { comparePositions } from "../kernel/positions.ts";
import type { Result } from "../kernel/result.ts";
import { Ending, repeat, sleep, within } from "../kernel/time.ts";
import { letterText, type Made, makeRows, piecesOf, type Poison } from "./message.ts";

export interface SourceDeps {
  readonly address: SourceAddress;
  readonly broker: Broker;
  readonly intake: Intake;
  readonly reader: MessageReader;
  /** Keeps what can never become rows, synced. Not done: there is no room, or no disk. */
  readonly keepLetters: (letters: readonly SourceLetter[]) => Promise<Result>;
  /** Of this source; counted here. */
  readonly totals: SourceTotals;
  /** So many messages for a table are dead letters. */
  readonly died: (table: string, messages: number) => void;
  /** The table of events: naming it means them. */
  readonly eventsTable: () => string;
  /** Whether a message may name this table. */
  readonly mayWrite: (table: string) => boolean;
  /** What an acknowledgement waits for. */
  readonly ack: () => Ack;
  readonly clock: Clock;
  readonly log: Log;
}

type State = SourceStatus["state"];

const BACKOFF = { leastMs: 250, mostMs: 30_000 };
/** A connection that lived this long was a good one: the next loss starts with a short wait. */
const GOOD_LIFE_MS = 10_000;
/** A broker that says neither yes nor no. */
const CONNECT_MS = 30_000;
/** What was refused is given again after this. */
const RETRY_MS = 250;
/** What waits for a table, or for room for dead letters. */
const SLOW_RETRY_MS = 1000;
/** Held for longer, messages go back to the broker, once: others may take them, and time limits end. */
const HOLD_MS = 60_000;
/** How long they are left there where only giving them again would tell whether they are taken. */
const AWAY = { leastMs: 60_000, mostMs: 3_600_000 };
/** At an end: for the last acknowledgement, and for leaving. */
const LEAVE_MS = 2_000;
/** How often it is looked what was dropped: nothing need be read meanwhile. */
const COUNT_MS = 1_000;
const SETTLE_MS = 3_600_000;

export class Source {
  readonly #deps: SourceDeps;
  readonly #id: string;
  readonly #backoff: Backoff;
  readonly #away: Backoff;
  /** Aborted when nothing is to be read any more. */
  readonly #ending = new AbortController();
  #state: State = "connecting";
  #why: string | null = null;
  #session: Session | null = null;
  /** Read, and not in the session's list yet. */
  #inHand = 0;
  /** What of it is certainly not taken, neither now nor before. */
  #untaken: () => readonly Message[] = () => [];
  #lastAckMs: number | null = null;
  /** Since when the messages in hand cannot be taken. */
  #heldSinceMs: number | null = null;
  /** The last reason for which there was no connection: it is logged once. */
  #told = "";
  /** What the messages in hand wait for beside room: a table, a place for dead letters. It is logged once. */
  #waitsFor: string | null = null;
  #run: Promise<void> = Promise.resolve();
  /** Resolves when everything that was taken is stored or given up: the end of all waiting. */
  #drained: Promise<unknown> = Promise.resolve();

  constructor(deps: SourceDeps) {
    this.#deps = deps;
    this.#id = identityOf(deps.address);
    this.#backoff = new Backoff(deps.clock, BACKOFF);
    this.#away = new Backoff(deps.clock, AWAY);
  }

  /** Returns at once, and reads in the background. */
  start(): void {
    this.#run = this.#forever();
  }

  /**
   * Reads no more, at once; what is taken is acknowledged when it is safe, and the broker left. Resolves
   * then, at the latest 4 s after `drained`. Never rejects.
   * @param drained resolves when the rows that were taken are stored, or given up.
   */
  async stop(drained: Promise<unknown>): Promise<void> {
    const { clock } = this.#deps;
    this.#drained = drained;
    this.#ending.abort();
    // A disk that hangs keeps rows from being synced, and a broker its client from leaving.
    await Promise.race([this.#run, drained.then(() => sleep(clock, LEAVE_MS))]);
    await this.#session?.leave(clock, this.#untaken());
  }

  status(): SourceStatus {
    const { address, clock, intake, totals } = this.#deps;
    const paused = intake.closed() !== null && this.#state !== "stopped";
    return {
      name: address.name,
      state: paused ? "paused" : this.#state,
      why: paused ? null : this.#why,
      lag: this.#session?.feed.lag() ?? null,
      unacked: this.#inHand + (this.#session?.unacked ?? 0),
      rows: totals.rows,
      repeated: totals.repeated,
      dead: totals.dead,
      last_ack_s: this.#lastAckMs === null
        ? null
        : Math.floor((clock.monotonicMs() - this.#lastAckMs) / 1000),
    };
  }

  get #stopping(): boolean {
    return this.#ending.signal.aborted;
  }

  #set(state: State, why: string | null = null): void {
    this.#state = state;
    this.#why = why;
  }

  async #forever(): Promise<void> {
    while (!this.#stopping) {
      this.#set("connecting", this.#why);
      const startedMs = this.#deps.clock.monotonicMs();
      try {
        const end = await this.#live();
        if (end.kind === "poison") return this.#stopped(end.why);
        if (end.kind === "held") await this.#stayAway(end.why);
      } catch (error) {
        if (!this.#stopping) await this.#lost(reasonOf(error), startedMs);
      }
    }
    this.#set("stopped");
  }

  #stopped(why: string): void {
    const { log, address: { name } } = this.#deps;
    this.#set("stopped", why);
    log.error("a source has stopped: a message can never become rows (on-error=stop)", {
      source: name,
      error: why,
    });
  }

  /** There is no connection. Waits until another attempt may be made. */
  async #lost(why: string, startedMs: number): Promise<void> {
    const { clock, log, address: { name, label }, totals } = this.#deps;
    totals.reconnects++;
    this.#set("waiting", why);
    if (why !== this.#told) {
      const problem = { source: name, server: label, error: why };
      log.warn("a source is away, trying again in the background", problem);
    }
    this.#told = why;
    if (clock.monotonicMs() - startedMs >= GOOD_LIFE_MS) this.#backoff.succeeded();
    await this.#sleep(this.#backoff.failed());
  }

  /** One connection, from its first byte to its end. Rejects when it is lost. */
  async #live(): Promise<End> {
    const { intake, log, address: { name, label } } = this.#deps;
    const taken = new Taken(intake, this.#id, await intake.marks(this.#id));
    if (this.#stopping) return LEFT;
    const feed = await this.#connect();
    const session = new Session(feed, (marks) => {
      for (const mark of marks) intake.committed(this.#id, mark);
      this.#lastAckMs = this.#deps.clock.monotonicMs();
    });
    this.#session = session;
    const endCounting = this.#countDropped(feed);
    try {
      log.info("a source is connected", { source: name, server: label });
      this.#told = "";
      const end = await this.#read(session, taken);
      await this.#finish(session);
      return end;
    } finally {
      this.#session = null;
      this.#inHand = 0;
      await session.leave(this.#deps.clock, this.#untaken());
      this.#untaken = () => [];
      endCounting();
    }
  }

  /** @returns what counts for the last time. */
  #countDropped(feed: Feed): () => void {
    const { clock, totals } = this.#deps;
    let counted = 0;
    const count = (): void => {
      const dropped = feed.dropped?.() ?? 0;
      totals.dropped += dropped - counted;
      counted = dropped;
    };
    if (feed.dropped === undefined) return count;
    const end = repeat(clock, COUNT_MS, count);
    return () => {
      end();
      count();
    };
  }

  async #connect(): Promise<Feed> {
    const { broker, clock } = this.#deps;
    const connecting = new AbortController();
    const work = broker.connect(connecting.signal);
    const ends = AbortSignal.any([connecting.signal, this.#ending.signal]);
    const feed = await Promise.race([work, sleep(clock, CONNECT_MS, ends)])
      .finally(() => connecting.abort());
    if (feed) return feed;
    // One that comes after all is not read.
    work.then((feed) => within(clock, LEAVE_MS, feed.close(), undefined)).catch(() => {});
    throw new Error(`no answer within ${CONNECT_MS / 1000} s`);
  }

  async #read(session: Session, taken: Taken): Promise<End> {
    while (!this.#stopping) {
      const held = await this.#whenOpen(session);
      if (held !== null) return held;
      if (this.#stopping) break;
      this.#set("running");
      this.#waitsFor = null;
      const messages = await this.#next(session);
      if (messages === null) break;
      this.#inHand = messages.length;
      let later = messages;
      for (const piece of piecesOf(messages)) {
        later = later.slice(piece.length);
        const end = await this.#take(piece, later, session, taken);
        if (end !== null) return end;
      }
    }
    return LEFT;
  }

  /** Nothing is read while it could not be taken. */
  async #whenOpen(session: Session): Promise<End | null> {
    const { intake } = this.#deps;
    this.#heldSinceMs = null;
    for (;;) {
      const refused = intake.closed() === null ? intake.refusal(1) : CLOSED;
      if (refused === null || this.#stopping) return null;
      const held = await this.#hold(session, refused);
      if (held !== null) return held;
    }
  }

  /** Null: there is nothing more to be read. */
  async #next(session: Session): Promise<readonly Message[] | null> {
    const next = session.feed.next();
    next.catch(() => {});
    const { promise, resolve } = Promise.withResolvers<null>();
    const end = () => resolve(null);
    this.#ending.signal.addEventListener("abort", end, { once: true });
    try {
      return await session.lost.race(Promise.race([next, promise]));
    } finally {
      this.#ending.signal.removeEventListener("abort", end);
    }
  }

  /**
   * Has messages taken, however long that takes. @returns why no more is read; null: go on.
   * @param later what was read with them and comes after them.
   */
  async #take(
    messages: readonly Message[],
    later: readonly Message[],
    session: Session,
    taken: Taken,
  ): Promise<End | null> {
    const { totals } = this.#deps;
    this.#heldSinceMs = null;
    const untaken = (own: readonly Message[]) => {
      // What was given before may have been taken then, or be a dead letter.
      this.#untaken = () => [...own, ...later].filter(({ again }) => again === false);
    };
    untaken(messages);
    const { fresh, before, names } = await taken.look(messages);
    const made = await this.#make(fresh, session);
    if (made.kind !== "made") return made;
    const { chunk, poison, empty, used } = made;
    const stops = this.#stops && poison.length > 0;
    const mine = stops ? messages.slice(0, messages.indexOf(fresh[used]!)) : messages;
    if (!stops) {
      const kept = await this.#keepPoison(poison, session);
      if (kept !== null) return kept;
    }
    untaken(stops ? fresh.slice(used) : []);
    const tickets = [...before];
    if (chunk !== null) {
      const given = fresh.slice(0, used);
      const marked = { ...chunk, messages: taken.messagesOf(given, names.slice(0, used)) };
      const ticket = await this.#give(marked, session);
      if ("kind" in ticket) {
        // A letter is of its whole message, which is not to become another one elsewhere.
        const kept = new Set(stops ? [] : poison.map(({ message }) => message));
        untaken(fresh.filter((message) => !kept.has(message)));
        return ticket;
      }
      taken.took(marked.messages.marks, ticket);
      tickets.push(ticket);
      totals.rows += chunk.rows;
    }
    const dead = stops ? 0 : new Set(poison.map(({ message }) => message)).size;
    totals.empty += empty;
    totals.dead += dead;
    totals.repeated += mine.length - Math.min(used, fresh.length);
    totals.messages += mine.length - empty - dead;
    this.#inHand -= mine.length;
    if (mine.length > 0) session.add(mine, this.#safe(tickets));
    return stops
      ? { kind: "poison", why: `${poison[0]!.message.address}: ${poison[0]!.error}` }
      : null;
  }

  get #stops(): boolean {
    return this.#deps.address.onError === "stop";
  }

  async #make(
    messages: readonly Message[],
    session: Session,
  ): Promise<Made & { kind: "made" } | End> {
    const { reader, address, eventsTable, mayWrite } = this.#deps;
    const named = messages[0]?.table ?? address.table;
    if (named !== null && named !== address.table && !mayWrite(named)) {
      const error =
        `the table ${named} may not be written: it is none of tables, nor this source's`;
      const poison = messages.map((message) => ({
        message,
        index: null,
        bytes: message.body,
        error,
      }));
      return {
        kind: "made",
        chunk: null,
        poison,
        empty: 0,
        used: this.#stops ? 0 : messages.length,
      };
    }
    const table = named === eventsTable() ? null : named;
    for (;;) {
      const made = await makeRows(messages, {
        reader,
        table,
        meta: address.meta,
        stops: this.#stops,
      });
      if (made.kind === "made") return made;
      const held = await this.#hold(session, {
        state: "waiting",
        why: made.why,
        ms: SLOW_RETRY_MS,
      });
      if (held !== null) return held;
    }
  }

  /** Dead letters come before the rows: with the rows a position may be marked that is behind them. */
  async #keepPoison(poison: readonly Poison[], session: Session): Promise<End | null> {
    if (poison.length === 0) return null;
    const { keepLetters, address: { name, table }, eventsTable } = this.#deps;
    const events = eventsTable();
    const letters = poison.map(({ message, index, bytes, error }): SourceLetter => {
      const named = message.table ?? table ?? events;
      const { text, base64 } = letterText(bytes);
      return {
        source: name,
        address: message.address,
        table: named,
        shape: named === events ? "event" : "row",
        batch: letterBatch(name, message),
        index: index ?? 0,
        error,
        row: text,
        base64,
      };
    });
    for (;;) {
      const kept = await keepLetters(letters);
      if (kept.ok) {
        this.#deps.died(letters[0]!.table, letters.length);
        return null;
      }
      const held = await this.#hold(session, {
        state: "waiting",
        why: kept.problem,
        ms: SLOW_RETRY_MS,
      });
      if (held !== null) return held;
    }
  }

  /** The ticket of rows that the intake has, synced where it syncs. */
  async #give(chunk: Parameters<Intake["take"]>[0], session: Session): Promise<Ticket | End> {
    for (;;) {
      const taken = this.#deps.intake.take(chunk);
      const refused = taken.kind === "refused" ? taken : await taken.ticket.kept;
      if (refused === null && taken.kind === "taken") {
        this.#away.succeeded();
        return taken.ticket;
      }
      const held = await this.#hold(session, refused as Refused);
      if (held !== null) return held;
    }
  }

  /** Waits a little with what cannot be taken now. @returns why it is held no longer; null: try again. */
  async #hold(session: Session, why: Refused | Held): Promise<End | null> {
    const { clock, intake, log, address: { name } } = this.#deps;
    const held: Held = "kind" in why
      ? why.why === "full"
        ? { state: "full", why: why.reason, ms: RETRY_MS }
        : { state: "paused", why: null, ms: RETRY_MS }
      : why;
    this.#set(held.state, held.why);
    if (held.state === "waiting" && held.why !== this.#waitsFor) {
      log.warn("a source waits with what it has read", { source: name, reason: held.why });
      this.#waitsFor = held.why;
    }
    const nowMs = clock.monotonicMs();
    this.#heldSinceMs ??= nowMs;
    if (this.#stopping) return LEFT;
    if (nowMs - this.#heldSinceMs >= HOLD_MS) {
      const foreseen = intake.closed() !== null || intake.refusal(1) !== null;
      return { kind: "held", why: { ...held, foreseen } };
    }
    await session.lost.race(this.#sleep(held.ms));
    return this.#stopping ? LEFT : null;
  }

  /**
   * The broker has the messages again. A queue may throw one away that was returned often: so they are not
   * asked for again before there is room, or, where that cannot be seen, for a while that grows.
   */
  async #stayAway(why: Held & { readonly foreseen: boolean }): Promise<void> {
    const { intake, log, address: { name } } = this.#deps;
    log.warn("a source is left until there is room again", {
      source: name,
      reason: why.why ?? why.state,
    });
    this.#set(why.state, why.why);
    if (!why.foreseen) return await this.#sleep(this.#away.failed());
    while (!this.#stopping && (intake.closed() !== null || intake.refusal(1) !== null)) {
      await this.#sleep(RETRY_MS);
    }
  }

  /** Resolves when rows may be acknowledged. Never where they were given up. */
  async #safe(tickets: readonly Ticket[]): Promise<void> {
    const { ack, clock } = this.#deps;
    const synced = ack() === "disk";
    for (const ticket of tickets) {
      if (synced && ticket.reached === "disk") continue;
      while (await ticket.settled(SETTLE_MS) === null) {
        // Given up at an end, or very slow: either way not safe yet.
        await sleep(clock, SLOW_RETRY_MS);
        if (this.#stopping) await this.#drained;
        if (this.#stopping) return await new Promise<never>(() => {});
      }
    }
  }

  /** At an end: what is safe, or becomes so in time, is acknowledged. */
  async #finish(session: Session): Promise<void> {
    const { clock } = this.#deps;
    const late = this.#drained.then(() => sleep(clock, LEAVE_MS));
    await session.lost.race(Promise.race([session.idle(), late])).catch(() => {});
  }

  #sleep(ms: number): Promise<void> {
    return sleep(this.#deps.clock, ms, this.#ending.signal);
  }
}

/** Why a connection is not used any more. */
type End =
  | { readonly kind: "left" }
  | { readonly kind: "poison"; readonly why: string }
  /** What it gave cannot be taken for long. `foreseen`: the intake says so before it is given anything. */
  | { readonly kind: "held"; readonly why: Held & { readonly foreseen: boolean } };

interface Held {
  readonly state: "full" | "paused" | "waiting";
  readonly why: string | null;
  readonly ms: number;
}

const LEFT: End = { kind: "left" };
const CLOSED: Held = { state: "paused", why: null, ms: RETRY_MS };

// ── What was taken before.

/** Tells messages that come again from those that come for the first time. */
class Taken {
  readonly #intake: Intake;
  readonly #id: string;
  readonly #marks: Map<string, TakenMark>;

  constructor(intake: Intake, id: string, marks: ReadonlyMap<string, TakenMark>) {
    this.#intake = intake;
    this.#id = id;
    this.#marks = new Map(marks);
  }

  /** @returns with the tickets of those that were taken before, and the names of the others; null: it has none. */
  async look(messages: readonly Message[]) {
    const all = messages.map(nameOf);
    const asked = new Set<string>();
    messages.forEach(({ again }, at) => {
      const name = all[at]!;
      if (name !== null && again !== false) asked.add(name);
    });
    const known = asked.size === 0 ? NONE : await this.#intake.taken(this.#id, [...asked]);
    const before = new Set<Ticket>();
    const seen = new Set<string>();
    const fresh: Message[] = [];
    const names: (string | null)[] = [];
    messages.forEach((message, at) => {
      const name = all[at]!;
      const again = name !== null && message.again !== false;
      const ticket = again ? known.get(name) ?? null : this.#ticketOf(message);
      if (ticket !== null) before.add(ticket);
      // Twice in one go: the first is on its way with the others.
      const twice = again && seen.has(name);
      if (asked.size > 0 && name !== null) seen.add(name);
      if (ticket !== null || twice) return;
      fresh.push(message);
      names.push(name);
    });
    return { fresh, before, names };
  }

  /** Null for one that is above all that was taken. */
  #ticketOf(message: Message): Ticket | null {
    const mark = this.#marks.get(message.partition);
    if (mark === undefined || message.position === undefined) return null;
    return comparePositions(message.position, mark.position) <= 0 ? mark.ticket : null;
  }

  /** What a chunk says of the messages whose rows it has. */
  messagesOf(messages: readonly Message[], names: readonly (string | null)[]) {
    const ids = new Set<string>();
    for (const name of names) if (name !== null) ids.add(name);
    return { source: this.#id, marks: marksOf(messages), ids: [...ids] };
  }

  took(marks: readonly Mark[], ticket: Ticket): void {
    for (const { partition, position } of marks) this.#marks.set(partition, { position, ticket });
  }
}

const NONE: ReadonlyMap<string, Ticket> = new Map();

/** The newest of each partition. */
function newestOf(messages: readonly Message[]): Message[] {
  const newest = new Map<string, Message>();
  let last: Message | undefined;
  for (const message of messages) {
    // Neighbours mostly are of one.
    if (last !== undefined && last.partition !== message.partition) {
      newest.set(last.partition, last);
    }
    last = message;
  }
  if (last !== undefined) newest.set(last.partition, last);
  return [...newest.values()];
}

function marksOf(messages: readonly Message[]): Mark[] {
  return newestOf(messages).flatMap(({ partition, position }) =>
    position === undefined ? [] : [{ partition, position }]
  );
}

/** What a message is remembered by; null: by its position, or not at all. */
function nameOf(message: Message): string | null {
  const { id, counted, body } = message;
  if (id === undefined || message.position !== undefined) return null;
  if (counted) return `${id} ${body.length.toString(36)}.${nodeZlib().crc32(body).toString(36)}`;
  const hash = nodeCrypto().createHash("sha256").update(`${id.length} ${id}`).update(body);
  return hash.digest("base64url").slice(0, 22);
}

/**
 * What marks and ids are kept under. A source of the same name that reads something else is another one:
 * its positions would hide messages.
 */
function identityOf(address: SourceAddress): string {
  const { name, table: _, prefetch: _p, meta: _m, onError: _o, user: _u, ...rest } = address;
  const { password: _w, ca: _a, cert: _c, key: _k, tls: _t, ...place } = rest;
  const hash = nodeCrypto().createHash("sha256").update(JSON.stringify(place)).digest("hex");
  return `${name}#${hash.slice(0, 8)}`;
}

/** A letter written twice, because the message came again before it was acknowledged, counts once. */
function letterBatch(source: string, { address, body }: Message): string {
  const bytes = nodeCrypto().createHash("sha256").update(`shishi source 1\n${source}\n${address}\n`)
    .update(body).digest().subarray(0, 16);
  bytes[6] = 0x80 | (bytes[6]! & 0x0f);
  bytes[8] = 0x80 | (bytes[8]! & 0x3f);
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

// ── What one connection has given, and what of it is acknowledged.

interface Entry {
  readonly messages: readonly Message[];
  safe: boolean;
}

/** The list of what was read together, oldest first; its safe beginning is acknowledged. */
class Session {
  /** Ends when an acknowledgement fails: then the connection is lost. */
  readonly lost = new Ending();
  readonly #acknowledged: (marks: readonly Mark[]) => void;
  readonly #entries: Entry[] = [];
  #acknowledging = false;
  #ended = false;
  #left: Promise<unknown> | null = null;
  #idle = Promise.withResolvers<void>();

  /** @param acknowledged the broker has it that all is safe up to these marks, and what has none. */
  constructor(readonly feed: Feed, acknowledged: (marks: readonly Mark[]) => void) {
    this.#acknowledged = acknowledged;
    this.#idle.resolve();
  }

  get unacked(): number {
    return this.#entries.reduce((sum, { messages }) => sum + messages.length, 0);
  }

  add(messages: readonly Message[], safe: Promise<void>): void {
    const entry: Entry = { messages, safe: false };
    if (this.#entries.length === 0) this.#idle = Promise.withResolvers();
    this.#entries.push(entry);
    void safe.then(() => {
      entry.safe = true;
      if (!this.#acknowledging) void this.#acknowledge();
    });
  }

  /** Resolves when all is acknowledged. */
  idle(): Promise<void> {
    return this.#idle.promise;
  }

  /** Nothing is acknowledged any more, and the broker is left. @param untaken as of `Feed.close`. */
  leave(clock: Clock, untaken: readonly Message[]): Promise<unknown> {
    this.#ended = true;
    const left = () => this.feed.close(untaken).catch(() => {});
    return this.#left ??= within(clock, LEAVE_MS, left(), undefined);
  }

  async #acknowledge(): Promise<void> {
    this.#acknowledging = true;
    while (!this.#ended && this.#entries[0]?.safe) {
      const open = this.#entries.findIndex(({ safe }) => !safe);
      const count = open < 0 ? this.#entries.length : open;
      const messages = this.#entries.slice(0, count).flatMap(({ messages }) => messages);
      try {
        await this.feed.acknowledge(newestOf(messages));
      } catch (error) {
        this.lost.end(error);
        return;
      }
      this.#entries.splice(0, count);
      this.#acknowledged(marksOf(messages));
    }
    this.#acknowledging = false;
    if (this.#entries.length === 0) this.#idle.resolve();
  }
}

/**
 * Several servers as one. The first healthy one in the configured order is used; a server that cannot
 * be reached is passed over within the same call and comes back only after it answered a ping, so
 * that no batch has to wait for its timeout again. When all are unhealthy, all are tried in order.
 *
 * What makes a server unhealthy is trouble without an exception code (network, timeout, a proxy) and what
 * ClickHouse says of itself: read-only, full, out of memory, not this user. A table that one server lacks,
 * or that has too many parts there, is passed over on that server alone, and tried again after a while.
 * Whatever speaks of the rows or of the statement would follow them to the next server.
 * Servers that do not replicate to each other share no deduplication: a batch whose answer was lost
 * may then be on both.
 */

import type { Answered, Ask, Clock, Inserter, Log, Trouble } from "../contracts.ts";
import { Backoff } from "../kernel/backoff.ts";
import type { Query, Row } from "./query.ts";
import { mayBeStored, reachOf } from "./verdict.ts";

/** One server. */
export interface Node {
  readonly label: string;
  readonly inserter: Inserter;
  /** Its `ping` has a short timeout of its own. */
  readonly query: Query;
  readonly ask: Ask;
}

export interface Failover {
  readonly inserter: Inserter;
  readonly query: Query;
  /**
   * Goes by the health that INSERTs and pings have found and changes none: a question that is too heavy
   * for a server must not turn the rows away from it.
   */
  readonly ask: Ask;
  /** As `query.rows`; where a server has none, the next is asked. */
  found(sql: string, signal?: AbortSignal): Promise<Answered<readonly Row[]>>;
  /** Stops the pings. */
  close(): void;
}

/** Before a ping; spread, so that the collectors of a fleet do not come back in step. */
const PING_BACKOFF = { leastMs: 250, mostMs: 30_000 };

/** Tables that a server is passed over for; more are forgotten, and cost an attempt. */
const MOST_REFUSED = 256;

interface Health {
  readonly node: Node;
  /** Tables that it does not take for now. */
  readonly refuses: Map<string, { readonly backoff: Backoff; untilMs: number }>;
  healthy: boolean;
  /** Counts how often it fell since it last did some work. */
  readonly backoff: Backoff;
  cancel: () => void;
}

export function createFailover(
  tools: { readonly nodes: readonly Node[]; readonly clock: Clock; readonly log: Log },
): Failover {
  const { nodes, clock, log } = tools;
  const all: readonly Health[] = nodes.map((node) => ({
    node,
    healthy: true,
    refuses: new Map(),
    backoff: new Backoff(clock, PING_BACKOFF),
    cancel: () => {},
  }));
  const closing = new AbortController();

  function candidates(): readonly Health[] {
    const healthy = all.filter((health) => health.healthy);
    return healthy.length > 0 ? healthy : all;
  }

  function works(health: Health): void {
    health.backoff.succeeded();
    if (health.healthy) return;
    health.healthy = true;
    health.cancel();
    log.info("ClickHouse is back", { server: health.node.label });
  }

  function fell(health: Health, message: string): void {
    // A single server has no other to stand in for it, and the caller's retries are the probe.
    if (all.length === 1 || !health.healthy || closing.signal.aborted) return;
    health.healthy = false;
    log.warn("ClickHouse is passed over", { server: health.node.label, error: message });
    pingLater(health);
  }

  function pingLater(health: Health): void {
    health.cancel = clock.after(health.backoff.failed(), () => {
      void health.node.query.ping(closing.signal).then((alive) => {
        if (closing.signal.aborted || health.healthy) return;
        if (!alive) return pingLater(health);
        // Its backoff stays: a server that answers pings and nothing else is asked ever more rarely.
        health.healthy = true;
        log.info("ClickHouse is back", { server: health.node.label });
      });
    });
  }

  /** It did some work, for this table. */
  function took(health: Health, table: string): void {
    if (health.refuses.delete(table)) {
      log.info("ClickHouse takes a table again", { server: health.node.label, table });
    }
  }

  function refused(health: Health, table: string, message: string): void {
    if (all.length === 1) return;
    const known = health.refuses.get(table);
    if (known === undefined) {
      log.warn("ClickHouse is passed over for a table", {
        server: health.node.label,
        table,
        error: message,
      });
    }
    const backoff = known?.backoff ?? new Backoff(clock, PING_BACKOFF);
    health.refuses.delete(table);
    health.refuses.set(table, { backoff, untilMs: clock.monotonicMs() + backoff.failed() });
    for (const oldest of health.refuses.keys()) {
      if (health.refuses.size <= MOST_REFUSED) break;
      health.refuses.delete(oldest);
    }
  }

  /** Those that may take a table's rows, those that refused it of late last. */
  function candidatesFor(table: string): readonly Health[] {
    const nowMs = clock.monotonicMs();
    const refuses = ({ refuses }: Health) => (refuses.get(table)?.untilMs ?? 0) > nowMs;
    const some = candidates();
    return [...some.filter((health) => !refuses(health)), ...some.filter(refuses)];
  }

  /**
   * Asks one after the other until one answers for all; `trouble` says what is wrong with an answer, or
   * null. When none does: what the first ClickHouse said, for what answers tells more than silence.
   */
  async function each<T>(
    signal: AbortSignal | undefined,
    attempt: (node: Node) => Promise<T>,
    trouble: (answer: T) => Trouble | null,
    table?: string,
  ): Promise<T> {
    let last: T | undefined;
    let said: T | undefined;
    for (const health of table === undefined ? candidates() : candidatesFor(table)) {
      last = await attempt(health.node);
      // An aborted attempt says nothing about the server.
      if (signal?.aborted) return last;
      const wrong = trouble(last);
      const reach = wrong === null ? null : reachOf(wrong);
      if (reach === null || reach === "table" && table === undefined) {
        works(health);
        if (wrong === null && table !== undefined) took(health, table);
        return last;
      }
      if (wrong!.code !== 0) said ??= last;
      if (reach === "server") fell(health, wrong!.message);
      else refused(health, table!, wrong!.message);
    }
    return said ?? last as T;
  }

  const failed = <T>(answer: Answered<T>): Trouble | null =>
    answer.ok ? null : { code: answer.code, message: answer.problem };
  const reaches = <T>(answer: Answered<T>) => {
    const wrong = failed(answer);
    return wrong !== null && reachOf(wrong) === "server";
  };

  return {
    inserter: {
      async insert(request, signal) {
        // One of them may have it, whatever the last one says.
        let unknown = false;
        const verdict = await each(
          signal,
          async (node) => {
            const verdict = await node.inserter.insert(request, signal);
            unknown ||= mayBeStored(verdict);
            return verdict;
          },
          (verdict) => verdict.kind === "transient" || verdict.kind === "table" ? verdict : null,
          request.table,
        );
        const open = verdict.kind === "transient" || verdict.kind === "table" ||
          verdict.kind === "split";
        return open ? { ...verdict, unknown } : verdict;
      },
      judgeOf: (table, view, code, signal) =>
        candidatesFor(table)[0]!.node.inserter.judgeOf?.(table, view, code, signal) ??
          Promise.resolve(null),
      sieve: (request, signal) =>
        (candidatesFor(request.table)[0] as Health).node.inserter.sieve(request, signal),
    },
    query: {
      rows: (sql, signal) => each(signal, (node) => node.query.rows(sql, signal), failed),
      word: (sql, signal) => each(signal, (node) => node.query.word(sql, signal), failed),
      command: (sql, signal) => each(signal, (node) => node.query.command(sql, signal), failed),
      ping: (signal) =>
        each(
          signal,
          (node) => node.query.ping(signal),
          (alive) => alive ? null : { code: 0, message: "no pong" },
        ),
    },
    async found(sql, signal) {
      let none: Answered<readonly Row[]> | undefined;
      for (const health of candidates()) {
        const answer = await health.node.query.rows(sql, signal);
        if (signal?.aborted) return answer;
        const wrong = failed(answer);
        if (wrong !== null && reachOf(wrong) === "server") fell(health, wrong.message);
        else works(health);
        if (answer.ok && answer.value.length > 0) return answer;
        if (none === undefined || answer.ok && !none.ok) none = answer;
      }
      return none!;
    },
    async ask(select, signal) {
      let last: Awaited<ReturnType<Ask>> | undefined;
      for (const { node } of candidates()) {
        last = await node.ask(select, signal);
        if (signal.aborted || !reaches(last)) break;
      }
      return last!;
    },
    close() {
      closing.abort();
      for (const health of all) health.cancel();
    },
  };
}

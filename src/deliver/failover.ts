/**
 * Several servers as one. The first healthy one in the configured order is used; a server that cannot
 * be reached is passed over within the same call and comes back only after it answered a ping, so
 * that no batch has to wait for its timeout again. When all are unhealthy, all are tried in order.
 *
 * Only trouble without an exception code (network, timeout, a proxy) makes a server unhealthy. What
 * ClickHouse itself says, too many parts or no memory, would follow the rows to the next server.
 * Servers that do not replicate to each other share no deduplication: a batch whose answer was lost
 * may then be on both.
 */

import type { Answered, Ask, Clock, Inserter, Log } from "../contracts.ts";
import { Backoff } from "../kernel/backoff.ts";
import type { Query } from "./query.ts";

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
  /** Stops the pings. */
  close(): void;
}

/** Before a ping; spread, so that the collectors of a fleet do not come back in step. */
const PING_BACKOFF = { leastMs: 250, mostMs: 30_000 };

interface Health {
  readonly node: Node;
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

  /** Asks one after the other until one answers; `unreachable` says what went wrong, or null. */
  async function each<T>(
    signal: AbortSignal | undefined,
    attempt: (node: Node) => Promise<T>,
    unreachable: (answer: T) => string | null,
  ): Promise<T> {
    let last: T | undefined;
    for (const health of candidates()) {
      last = await attempt(health.node);
      // An aborted attempt says nothing about the server.
      if (signal?.aborted) return last;
      const message = unreachable(last);
      if (message === null) {
        works(health);
        return last;
      }
      fell(health, message);
    }
    return last as T;
  }

  const failed = <T>(answer: Answered<T>) => answer.ok || answer.code !== 0 ? null : answer.problem;

  return {
    inserter: {
      insert: (request, signal) =>
        each(
          signal,
          (node) => node.inserter.insert(request, signal),
          (verdict) => verdict.kind === "transient" && verdict.code === 0 ? verdict.message : null,
        ),
      sieve: (request, signal) => (candidates()[0] as Health).node.inserter.sieve(request, signal),
    },
    query: {
      rows: (sql, signal) => each(signal, (node) => node.query.rows(sql, signal), failed),
      command: (sql, signal) => each(signal, (node) => node.query.command(sql, signal), failed),
      ping: (signal) =>
        each(signal, (node) => node.query.ping(signal), (alive) => alive ? null : "no pong"),
    },
    async ask(select, signal) {
      let last: Awaited<ReturnType<Ask>> | undefined;
      for (const { node } of candidates()) {
        last = await node.ask(select, signal);
        if (signal.aborted || last.ok || last.code !== 0) break;
      }
      return last!;
    },
    close() {
      closing.abort();
      for (const health of all) health.cancel();
    },
  };
}

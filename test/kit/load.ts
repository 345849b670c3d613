/**
 * Clients that post events and keep the books: every event has an id of its own, and each id is
 * filed under what the collector answered. So a test can ask ClickHouse for exactly the acknowledged
 * ones, and for none of the others.
 */

export interface Books {
  /** Ids of events that were answered with 200 or 202. */
  readonly acknowledged: Set<string>;
  /** Ids of events of refused requests (429, 503, …) that were not sent again. */
  readonly refused: Set<string>;
  /** Ids whose request got no answer: they may be stored or not. */
  readonly unanswered: Set<string>;
  /** How often each status was seen. */
  readonly statuses: Map<number, number>;
}

export interface LoadOptions {
  readonly url: string;
  readonly clients: number;
  readonly events: number;
  readonly eventsPerRequest: number;
  /** All clients together; as fast as they can where it is not given. */
  readonly rowsPerSecond?: number;
  /** A refused request is sent again, with the same ids, until it is taken. */
  readonly insist?: boolean;
  readonly eventTypes?: readonly string[];
  /** `/events` unless given. */
  readonly path?: string;
  /** What is sent for the n-th id; an analytics event unless given. */
  readonly row?: (id: string, n: number) => unknown;
  readonly signal?: AbortSignal;
  /** The runtime's own unless given. */
  readonly fetch?: (url: string, init: RequestInit) => Promise<Response>;
}

/** Runs until all events are sent once, or the signal says so. */
export async function load(options: LoadOptions): Promise<Books> {
  const books: Books = {
    acknowledged: new Set(),
    refused: new Set(),
    unanswered: new Set(),
    statuses: new Map(),
  };
  let sent = 0;
  const startedMs = performance.now();
  const types = options.eventTypes ?? ["click", "view", "buy"];
  const row = options.row ?? ((id, n) => ({
    id,
    eventType: types[n % types.length],
    userId: `u${n % 1000}`,
    properties: { n, page: "/pricing", nested: { a: [1, 2] } },
  }));

  const client = async () => {
    while (sent < options.events && !options.signal?.aborted) {
      const first = sent;
      const count = Math.min(options.eventsPerRequest, options.events - first);
      sent += count;
      if (options.rowsPerSecond !== undefined) {
        const dueMs = startedMs + (first / options.rowsPerSecond) * 1000;
        await pause(dueMs - performance.now());
      }
      const ids = Array.from({ length: count }, () => crypto.randomUUID());
      const body = ids.map((id, at) => JSON.stringify(row(id, first + at))).join("\n");
      await deliver(ids, body);
    }
  };

  const deliver = async (ids: readonly string[], body: string) => {
    for (;;) {
      let status: number;
      try {
        const response = await (options.fetch ?? fetch)(options.url + (options.path ?? "/events"), {
          method: "POST",
          body,
        });
        await response.arrayBuffer();
        status = response.status;
      } catch {
        for (const id of ids) books.unanswered.add(id);
        return;
      }
      books.statuses.set(status, (books.statuses.get(status) ?? 0) + 1);
      if (status === 200 || status === 202) {
        for (const id of ids) books.acknowledged.add(id);
        return;
      }
      if (!options.insist || options.signal?.aborted) {
        for (const id of ids) books.refused.add(id);
        return;
      }
      await pause(100);
    }
  };

  await Promise.all(Array.from({ length: options.clients }, client));
  return books;
}

function pause(ms: number): Promise<void> {
  return ms <= 0 ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, ms));
}

/** Every id of the table with how often it is there; none where nobody has made the table yet. */
export async function storedIds(
  clickhouse: { query(sql: string): Promise<string> },
  table = "analytics_events",
): Promise<Map<string, number>> {
  if ((await clickhouse.query(`EXISTS TABLE ${table}`)).trim() === "0") return new Map();
  const text = await clickhouse.query(
    `SELECT id, count() FROM ${table} GROUP BY id FORMAT TabSeparated`,
  );
  const ids = new Map<string, number>();
  for (const line of text.split("\n")) {
    const [id, times] = line.split("\t");
    if (id) ids.set(id, Number(times));
  }
  return ids;
}

export interface Comparison {
  /** Acknowledged but not there. */
  readonly missing: number;
  /** There more than once. */
  readonly doubled: number;
  /** Refused and there all the same. */
  readonly uninvited: number;
}

export function compare(books: Books, stored: ReadonlyMap<string, number>): Comparison {
  let missing = 0;
  let doubled = 0;
  let uninvited = 0;
  for (const id of books.acknowledged) if (!stored.has(id)) missing++;
  for (const times of stored.values()) if (times > 1) doubled++;
  for (const id of books.refused) if (stored.has(id)) uninvited++;
  return { missing, doubled, uninvited };
}

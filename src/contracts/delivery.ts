/** batch → deliver: how a batch is taken to ClickHouse, and what an answer of ClickHouse means. */

import type { Batch, Shape } from "./rows.ts";

/** A row that ClickHouse refuses for good. */
export interface DeadRow {
  /** 0-based place in the batch. */
  readonly index: number;
  /** ClickHouse's exception code. */
  readonly code: number;
  readonly message: string;
}

/** What became of one attempt to deliver a whole batch. */
export type Delivery =
  /** Every row's fate is known: `rows - dead.length` are stored. */
  | { readonly kind: "settled"; readonly dead: readonly DeadRow[]; readonly inserts: number }
  /** The server could not take it now; says nothing about the rows. Try again. */
  | Trouble & { readonly kind: "transient"; readonly retryAfterMs?: number }
  /** The table cannot take it (missing, column dropped, no rights): hold and probe. */
  | Trouble & { readonly kind: "table" };

export interface Trouble {
  /** ClickHouse's exception code, 0 where there is none (network, timeout, proxy). */
  readonly code: number;
  readonly message: string;
}

/** Takes a batch to ClickHouse. Retrying is the caller's work; progress within a batch is the sink's. */
export interface Sink {
  deliver(batch: Batch, signal: AbortSignal): Promise<Delivery>;
}

/** A server that is spoken to over HTTP, and who we are there. */
export interface Endpoint {
  /** Scheme, host and port: no credentials, no path, no trailing slash. */
  readonly url: string;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  /** Safe to log, e.g. `http://host:8123/database`. */
  readonly label: string;
}

/** One INSERT of some rows of a batch. */
export interface InsertRequest {
  readonly table: string;
  readonly shape: Shape;
  /** NDJSON; pieces in order, each ends where a row does. */
  readonly body: readonly Uint8Array[];
  readonly rows: number;
  /** `insert_deduplication_token`: the batch's id, or derived from it. */
  readonly token: string;
}

/** What one answer of ClickHouse means; decided by its exception code, not by the HTTP status. */
export type Verdict =
  | { readonly kind: "stored" }
  | Trouble & { readonly kind: "transient"; readonly retryAfterMs?: number }
  | Trouble & {
    readonly kind: "row";
    /** 1-based row that the server names, or null. */
    readonly row: number | null;
  }
  | Trouble & { readonly kind: "table" }
  /** 252 "too many partitions": fewer rows at once will pass. */
  | Trouble & { readonly kind: "split" }
  /** 115: this server does not know the setting; drop it for this server and send again. */
  | Trouble & { readonly kind: "unknown-setting"; readonly setting: string };

/** One server, one attempt. Never throws. */
export interface Inserter {
  insert(request: InsertRequest, signal: AbortSignal): Promise<Verdict>;
  /** Which rows the server can parse, 0-based, without inserting; `null` where it cannot tell. */
  sieve(request: InsertRequest, signal: AbortSignal): Promise<readonly number[] | null>;
}

/** deliver → admit: what is known of the tables that rows are written to. */

/** The columns of a table, as far as they are known. */
export interface Columns {
  /** Names that an INSERT may give: neither MATERIALIZED nor ALIAS. */
  readonly names: ReadonlySet<string>;
  /** Equal exactly when names and types are equal, whatever their order. */
  readonly fingerprint: string;
}

/** What admit may ask about tables. `unknown`: ClickHouse could not be asked yet; rows are taken. */
export interface Tables {
  /** At once, from memory; starts a background look-up where nothing fresh is known. */
  columns(table: string): Columns | "missing" | "unknown";
  /** As `columns`, but waits up to `waitMs` for a first answer, so that a first POST meets a 404. */
  lookUp(table: string, waitMs: number): Promise<Columns | "missing" | "unknown">;
  /** The answer of the server itself, not from memory; `unknown` where it cannot be asked. */
  refresh(table: string): Promise<Columns | "missing" | "unknown">;
}

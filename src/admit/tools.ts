/** What decoding takes besides the body: kept from request to request, and used by one at a time. */

import type { Columns } from "../contracts.ts";
import { EventReader } from "./event.ts";
import type { RowReader } from "./reader.ts";
import { TableRowReader } from "./row.ts";
import { Scanner } from "./scanner.ts";
import { Types } from "./types.ts";

/** What the rows of a body are. */
export type Kind =
  | "event"
  /** `columns` null: not known. */
  | { readonly table: string; readonly columns: Columns | null };

export class Tools {
  readonly types = new Types();
  readonly scanner = new Scanner(this.types);
  readonly #events = new EventReader(this.scanner, this.types);

  reader(kind: Kind): RowReader {
    if (kind === "event") return this.#events;
    return new TableRowReader(this.scanner, kind.table, kind.columns);
  }
}

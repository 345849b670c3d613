/** The disk as the contracts describe it; kept here until every importer names them. */

export type { FilePart, FileParts, Files, OpenFile } from "../contracts.ts";

/**
 * ClickHouse's exception codes (ErrorCodes.cpp; they never change their meaning), sorted by what they
 * mean for an INSERT. A code that stands in no group is transient: waiting loses nothing, and a
 * wrong guess in the other direction throws rows away.
 */

/** The content of a row: the same row fails for ever, other rows do not. */
export const ROW_CODES: ReadonlySet<number> = new Set([
  // JSON or text that does not parse: text, escape sequence, quoted string, input assertion, end of
  // the input within a row, trailing data, array, map, boolean.
  ...[6, 25, 26, 27, 32, 33, 130, 467, 563, 632],
  // Values that do not parse as the column's type: date, time, number, UUID, domains, IPv4, IPv6, enum.
  ...[38, 41, 72, 376, 441, 675, 676, 691],
  // Values that parse and do not fit: type, bounds, conversion, string and array sizes, decimals.
  ...[19, 53, 69, 70, 128, 131, 321, 407],
  // Unknown or repeated keys, sizes of Nested columns that differ, nesting that is too deep.
  ...[117, 120, 190, 306],
  // null where there is no default; a CHECK constraint; DEFAULT expressions that divide or throw.
  ...[349, 469, 153, 395],
]);

/** The table, the statement or our rights: no row passes until somebody changes something there. */
export const TABLE_CODES: ReadonlySet<number> = new Set([
  // No such table, database, column; a column too many or too few.
  ...[60, 81, 218, 8, 10, 16, 20, 44, 47],
  // Types, functions and syntax that this server lacks, and writing that the table's engine lacks.
  ...[1, 36, 43, 46, 48, 50, 62, 63, 73, 344],
  // Who we are and what we may do.
  ...[192, 193, 194, 195, 291, 492, 497, 516, 720],
  // Writing is forbidden: to us, to the table for a while (a replica without Keeper), or for good.
  ...[164, 242, 774],
  // Limits and settings of the user's profile that refuse this statement.
  ...[158, 161, 307, 396, 452, 471, 472],
]);

/** The server, for now. Listed where the text of the answer could look like a row's. */
export const TRANSIENT_CODES: ReadonlySet<number> = new Set([
  // Time: too slow, timed out, cancelled, shutting down, overloaded, over quota.
  ...[159, 160, 209, 236, 394, 473, 734, 735, 745, 201],
  // Too much at once: queries, connections, memory, parts (its other meaning is `split`).
  ...[202, 203, 173, 241, 252, 362, 364, 700, 749, 762],
  // Disk, network, replicas, Keeper, remote storage.
  ...[74, 75, 76, 95, 96, 210, 225, 243, 244, 254, 279, 285, 286, 319, 341, 499, 519, 999],
  // What arrived was damaged on the way (compression), which says nothing about the rows.
  ...[89, 271, 354, 561],
  // Exceptions of libraries: files, sockets, memory.
  ...[1000, 1001, 1002],
]);

/**
 * A value as it was given, before anybody has read it, and how to speak of it: the vocabulary that
 * the sources (flags, environment, credentials, file) share.
 */

import type { SettingSpec } from "./spec.ts";

/** In the order in which they win. */
export type Source = "flag" | "environment" | "credential" | "file";

export interface Given {
  readonly spec: SettingSpec;
  readonly source: Source;
  /** Begins a message about it: `--table`, `table (environment SHISHI_TABLE)`, `table (file x)`. */
  readonly label: string;
  /** The value, or with `file` the path of the file that holds it. */
  readonly text: string;
  readonly file: boolean;
}

/** What one source had to say. */
export interface Gathered {
  readonly givens: readonly Given[];
  /** One line each. */
  readonly problems: readonly string[];
}

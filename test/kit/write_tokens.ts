/** Write tokens as the settings have them, from the text that a user types. */

import type { WriteToken } from "../../src/contracts.ts";
import { writeTokens } from "../../src/settings/kinds.ts";

/** Throws what is wrong with the text. */
export function writersOf(text: string): readonly WriteToken[] {
  const parsed = writeTokens.parse(text);
  if (!parsed.ok) throw new Error(parsed.found ?? "no tokens");
  return parsed.value;
}

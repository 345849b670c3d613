/** The scanner by itself, without what `Scanner` puts around it. */

import { Buffer } from "node:buffer";
import { SCANNER_WASM } from "../../src/admit/scanner_wasm.ts";

const PAGE_BYTES = 64 * 1024;
const { exports } = new WebAssembly.Instance(
  new WebAssembly.Module(Buffer.from(SCANNER_WASM, "base64")),
  { host: { refill: () => {} } },
);
const memory = exports["memory"] as WebAssembly.Memory;
memory.grow(16);
const bytes = new Uint8Array(memory.buffer);
const skipValue = exports["skipValue"] as (at: number, depth: number) => number;
const input = (exports["INPUT"] as WebAssembly.Global).value as number;
const guard = (exports["GUARD"] as WebAssembly.Global).value as number;
/** Levels of nesting that it passes. */
export const DEEPEST = (exports["DEEPEST"] as WebAssembly.Global).value as number;

/** Whether all of `text` is passed as one value. What stands behind it must not matter. */
export function passes(text: Uint8Array): boolean {
  if (text.length > 8 * PAGE_BYTES) throw new Error(`${text.length} bytes are too many`);
  bytes.fill(0x22, input, input + text.length + 2 * guard);
  bytes.set(text, input);
  bytes.fill(0, input + text.length, input + text.length + guard);
  return skipValue(input, 0) === input + text.length;
}

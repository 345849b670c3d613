/**
 * Modules of the runtime that take long to load, each loaded when it is wanted first: together they
 * were a fifth of the time from the start to the first answer. Every room may import this file.
 */

import process from "node:process";

/** 3 ms. */
export const nodeCrypto = once(() => process.getBuiltinModule("node:crypto"));
/** 2 ms. */
export const nodeNet = once(() => process.getBuiltinModule("node:net"));
/** 1 ms. */
export const nodeUtil = once(() => process.getBuiltinModule("node:util"));
/** 3 ms: it brings streams with it. */
export const nodeZlib = once(() => process.getBuiltinModule("node:zlib"));

function once<T>(load: () => T): () => T {
  let loaded: T | null = null;
  return () => loaded ??= load();
}

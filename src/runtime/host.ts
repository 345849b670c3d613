/**
 * Which runtime this is, and what a process is told from outside. The only room that knows two
 * runtimes exist; everything else meets web standards and `node:` modules, which both provide.
 */

import process from "node:process";

interface BunLike {
  readonly version: string;
  /** The entry. */
  readonly main: string;
  serve(options: unknown): unknown;
}
interface DenoLike {
  readonly version: { readonly deno: string };
  readonly build: { readonly standalone?: boolean };
  serve(options: unknown, handler: unknown): unknown;
  createHttpClient?(options: unknown): unknown;
  dlopen?(name: string, symbols: unknown): { readonly symbols: unknown };
  readonly UnsafePointer: {
    of(bytes: Uint8Array): unknown;
    value(pointer: unknown): bigint;
  };
}

const globals = globalThis as unknown as { Bun?: BunLike; Deno?: DenoLike };

/** Set on Bun (and in the compiled binary), else undefined. */
export const bun: BunLike | undefined = globals.Bun;
/** Set on Deno, else undefined. */
export const deno: DenoLike | undefined = globals.Bun ? undefined : globals.Deno;

/** For `--version`, metrics and status, e.g. `bun 1.4.5`. */
export const runtimeName: string = bun
  ? `bun ${bun.version}`
  : deno
  ? `deno ${deno.version.deno}`
  : `node ${process.versions.node}`;

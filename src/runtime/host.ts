/**
 * Which runtime this is, and what a process gets from outside. The only room that knows two
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
  listen(options: unknown): { readonly addr: { readonly port: number }; close(): void };
  /** There only with `--unstable-net`, or that in the settings file. */
  readonly listenDatagram?: unknown;
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

/** Why several collectors cannot listen on one address here, for `share-port`; null where they can. */
export function unshareable(): string | null {
  if (process.platform !== "linux") {
    return `expected Linux, where the system distributes connections, got ${process.platform}`;
  }
  // Asked to without the flag, it ends the process.
  return deno === undefined || deno.listenDatagram !== undefined
    ? null
    : "expected Deno to be started with --unstable-net";
}

/** For `--version`, metrics and status, e.g. `bun 1.4.5`. */
export const runtimeName: string = bun
  ? `bun ${bun.version}`
  : deno
  ? `deno ${deno.version.deno}`
  : `node ${process.versions.node}`;

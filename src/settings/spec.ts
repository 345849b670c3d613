/**
 * What a row of the settings table is, and what it is called in each place. A row is data: the parser,
 * `--help` and docs/settings.md are all made from it, so that none of them can tell another story.
 */

/** The outcome of reading one value. */
export type Parsed<T> =
  | { readonly ok: true; readonly value: T }
  | {
    readonly ok: false;
    /** What this very value should have been; the kind's `wanted` where absent. */
    readonly wanted?: string;
    /** The part of the value that is wrong, safe to print; the whole value where absent. */
    readonly found?: string;
    /** Of a value with parts: what is wrong with each, safe to print; a line each instead of the above. */
    readonly problems?: readonly string[];
  };

/** What was read, or a line for everything that is wrong with it. */
export type Checked<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problems: readonly string[] };

export function wrong(...problems: readonly string[]): Checked<never> {
  return { ok: false, problems };
}

/** How one kind of value is written and read. */
export interface Kind<T> {
  /** Stands for the value in `--help`, e.g. `DURATION`; empty for a boolean. */
  readonly placeholder: string;
  /** Completes "expected …". */
  readonly wanted: string;
  /** Never gets an empty text. */
  readonly parse: (text: string) => Parsed<T>;
  /** Makes a bad value printable without its secrets; absent: the value quoted. */
  readonly show?: (text: string) => string;
  /** What the bare flag stands for; absent: a flag needs its value. */
  readonly bare?: string;
  /** What a TOML file may give besides a string. Flags of a `list` may be repeated. */
  readonly file?: "number" | "boolean" | "list";
  /** Stands between the values of a `list`; a comma where absent. */
  readonly joint?: string;
}

/** What the outside tells a default that is not fixed. */
export interface Host {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly hostname: () => string;
}

/** `null` = none; a text is read like a given one; an object asks the host and says so in `--help`. */
export type Default = string | null | {
  readonly shown: string;
  readonly from: (host: Host) => string;
};

/** One setting. `N`, `T` and `D` carry its name, type and whether it may be absent to the compiler. */
export interface Row<T = unknown, N extends string = string, D extends Default = Default> {
  /** `flush-interval`: flag, environment variable and TOML key follow from it. */
  readonly name: N;
  readonly kind: Kind<T>;
  readonly default: D;
  /** One sentence without a full stop. */
  readonly meaning: string;
  /** Never printed, and may come from a file: `--X-file`, `SHISHI_X_FILE`, `x-file`. */
  readonly secret?: boolean;
  /** Other names, accepted everywhere. */
  readonly aliases?: readonly string[];
  /** Default: a TOML file may set it too. */
  readonly notInFile?: boolean;
  /** Default: a reload takes a changed value; this one only a restart. */
  readonly restart?: boolean;
}

/** A row in its place. */
export interface SettingSpec extends Row {
  /** Heading in `--help`. */
  readonly section: string;
}

/** The type of a setting once read. */
export type ValueOf<S> = S extends Row<infer T, string, infer D> ? D extends null ? T | null : T
  : never;

/** A record of what was read, by setting name. */
export type ValuesOf<Specs extends readonly SettingSpec[]> = {
  readonly [S in Specs[number] as S["name"]]: ValueOf<S>;
};

/** Writes a row so that the compiler keeps its exact name and type. */
export function setting<T, const N extends string, const D extends Default>(
  row: Row<T, N, D>,
): Row<T, N, D> {
  return row;
}

/** Puts rows under a heading. */
export function section<const Rows extends readonly Row[]>(heading: string, rows: Rows) {
  return rows.map((row) => ({ ...row, section: heading })) as unknown as {
    readonly [I in keyof Rows]: Rows[I] & { readonly section: string };
  };
}

/** What a name stands for: a setting, or the file that holds a secret's value. */
export interface Meant {
  readonly spec: SettingSpec;
  readonly file: boolean;
}

/** Every name (`flush-interval`, aliases, `nats-token-file`) with what it stands for. */
export type Names = ReadonlyMap<string, Meant>;

export function namesOf(specs: readonly SettingSpec[]): Names {
  const names = new Map<string, Meant>();
  for (const spec of specs) {
    for (const name of [spec.name, ...spec.aliases ?? []]) {
      names.set(name, { spec, file: false });
      if (spec.secret) names.set(`${name}-file`, { spec, file: true });
    }
  }
  return names;
}

/** Settings that are gone, by name, and what does their work now. */
export const GONE: ReadonlyMap<string, string> = new Map([
  [
    "workers",
    "is gone; run several collectors with share-port instead, each with its own id and data-dir " +
    "(as a service: shishi@.service)",
  ],
]);

/** Variables that are no settings: commands read them that send rows to a collector. */
export const OF_COMMANDS: ReadonlySet<string> = new Set(["SHISHI_TOKEN"]);

export const ENV_PREFIX = "SHISHI_";

/** `flush-interval` → `SHISHI_FLUSH_INTERVAL`. */
export function envName(name: string): string {
  return ENV_PREFIX + name.toUpperCase().replaceAll("-", "_");
}

/** A value in a message: quoted, on one line, cut where it is long. */
export function quote(text: string): string {
  const short = text.length > 80 ? `${text.slice(0, 77)}...` : text;
  return JSON.stringify(short).replace(/[\p{Cc}\u2028\u2029]/gu, "?");
}

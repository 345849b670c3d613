/** What a release is built for. */

export interface Target {
  /** As in the archive's name and in `shishi --version`. */
  readonly name: string;
  /** The npm package with Bun for it; package-lock.json has its hash. */
  readonly runtime: string;
  /** `--target` of `bun build`. */
  readonly compile: string;
}

const target = (name: string, runtime: string, compile = `bun-${name}`): Target => ({
  name,
  runtime: `@oven/bun-${runtime}`,
  compile,
});

export const TARGETS: readonly Target[] = [
  target("linux-x64", "linux-x64"),
  target("linux-x64-musl", "linux-x64-musl"),
  target("linux-arm64", "linux-aarch64"),
  target("linux-arm64-musl", "linux-aarch64-musl"),
  target("darwin-arm64", "darwin-aarch64"),
  target("darwin-x64", "darwin-x64"),
  target("windows-x64", "windows-x64"),
];

export const isWindows = ({ name }: Target): boolean => name.startsWith("windows");
export const isLinux = ({ name }: Target): boolean => name.startsWith("linux");

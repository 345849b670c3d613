/**
 * Images built by buildah and run by podman, which read the Dockerfile and the image as Docker does. All
 * they keep lies in one temporary folder. What differs from Docker's daemon: builds share the host's
 * processes and network (`--isolation chroot`), nothing limits a container's memory or CPU, and nobody
 * runs its health check by the clock.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../../.release/build.ts";
import { tempDir } from "../kit/temp.ts";
import { type Ended, type How, ok, run } from "./exec.ts";
import { baseRoot } from "./root.ts";

/** Debian's slim images, from which Bun's is made, do without them. */
const NOT_IN_SLIM = ["doc", "locale", "man"].map((name) => `usr/share/${name}`);

export interface Engine {
  buildah(...args: string[]): Promise<string>;
  podman(...args: string[]): Promise<string>;
  /** Whatever the exit code is. */
  tryPodman(...args: string[]): Promise<Ended>;
}

/** What the Dockerfile builds from, in its words: the one image that is no other's stage. */
export function baseImage(dockerfile = readFileSync(join(ROOT, "Dockerfile"), "utf8")): string {
  const [image, ...more] = [...dockerfile.matchAll(/^FROM (\S+:\S+)/gm)].map(([, name]) => name!);
  if (image === undefined || more.length > 0) throw new Error("expected one image to build from");
  return image;
}

export function newEngine(): Engine {
  const dir = tempDir("containers");
  const env = { STORAGE_DRIVER: "overlay", CONTAINERS_STORAGE_CONF: join(dir, "storage.conf") };
  const [graph, runRoot] = [join(dir, "graph"), join(dir, "run")];
  writeFileSync(
    env.CONTAINERS_STORAGE_CONF,
    `[storage]\ndriver = "overlay"\ngraphroot = "${graph}"\nrunroot = "${runRoot}"\n`,
  );
  const how: How = { env, withinMs: 200_000 };
  return {
    buildah: (...args) => ok(["buildah", ...args], how),
    podman: (...args) => ok(["podman", ...args], how),
    tryPodman: (...args) => run(["podman", ...args], how),
  };
}

/** The image that people pull, as near as this host comes to it: Debian, its authorities, Bun. */
export async function makeBaseImage({ buildah }: Engine): Promise<void> {
  const container = (await buildah("from", "scratch")).trim();
  const [root, without] = [await baseRoot(), join(tempDir("without"), "ignore")];
  writeFileSync(without, NOT_IN_SLIM.join("\n"));
  const slim = [`--ignorefile=${without}`, `--contextdir=${root}`];
  await buildah("add", "--quiet", ...slim, container, root, "/");
  const bun = join(ROOT, "node_modules/.bin/bun");
  await buildah("add", "--quiet", "--chmod", "755", container, bun, "/usr/local/bin/bun");
  // Some authority of the host's own may stand between it and npm.
  const authorities = "NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt";
  await buildah("config", "--env", authorities, container);
  await buildah("commit", "--quiet", "--rm", container, baseImage());
}

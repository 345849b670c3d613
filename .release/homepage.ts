/**
 * Where Shishi is at home and where its releases lie, on its own because all packages name it. The name is
 * one that belongs to nobody: who gives releases out says `--url`.
 */

export const HOMEPAGE = "https://shishi.example";

/** The folder of one version. */
export const releaseUrl = (version: string) => `${HOMEPAGE}/releases/${version}`;

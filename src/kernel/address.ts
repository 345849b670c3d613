/**
 * IP addresses and networks as bytes, for questions such as whether a peer is one of those that are
 * trusted. An IPv4 address is the IPv6 one that stands for it (`::ffff:1.2.3.4`), so both compare alike.
 */

import { nodeNet } from "./builtins.ts";

/** `10.0.0.0/8`, `2001:db8::/32`, or one address alone. */
export interface Network {
  readonly bytes: readonly number[];
  /** Of the 128 of an IPv6 address. */
  readonly bits: number;
}

const MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255];
const MAPPED_BITS = 96;

/** The 16 bytes of an address, without the brackets of a URL; null where it is none. */
export function parseAddress(text: string): readonly number[] | null {
  const bare = text.replace(/%.*$/, "");
  const family = nodeNet().isIP(bare);
  if (family === 4) return [...MAPPED, ...bare.split(".").map(Number)];
  if (family === 0) return null;
  // The last two groups may be written as an IPv4 address.
  const hex = bare.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) => {
    const group = (high: string, low: string) => (Number(high) * 256 + Number(low)).toString(16);
    return `${group(a, b)}:${group(c, d)}`;
  });
  const [head = "", tail] = hex.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const groups = [...left, ...new Array(8 - left.length - right.length).fill("0"), ...right];
  return groups.flatMap((group) => {
    const value = Number.parseInt(group, 16);
    return [value >> 8, value & 255];
  });
}

/** Null where it is none; bits beyond the prefix must be 0, so that a slip is noticed. */
export function parseNetwork(text: string): Network | null {
  const [address = "", prefix, ...more] = text.split("/");
  const bytes = parseAddress(address);
  if (bytes === null || address.includes("%") || more.length > 0) return null;
  if (prefix === undefined) return { bytes, bits: 128 };
  const most = address.includes(":") ? 128 : 32;
  if (!/^\d{1,3}$/.test(prefix) || Number(prefix) > most) return null;
  const bits = Number(prefix) + (most === 32 ? MAPPED_BITS : 0);
  const rest = bytes.some((byte, at) => (byte & ~maskOf(at, bits)) !== 0);
  return rest ? null : { bytes, bits };
}

export function isWithin(address: readonly number[], { bytes, bits }: Network): boolean {
  return bytes.every((byte, at) => (address[at]! & maskOf(at, bits)) === byte);
}

/** Of byte `at`, what belongs to the first `bits`. */
function maskOf(at: number, bits: number): number {
  const inside = Math.max(0, Math.min(8, bits - at * 8));
  return (0xff00 >> inside) & 0xff;
}

/**
 * Whose request it is: the address of the connection or, where a trusted proxy has the other end of that,
 * the one that it names (`X-Forwarded-For`, else `Forwarded`, RFC 7239). Each proxy appends the address
 * that it was reached from, so the last one that is no trusted proxy is the client's; what stands before it
 * may be made up. From any other peer both headers count for nothing.
 */

import { isWithin, type Network, parseAddress } from "../kernel/address.ts";

/** `unix`: every client of a socket in the file system. */
export type TrustedProxy = Network | "unix";

/** The peer's address; it is asked for only where it is needed. */
export type AddressOf = (request: Request) => string;

/** The client's address; `""` for one that comes through a socket in the file system. */
export type ClientAddress = (request: Request, addressOf: AddressOf) => string;

export function createClientAddress(trusted: readonly TrustedProxy[]): ClientAddress {
  if (trusted.length === 0) return (request, addressOf) => addressOf(request);
  const networks = trusted.filter((proxy) => proxy !== "unix");
  const trusts = (address: string): boolean => {
    if (address === "") return trusted.includes("unix");
    const bytes = parseAddress(address);
    return bytes !== null && networks.some((network) => isWithin(bytes, network));
  };
  return (request, addressOf) => {
    let client = addressOf(request);
    if (!trusts(client)) return client;
    const told = toldIn(request.headers);
    while (told.length > 0 && trusts(client)) {
      const address = told.pop()!;
      // `unknown`, or a name that hides the address: then it is not known beyond the proxy.
      if (parseAddress(address) === null) break;
      client = address;
    }
    return client;
  };
}

/** The addresses that were passed on, the one that the last proxy saw at the end. */
function toldIn(headers: Headers): string[] {
  const listed = headers.get("x-forwarded-for");
  if (listed !== null) return listed.split(",").map(bare);
  const forwarded = headers.get("forwarded");
  if (forwarded === null) return [];
  return forwarded.split(",").map((element) =>
    bare(/(?:^|;)\s*for\s*=\s*("[^"]*"|[^;]*)/i.exec(element)?.[1] ?? "")
  );
}

/** `"[2001:db8::1]:4711"`, `192.0.2.1:80` → the address alone. */
function bare(text: string): string {
  const plain = text.trim().replace(/^"(.*)"$/, "$1");
  return /^\[([^\]]*)\](?::\w+)?$/.exec(plain)?.[1] ?? plain.replace(/^([\d.]+):\w+$/, "$1");
}

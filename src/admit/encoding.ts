/** How bodies may be packed. What unpacks them (`inflate.ts`) is loaded with the first that is. */

export type Encoding = "gzip" | "deflate" | "br" | "zstd";

/** For `Accept-Encoding` in an answer, and in errors. */
export const ENCODINGS = "gzip, deflate, br, zstd";

/**
 * Of a zstd body. Each costs up to a tenth of a millisecond even when it is empty, and ten megabytes
 * hold a million.
 */
export const MOST_FRAMES = 1000;

/**
 * `Content-Encoding` → what to unpack, null for nothing. `"unknown"` also for stacked encodings.
 * @param header the header as it came, or null.
 */
export function parseEncoding(header: string | null): Encoding | null | "unknown" {
  if (header === null) return null;
  const names = header.toLowerCase().split(",").map((name) => name.trim())
    .filter((name) => name !== "" && name !== "identity");
  if (names.length === 0) return null;
  if (names.length > 1) return "unknown";
  switch (names[0]) {
    case "gzip":
    case "x-gzip":
      return "gzip";
    case "deflate":
    case "br":
    case "zstd":
      return names[0];
    default:
      return "unknown";
  }
}

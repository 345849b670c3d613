/**
 * Signing a Mac's program ad hoc: no name is vouched for, but every page has its hash, and a Mac starts
 * nothing whose pages differ from them. Bun signs what it compiles for Apple's own processors; for
 * Intel's it leaves the signature of its own makers in place, which is of other bytes.
 *
 * The layout is Apple's, `cs_blobs.h` of XNU; what is written is what their linker writes.
 */

import { createHash } from "node:crypto";

const MACH_O_64 = 0xfeedfacf;
const SEGMENT = 0x19;
const CODE_SIGNATURE = 0x1d;
const EMBEDDED_SIGNATURE = 0xfade0cc0;
const CODE_DIRECTORY = 0xfade0c02;
/** The oldest version that says where the code lies, without which nothing may be compiled at run time. */
const VERSION = 0x20400;
const ADHOC_LINKER_SIGNED = 0x20002;
const MAIN_BINARY = 1n;
const SHA256 = 2;
const SHA256_BYTES = 32;
const LOG2_PAGE = 12;
const PAGE_BYTES = 1 << LOG2_PAGE;
/** What the last segment takes of memory is rounded up to this, as Bun does it. */
const SEGMENT_BYTES = BigInt(PAGE_BYTES);
/** Of a signature that holds one blob, and of a directory before the name. */
const ENVELOPE_BYTES = 20;
const HEADER_BYTES = 88;

/** `program` with a signature in place of the one it has. Throws for what is no such program. */
export function signAdHoc(program: Uint8Array, name: string): Uint8Array {
  const found = new DataView(program.buffer, program.byteOffset, program.byteLength);
  const { signature, linkEdit, text } = partsOf(found);
  const codeBytes = found.getUint32(signature + 8, true);
  const identifier = new TextEncoder().encode(`${name}\0`);
  const pages = Math.ceil(codeBytes / PAGE_BYTES);
  const hashesAt = HEADER_BYTES + identifier.length;
  const directoryBytes = hashesAt + pages * SHA256_BYTES;
  const signatureBytes = ENVELOPE_BYTES + directoryBytes;

  const signed = new Uint8Array(codeBytes + signatureBytes);
  signed.set(program.subarray(0, codeBytes));
  const view = new DataView(signed.buffer);
  view.setUint32(signature + 12, signatureBytes, true);
  // The last segment ends with the signature.
  const bytes = BigInt(signed.length) - view.getBigUint64(linkEdit + 40, true);
  view.setBigUint64(linkEdit + 48, bytes, true);
  view.setBigUint64(
    linkEdit + 32,
    (bytes + SEGMENT_BYTES - 1n) / SEGMENT_BYTES * SEGMENT_BYTES,
    true,
  );

  const words = (at: number, ...values: number[]) =>
    values.forEach((value, index) => view.setUint32(at + 4 * index, value));
  words(codeBytes, EMBEDDED_SIGNATURE, signatureBytes, 1, 0, ENVELOPE_BYTES);
  const directory = codeBytes + ENVELOPE_BYTES;
  words(directory, CODE_DIRECTORY, directoryBytes, VERSION, ADHOC_LINKER_SIGNED);
  words(directory + 16, hashesAt, HEADER_BYTES, 0, pages, codeBytes);
  signed.set([SHA256_BYTES, SHA256, 0, LOG2_PAGE], directory + 36);
  view.setBigUint64(directory + 64, view.getBigUint64(text + 40, true));
  view.setBigUint64(directory + 72, view.getBigUint64(text + 48, true));
  view.setBigUint64(directory + 80, MAIN_BINARY);
  signed.set(identifier, directory + HEADER_BYTES);
  // Last of all: the first page holds what was changed above.
  for (let page = 0; page < pages; page++) {
    const from = page * PAGE_BYTES;
    const content = signed.subarray(from, Math.min(from + PAGE_BYTES, codeBytes));
    const hash = createHash("sha256").update(content).digest();
    signed.set(hash, directory + hashesAt + page * SHA256_BYTES);
  }
  return signed;
}

/** Where the load commands lie that a signature has to do with. */
function partsOf(view: DataView): { signature: number; linkEdit: number; text: number } {
  if (view.getUint32(0, true) !== MACH_O_64) throw new Error("expected a Mach-O of 64 bits");
  let signature = 0;
  const segments = new Map<string, number>();
  let at = 32;
  for (let left = view.getUint32(16, true); left > 0; left--) {
    const command = view.getUint32(at, true);
    if (command === CODE_SIGNATURE) signature = at;
    if (command === SEGMENT) segments.set(nameAt(view, at + 8), at);
    at += view.getUint32(at + 4, true);
  }
  const [linkEdit = 0, text = 0] = ["__LINKEDIT", "__TEXT"].map((name) => segments.get(name));
  const isLast = [...segments.keys()].at(-1) === "__LINKEDIT";
  if (signature === 0 || text === 0 || !isLast) {
    throw new Error("expected code, link data as the last segment, and room for a signature in it");
  }
  const end = view.getUint32(signature + 8, true) + view.getUint32(signature + 12, true);
  if (end !== view.byteLength) throw new Error("expected the signature at the end of the file");
  return { signature, linkEdit, text };
}

function nameAt(view: DataView, at: number): string {
  const bytes = new Uint8Array(view.buffer, view.byteOffset + at, 16);
  return new TextDecoder().decode(bytes).replace(/\0+$/, "");
}

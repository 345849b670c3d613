/**
 * Stands in the binary for iconv-lite, of which mysql2 asks for the text of names and errors: the runtime has
 * these encodings. CESU-8, as which mysql2 reads MySQL's older UTF-8, differs from it beyond the 65,535th
 * character alone, which that one cannot store.
 */

const named = (encoding) => encoding === "cesu8" ? "utf-8" : encoding;

export function getDecoder(encoding) {
  const decoder = new TextDecoder(named(encoding));
  return {
    write: (bytes) => decoder.decode(bytes, { stream: true }),
    end: () => decoder.decode(),
  };
}

export function getEncoder(encoding) {
  if (named(encoding) !== "utf-8") throw new Error(`no text is written as ${encoding}`);
  return { write: (text) => Buffer.from(text, "utf8"), end: () => undefined };
}

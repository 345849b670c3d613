/** Text for man(7): what a page's author has to escape, and the few macros that the manual uses. */

/** A piece of text in bold or italics; a plain one is a string. */
export type Piece = string | { readonly bold: string } | { readonly italic: string };

const NAMED: Readonly<Record<string, string>> = {
  "\\": "\\e",
  "-": "\\-",
  "'": "\\(aq",
  "`": "\\(ga",
  "^": "\\(ha",
  "~": "\\(ti",
  "—": "\\(em",
  "→": "\\(->",
  "…": "...",
};

/** Every sign as it is, on every terminal: a quote stays one that a shell understands. */
export function escape(text: string): string {
  return text.replace(
    /[\\\-'`^~]|\P{ASCII}/gu,
    (sign) =>
      NAMED[sign] ?? `\\[u${sign.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}]`,
  );
}

/** One line of text. A sign at its beginning is never taken for a request. */
export function line(...pieces: readonly Piece[]): string {
  const text = pieces.map((piece) =>
    typeof piece === "string"
      ? escape(piece)
      : "bold" in piece
      ? `\\fB${escape(piece.bold)}\\fR`
      : `\\fI${escape(piece.italic)}\\fR`
  ).join("");
  return /^[.]/.test(text) ? `\\&${text}` : text;
}

export const section = (title: string) => `.SH ${title.toUpperCase()}`;
export const subsection = (title: string) => `.SS ${escape(title)}`;
export const paragraph = (...pieces: readonly Piece[]) => [".PP", line(...pieces)];
/** A term with what it means. */
export const tagged = (tag: readonly Piece[], ...text: readonly Piece[]) => [
  ".TP",
  line(...tag),
  line(...text),
];
/** Lines as they are. */
export const verbatim = (lines: readonly string[]) => [
  ".PP",
  ".RS 4",
  ".nf",
  ...lines.map((text) => line(text)),
  ".fi",
  ".RE",
];

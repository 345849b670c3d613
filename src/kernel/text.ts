/** Texts for people: what a wrong name may have meant, and what comes from outside fit for one line. */

/** The known name that is nearest to a wrong one, or null when none is near. */
export function nearest(wrong: string, known: Iterable<string>): string | null {
  const plain = normal(wrong).slice(0, 64);
  let best: string | null = null;
  // Something of the wrong name has to be in the right one.
  let bestDistance = Math.min(Math.max(2, Math.floor(plain.length / 3)) + 1, plain.length);
  for (const name of known) {
    const distance = plain.length >= 4 && normal(name).startsWith(plain)
      ? 1
      : editDistance(plain, normal(name));
    if (distance < bestDistance) [best, bestDistance] = [name, distance];
  }
  return best;
}

/** `; did you mean --flush-interval?`, or nothing. */
export function hint(
  wrong: string,
  known: Iterable<string>,
  write: (name: string) => string,
): string {
  const name = nearest(wrong, known);
  return name === null ? "" : `; did you mean ${write(name)}?`;
}

/** A name from outside, fit for one line: a wrong one may be anything. */
export function printable(name: string): string {
  const plain = name.replace(/\p{Cc}/gu, "?");
  return plain.length > 64 ? `${plain.slice(0, 61)}...` : plain;
}

/** Characters of an excerpt. */
const EXCERPT = 64;

/** The beginning of a text from outside, for an error: never cut inside a character. */
export function excerpt(text: string): string {
  return text.length <= EXCERPT
    ? text
    : text.slice(0, EXCERPT).toWellFormed().replace(/\ufffd$/, "") + "…";
}

function normal(name: string): string {
  return name.toLowerCase().replaceAll("_", "-");
}

/** Insertions, deletions, replacements and swaps of neighbours that turn one text into the other. */
export function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let cost = Math.min(at(last, j) + 1, at(row, j - 1) + 1, at(last, j - 1) + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, at(before, j - 2) + 1);
      }
      row.push(cost);
    }
    [before, last] = [last, row];
  }
  return at(last, b.length);
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Infinity;
}

/**
 * Positions in what a broker keeps in order: Kafka's offset `17`, a stream's sequence, a Redis id
 * `1764400000000-3`. Decimal numbers joined by `-`, compared number by number: they may have more digits
 * than a `number` holds, so they stay text.
 */

const POSITION = /^\d{1,40}(?:-\d{1,40}){0,7}$/;

/** Whether a text is a position. To compare anything else says nothing. */
export function isPosition(text: unknown): text is string {
  return typeof text === "string" && POSITION.test(text);
}

/** Below 0 where `a` comes before `b`, 0 where they are the same. `17` comes before `17-0`. */
export function comparePositions(a: string, b: string): number {
  if (a === b) return 0;
  if (!a.includes("-") && !b.includes("-")) return compareDecimals(a, b);
  const ones = a.split("-");
  const others = b.split("-");
  for (let at = 0; at < ones.length && at < others.length; at++) {
    const order = compareDecimals(ones[at]!, others[at]!);
    if (order !== 0) return order;
  }
  return ones.length - others.length;
}

function compareDecimals(a: string, b: string): number {
  const [one, other] = [withoutZeroes(a), withoutZeroes(b)];
  if (one.length !== other.length) return one.length - other.length;
  return one < other ? -1 : one > other ? 1 : 0;
}

function withoutZeroes(digits: string): string {
  let from = 0;
  while (from < digits.length - 1 && digits[from] === "0") from++;
  return from === 0 ? digits : digits.slice(from);
}

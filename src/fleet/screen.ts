/**
 * A few lines at the end of a terminal that are drawn over in place. Everything goes out as whole
 * lines, so that ordinary lines may be written in between: `above` makes room for them.
 */

/** A terminal; where output is none there is no screen. */
export interface Screen {
  /** Its height at this moment. */
  rows(): number;
}

export interface Region {
  /** Shows these lines in place of the last ones; what does not fit is counted in the last line. */
  draw(lines: readonly string[]): void;
  /** Takes the lines away, lets `print` write its own, and shows them again below. */
  above(print: () => void): void;
  /** Takes the lines away. */
  clear(): void;
}

/** Lines longer than the terminal is wide are cut by it, not wrapped: the height must be known. */
const NO_WRAP = "\x1b[?7l";
const WRAP = "\x1b[?7h";
const LEAST_ROWS = 4;

/** @param out writes a text and a newline. */
export function createRegion(screen: Screen, out: (text: string) => void): Region {
  let shown: readonly string[] = [];
  const up = () => (shown.length === 0 ? "" : `\x1b[${shown.length}A\x1b[J`);
  const region: Region = {
    draw(lines) {
      const fitting = fit(lines, Math.max(LEAST_ROWS, screen.rows()) - 1);
      if (fitting.length === 0) return region.clear();
      if (fitting.length === shown.length && fitting.every((line, at) => line === shown[at])) {
        return;
      }
      const before = up();
      shown = fitting;
      out(before + NO_WRAP + fitting.join("\n") + WRAP);
    },
    above(print) {
      const lines = shown;
      region.clear();
      print();
      region.draw(lines);
    },
    clear() {
      // One line further up, since `out` ends in a newline.
      if (shown.length > 0) out(`${up()}\x1b[A`);
      shown = [];
    },
  };
  return region;
}

function fit(lines: readonly string[], rows: number): readonly string[] {
  if (lines.length <= rows) return lines;
  return [...lines.slice(0, rows - 1), `… and ${lines.length - rows + 1} more`];
}

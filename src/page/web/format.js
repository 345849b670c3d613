/** Numbers, sizes and times as people read them. */
// @ts-check

/** What is shown where there is nothing to tell. */
export const NOTHING = "–";

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const HUNDREDTHS = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const TENTHS = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/**
 * Whole up to 999,999, then 1.2M.
 * @param {number | null | undefined} value
 */
export function count(value) {
  if (value === null || value === undefined) return NOTHING;
  return Math.abs(value) < 1e6 ? WHOLE.format(value) : SHORT.format(value);
}

/**
 * Every digit.
 * @param {number} value
 */
export function exact(value) {
  return WHOLE.format(value);
}

/** @param {number | null | undefined} value a second */
export function rate(value) {
  if (value === null || value === undefined) return NOTHING;
  return value < 10 ? (value < 1 ? HUNDREDTHS : TENTHS).format(value) : count(Math.round(value));
}

const DAY = new Intl.DateTimeFormat("en", { year: "numeric", month: "2-digit", day: "2-digit" });
const SIZES = ["B", "KiB", "MiB", "GiB", "TiB"];

/** @param {number | null | undefined} value bytes */
export function bytes(value) {
  if (value === null || value === undefined) return NOTHING;
  let size = value;
  let unit = 0;
  // Three digits at most, as it will be shown: 1,000 KiB are 1 MiB.
  while (Math.round(size) >= 1000 && unit < SIZES.length - 1) {
    size /= 1024;
    unit++;
  }
  return `${unit === 0 || size >= 100 ? WHOLE.format(size) : TENTHS.format(size)} ${SIZES[unit]}`;
}

/** @param {number | null | undefined} value milliseconds */
export function millis(value) {
  if (value === null || value === undefined) return NOTHING;
  return Math.round(value) < 1000
    ? `${value < 10 ? TENTHS.format(value) : WHOLE.format(value)} ms`
    : seconds(value / 1000);
}

/** @param {number | null | undefined} value seconds */
export function seconds(value) {
  if (value === null || value === undefined) return NOTHING;
  const whole = Math.round(value);
  if (whole < 60) return `${value < 10 ? TENTHS.format(value) : whole} s`;
  const minutes = Math.floor(whole / 60);
  const hours = Math.floor(whole / 3600);
  if (minutes < 60) return both(minutes, "min", whole % 60, "s");
  if (hours < 48) return both(hours, "h", minutes % 60, "min");
  return both(Math.floor(hours / 24), "d", hours % 24, "h");
}

/**
 * In its largest unit, where there is little room.
 * @param {number | null | undefined} value seconds
 */
export function age(value) {
  return seconds(value).replace(/^(\d+ \w+) .*/, "$1");
}

/**
 * @param {number} large
 * @param {string} unit
 * @param {number} small left out where there is none
 * @param {string} smaller
 */
function both(large, unit, small, smaller) {
  return small === 0 ? `${large} ${unit}` : `${large} ${unit} ${small} ${smaller}`;
}

/**
 * The time of day where the viewer is.
 * @param {number} ms since the epoch
 */
export function clockTime(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

/**
 * Day and time where the viewer is, as 2026-01-31 13:00:00.
 * @param {number} ms since the epoch
 */
export function dateTime(ms) {
  const { year, month, day } = Object.fromEntries(
    DAY.formatToParts(ms).map(({ type, value }) => [type, value]),
  );
  return `${year}-${month}-${day} ${clockTime(ms)}`;
}

/**
 * @param {number} part
 * @param {number} whole
 */
export function percent(part, whole) {
  if (whole <= 0) return NOTHING;
  const share = (100 * part) / whole;
  return `${share > 0 && share < 0.1 ? "< 0.1" : TENTHS.format(share)} %`;
}

/**
 * @param {number} n
 * @param {string} one
 * @param {string} many
 */
export function plural(n, one, many) {
  return `${exact(n)} ${n === 1 ? one : many}`;
}

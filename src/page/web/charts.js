/**
 * Six charts over the same hour. Their cursors move together; with the keyboard, the arrow keys move
 * them, and the legend says the values under them. The past hour comes as columns of equal length, the
 * first one the time in seconds; what the page knows of a process before this one goes on in them.
 */
// @ts-check
/// <reference lib="dom" />
/// <reference lib="dom.iterable" />
import { byId, make, say } from "./dom.js";
import { bytes, clockTime, count, millis, rate, seconds } from "./format.js";

/** @typedef {(number | null)[][]} Columns */
/** @typedef {(value: number | null | undefined) => string} Format */
/** @typedef {{ label: string, column: number, color: string }} Line */
/** @typedef {{ id: string, format: Format, steps: number[], lines: Line[] }} Chart */

/** @type {typeof import("uplot")} */
const Plot = /** @type {any} */ (globalThis).uPlot;

const HEIGHT_PX = 168;
const LEFT_PX = 62;
/**
 * Between two lines of a grid, as coarse as their labels can tell apart: 1, 2 or 5 of something.
 * @param {number} least the exponent of the first
 */
const tens = (least) =>
  Array.from({ length: 14 }, (_, at) => [1, 2, 5].map((n) => Number(`${n}e${at + least}`))).flat();
const TWOS = Array.from({ length: 48 }, (_, at) => 2 ** at);
const MINUTES = [1, 2, 5, 10, 20, 30].map((n) => 60 * n);
const HOURS = [1, 2, 4, 8, 12, 24, 48, 96].map((n) => 3600 * n);
const TIMES = [...tens(-1).filter((step) => step < 60), ...MINUTES, ...HOURS];

/** @type {Chart[]} columns as in the samples: time, then `SERIES` */
export const CHARTS = [
  {
    id: "c-rows",
    format: rate,
    steps: tens(-2),
    lines: [
      { label: "in", column: 1, color: "--water" },
      { label: "stored", column: 2, color: "--bamboo" },
    ],
  },
  {
    id: "c-held",
    format: count,
    steps: tens(0),
    lines: [{ label: "rows held", column: 3, color: "--water" }],
  },
  {
    id: "c-bytes",
    format: bytes,
    steps: TWOS,
    lines: [
      { label: "memory", column: 4, color: "--water" },
      { label: "disk", column: 5, color: "--bamboo" },
    ],
  },
  {
    id: "c-oldest",
    format: seconds,
    steps: TIMES,
    lines: [{ label: "age", column: 6, color: "--water" }],
  },
  {
    id: "c-insert",
    format: millis,
    steps: [
      ...tens(-1).filter((ms) => ms < 1000),
      ...TIMES.filter((s) => s >= 1).map((s) => 1000 * s),
    ],
    lines: [
      { label: "p50", column: 7, color: "--bamboo" },
      { label: "p99", column: 8, color: "--gold" },
    ],
  },
  {
    id: "c-trouble",
    format: rate,
    steps: tens(-2),
    lines: [
      { label: "retries", column: 9, color: "--gold" },
      { label: "dead letters", column: 10, color: "--vermilion" },
    ],
  },
];

/** @returns {{ show(columns: Columns): void, spanS(seconds: number): void }} */
export function createCharts() {
  const parts = CHARTS.map(createChart);
  /** @type {Columns} */
  let shown = [[]];
  let spanS = 300;
  const draw = () => {
    const last = shown[0]?.at(-1) ?? Date.now() / 1000;
    for (const part of parts) part.draw(shown, last - spanS, last);
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => {
    for (const part of parts) part.rebuild();
    draw();
  });
  return {
    show(columns) {
      shown = columns;
      draw();
    },
    spanS(seconds) {
      spanS = seconds;
      draw();
    },
  };
}

/** @param {Chart} chart */
function createChart({ id, format, steps, lines }) {
  const box = byId(id);
  const legend = byId(`${id}-legend`);
  const values = lines.map(({ label, color }) => {
    const value = make("output", { class: "value" }, "–");
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = `var(${color})`;
    legend.append(make("span", { class: "line" }, swatch, `${label} `, value));
    return value;
  });
  const time = make("span", { class: "at" });
  legend.append(time);
  /** @type {uPlot | null} */
  let plot = null;

  /** The values under the cursor, or the last ones. */
  const tell = () => {
    if (plot === null) return;
    const at = plot.cursor.idx ?? null;
    const index = at ?? (plot.data[0]?.length ?? 0) - 1;
    values.forEach((value, line) => say(value, format(plot?.data[line + 1]?.[index])));
    say(time, at === null ? "" : clockTime((plot.data[0][at] ?? 0) * 1000));
  };

  function build() {
    const style = getComputedStyle(document.documentElement);
    /** @param {string} name */
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: color("--muted"),
      font: "11px system-ui, sans-serif",
      grid: { stroke: color("--line"), width: 1 },
      ticks: { show: false },
    };
    plot?.destroy();
    plot = new Plot(
      {
        width: box.clientWidth,
        height: HEIGHT_PX,
        padding: [8, 18, 0, 0],
        legend: { show: false },
        cursor: { sync: { key: "hour" }, drag: { x: false, y: false }, y: false },
        scales: { y: { range: (_, _least, most) => [0, most > 0 ? most * 1.1 : 1] } },
        axes: [
          {
            ...axis,
            size: 24,
            space: 40,
            values: (_, ticks) => ticks.map((at) => clockTime(at * 1000).replace(/:00$/, "")),
          },
          {
            ...axis,
            size: LEFT_PX,
            space: 34,
            incrs: steps,
            values: (_, ticks) => ticks.map((value) => format(value)),
          },
        ],
        series: [
          {},
          ...lines.map(({ label, color: name }, at) => ({
            label,
            stroke: color(name),
            width: 1.5,
            points: { show: false },
            ...(at === 0 ? { fill: `color-mix(in srgb, ${color(name)} 14%, transparent)` } : {}),
          })),
        ],
        hooks: { setCursor: [tell] },
      },
      [[], ...lines.map(() => [])],
      box,
    );
  }

  build();
  new ResizeObserver(() => {
    if (box.clientWidth > 0) plot?.setSize({ width: box.clientWidth, height: HEIGHT_PX });
  }).observe(box);
  box.addEventListener("keydown", (event) => plot && moveCursor(plot, event));

  return {
    rebuild: build,
    /**
     * @param {Columns} columns
     * @param {number} fromS
     * @param {number} toS
     */
    draw(columns, fromS, toS) {
      if (plot === null) return;
      const data = [columns[0], ...lines.map(({ column }) => columns[column] ?? [])];
      plot.setData(/** @type {any} */ (data), false);
      plot.setScale("x", { min: fromS, max: toS });
      tell();
    },
  };
}

/**
 * @param {uPlot} plot
 * @param {KeyboardEvent} event
 */
function moveCursor(plot, event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const leaves = event.key === "Escape";
  if (step === undefined && !leaves) return;
  event.preventDefault();
  const times = plot.data[0];
  const { min = 0, max = 0 } = plot.scales.x ?? {};
  const at = plot.cursor.idx ?? times.length;
  const wide = Math.max(1, Math.round(((max ?? 0) - (min ?? 0)) / 100));
  const to = Math.min(times.length - 1, Math.max(0, at + (step ?? 0) * wide));
  const left = leaves ? -10 : plot.valToPos(times[to] ?? 0, "x");
  plot.setCursor({ left, top: leaves ? -10 : 10 });
}

// ── The past hour as columns.

const HOUR_S = 3600;
/** Two samples further apart than this are not joined by a line. */
const GAP_S = 5;

/**
 * What the collector knows, behind what only the page knows still, of a process before it.
 * @param {Columns} known
 * @param {Columns} told
 * @returns {Columns}
 */
export function joined(known, told) {
  const first = told[0]?.[0] ?? Infinity;
  const kept = (known[0] ?? []).filter((at) => /** @type {number} */ (at) < first).length;
  const all = told.map((column, index) => [...(known[index] ?? []).slice(0, kept), ...column]);
  return limited(all);
}

/**
 * One more sample; a gap is kept open by an empty one. Where the collector's clock is set back, what
 * lies ahead of it goes: else the charts would stand still until it is there again. Changes and returns
 * the columns.
 * @param {Columns} columns
 * @param {readonly (number | null)[]} sample
 */
export function appended(columns, sample) {
  const at = sample[0] ?? 0;
  if (columns[0]?.at(-1) === at) return columns;
  const ahead = (columns[0] ?? []).findIndex((time) => /** @type {number} */ (time) >= at);
  if (ahead >= 0) { for (const column of columns) column.length = ahead; }
  const last = columns[0]?.at(-1) ?? -Infinity;
  if (at - last > GAP_S && last !== -Infinity) {
    columns.forEach((column, index) => column.push(index === 0 ? last + 1 : null));
  }
  columns.forEach((column, index) => column.push(sample[index] ?? null));
  return limited(columns);
}

/** @param {Columns} columns */
function limited(columns) {
  const times = columns[0] ?? [];
  const from = (times.at(-1) ?? 0) - HOUR_S;
  let late = 0;
  while (late < times.length && /** @type {number} */ (times[late]) < from) late++;
  if (late > 0) { for (const column of columns) column.splice(0, late); }
  return columns;
}

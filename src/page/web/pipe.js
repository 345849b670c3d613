/**
 * The shishi-odoshi: the bamboo pipe that fills with what is held and tips when an INSERT was stored.
 * It says nothing that the figures do not say, so it is hidden from screen readers.
 */
// @ts-check
/// <reference lib="dom" />
import { byId, mark } from "./dom.js";

/** Between two strokes: a garden is no drum. */
const REST_MS = 2600;

/**
 * @returns {(told: { held: number, backlog: number, flowing: boolean, inserts: number }) => void}
 */
export function createPipe() {
  const garden = /** @type {HTMLElement} */ (/** @type {unknown} */ (byId("garden")));
  /** @type {number | null} */
  let inserts = null;
  let tippedMs = -Infinity;
  return (told) => {
    // A few rows are to be seen, and a million still fits.
    const level = Math.min(
      1,
      Math.log10(1 + told.held) / Math.log10(1 + Math.max(9, told.backlog)),
    );
    garden.style.setProperty("--level", level.toFixed(3));
    mark(garden, "flowing", String(told.flowing));
    const tips = inserts !== null && told.inserts > inserts;
    inserts = told.inserts;
    const nowMs = performance.now();
    if (!tips || nowMs - tippedMs < REST_MS) return;
    tippedMs = nowMs;
    mark(garden, "tips", garden.dataset.tips === "odd" ? "even" : "odd");
  };
}

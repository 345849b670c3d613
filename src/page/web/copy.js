/** Copies a text, also where the page is not served securely and the clipboard is closed to it. */
// @ts-check
/// <reference lib="dom" />

/**
 * @param {string} text
 * @param {HTMLElement} shown the element that shows it: selected where it cannot be copied
 * @returns {Promise<boolean>} whether it is in the clipboard
 */
export async function copyText(text, shown) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    globalThis.getSelection()?.selectAllChildren(shown);
    return false;
  }
}

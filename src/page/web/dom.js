/** The few things that are done to the document, here and nowhere else: text is never taken as HTML. */
// @ts-check
/// <reference lib="dom" />
/// <reference lib="dom.iterable" />

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T} it is there: the document is part of this program
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return /** @type {T} */ (found);
}

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 * @returns {HTMLElement}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * A screen reader announces every change, so a text that stays is left alone.
 * @param {string | Element} where an element or its id
 * @param {string} text
 */
export function say(where, text) {
  const element = typeof where === "string" ? byId(where) : where;
  if (element.textContent !== text) element.textContent = text;
}

/**
 * A list whose items stay the elements that they are as long as they say the same: focus, a
 * selection and the place that is read stay where they are, whatever comes before them.
 * @template T
 * @param {HTMLElement} list
 * @param {(item: T) => HTMLElement} makeItem
 * @returns {(items: T[]) => void}
 */
export function createList(list, makeItem) {
  /** @type {Map<string, HTMLElement>} */
  let shown = new Map();
  return (items) => {
    /** @type {typeof shown} */
    const next = new Map();
    for (const item of items) {
      const key = JSON.stringify(item);
      next.set(key, shown.get(key) ?? makeItem(item));
    }
    for (const [key, element] of shown) if (!next.has(key)) element.remove();
    [...next.values()].forEach((element, at) => {
      const there = list.children[at] ?? null;
      if (there !== element) list.insertBefore(element, there);
    });
    shown = next;
  };
}

/**
 * @param {HTMLElement} element
 * @param {string} name
 * @param {string} value
 */
export function mark(element, name, value) {
  if (element.dataset[name] !== value) element.dataset[name] = value;
}

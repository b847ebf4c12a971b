// Inputs with suggestions: the combobox with a list box of the ARIA practices.

import { Problem } from "./api.js";
import { make, put } from "./dom.js";

const PAUSE = 150; // milliseconds of no typing
let count = 0;

/** Let an input suggest the results `{id, label}` of `find(text, signal)`. The selected id becomes its value, and `picked(id)` is
 *  called; with `first`, Enter selects the first suggestion unless another is marked. */
export function suggest(input, find, { picked = () => {}, first = false } = {}) {
  const list = make("ul", { role: "listbox", id: `suggestions-${(count += 1)}`, class: "suggestions", hidden: true, "aria-label": "Suggestions" });
  const set = { role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id, autocomplete: "off", autocapitalize: "off", spellcheck: "false" };
  for (const [name, value] of Object.entries(set)) input.setAttribute(name, value);
  const holder = make("span", { class: "picker" });
  input.replaceWith(holder);
  holder.append(input, list);
  let found = [], at = -1, timer = 0, controller = null;

  function close() {
    clearTimeout(timer);
    controller?.abort();
    list.hidden = true;
    found = [];
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }
  function mark(place) {
    at = place;
    [...list.children].forEach((one, number) => one.setAttribute("aria-selected", String(number === at)));
    const marked = list.children[at];
    if (marked) {
      input.setAttribute("aria-activedescendant", marked.id);
      marked.scrollIntoView({ block: "nearest" });
    } else input.removeAttribute("aria-activedescendant");
  }
  function take(one) {
    input.value = one.id;
    close();
    picked(one.id);
  }
  async function look() {
    const text = input.value;
    if (!text) return close();
    controller?.abort();
    controller = new AbortController();
    const { signal } = controller;
    try {
      found = await find(text, signal);
    } catch (error) {
      if (!(error instanceof Problem) && error.name !== "AbortError") throw error;
      return undefined; // the form reports the error
    }
    if (signal.aborted || document.activeElement !== input) return undefined;
    put(list, found.map((one, number) => make("li", { role: "option", id: `${list.id}-${number}`, "aria-selected": "false",
      mousedown: (event) => event.preventDefault(), click: () => take(one) }, one.label)));
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
    return mark(first && found.length ? 0 : -1);
  }
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, PAUSE);
  });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (list.hidden) return;
    if (event.key === "ArrowDown") mark((at + 1) % found.length);
    else if (event.key === "ArrowUp") mark(at <= 0 ? found.length - 1 : at - 1);
    else if (event.key === "Enter" && at >= 0) take(found[at]);
    else return;
    event.preventDefault();
  });
  return input;
}

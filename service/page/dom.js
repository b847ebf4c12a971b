// Elements. All text of the service and of visitors is inserted as text: no module parses HTML.

export const by = (id) => document.getElementById(id);

/** An element with attributes and children; children are elements or text. */
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child != null));
  return element;
}

/** Replace the children of an element. */
export function put(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child != null));
}

/** An id, isolated from the surrounding text, because it may be written from right to left or consist of a space. */
export const idText = (id) => make("bdi", { class: "id" }, id);

/** A number, shown with four places; the element keeps the full value. */
export const number = (value) => make("data", { value: String(value) }, value.toFixed(4));

/** A value of a column, in writing. */
export const written = (value) => {
  if (Array.isArray(value)) return value.map(written).join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
};

/** Names and values, as a list of definitions. */
export function facts(pairs, className = "facts") {
  const rows = pairs.map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  return make("dl", { class: className }, ...(className === "attributes" ? rows.map((row) => make("div", {}, row)) : rows));
}

export const columns = (features) => Object.entries(features).map(([name, value]) => [name, make("bdi", {}, written(value))]);

/** Show the value of a slider. */
export function dial(id) {
  const slider = by(id), shown = by(`${id}-shown`);
  const show = () => { shown.textContent = String(Number(slider.value)); };
  slider.addEventListener("input", show);
  show();
}

/** A table in a scrolling container; the first cell of a row is its header. */
export function table(label, heads, rows) {
  return make("div", { class: heads.length > 2 ? "scroll wide" : "scroll", tabindex: "0", role: "region", "aria-label": label }, make("table", {},
    make("thead", {}, make("tr", {}, heads.map((one) => make("th", { scope: "col" }, one)))),
    make("tbody", {}, rows.map(([head, ...cells]) => make("tr", {}, make("th", { scope: "row" }, head), cells.map((one) => make("td", {}, one)))))));
}

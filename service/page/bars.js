// What a score comes from: fields as bars, single values as a table.

import { facts, make, number } from "./dom.js";

const MOST = 20; // values

/** What one part is called: the fields that meet, or the item's own. */
function named(part) {
  const fields = part.item_fields.join(" + ");
  return part.user_field === null ? `the item’s own: ${fields}` : `${part.user_field} × ${fields}`;
}

function bar(value, largest) {
  const inner = make("span", { class: value < 0 ? "bar less" : "bar" });
  const width = largest > 0 ? (50 * Math.abs(value)) / largest : 0;
  inner.style.width = `${width}%`;
  inner.style.left = `${value < 0 ? 50 - width : 50}%`;
  return make("span", { class: "track", "aria-hidden": "true" }, inner);
}

/** Bars of contributions, and beneath them what they add up to beside what was said, which is `total`. */
export function bars(contributions, total, called) {
  const largest = Math.max(0, ...contributions.map((one) => Math.abs(one.value)));
  const sum = contributions.reduce((before, one) => before + one.value, 0);
  return [
    make("ul", { class: "bars", "aria-label": "Contributions, the largest first" },
      contributions.map((one) => make("li", {}, make("bdi", {}, named(one)), bar(one.value, largest), number(one.value)))),
    facts([["Sum", number(sum)], [called, number(total)], ["Residual", make("data", { value: String(sum - total) }, (sum - total).toExponential(1))]], "attributes"),
  ];
}

const said = (one) => make("bdi", {}, `${one.field} ${one.state === "learnt" ? `= ${one.value}` : `(${one.state})`}`);

/** A table of what pairs of values bring, the largest first. */
export function values(pairs) {
  const rows = pairs.slice(0, MOST).map((one) => make("tr", {},
    make("td", {}, one.user === null ? "everyone" : said(one.user)),
    make("td", {}, one.items.map((item) => make("div", {}, said(item)))),
    make("td", {}, number(one.value))));
  return make("table", {},
    make("caption", {}, pairs.length > MOST ? `The largest ${MOST} of ${pairs.length}` : "All of them"),
    make("thead", {}, make("tr", {}, ["User", "Item", "Brings"].map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, rows));
}

// Explanations of scores: in words, as bars of fields, and as a table of values.

import { ask, call } from "./api.js";
import { itemLabel, know } from "./catalog.js";
import { copies } from "./code.js";
import { facts, make, number, put } from "./dom.js";

const REASONS = 4; // reasons in words
const LISTED = 20; // values of a table
const HISTORY = /\[\d+(-\d+)?\]$/; // the end of the name of a field that reads the user's items

/** Return the name of a contribution: its pair of fields, or the item's own fields. */
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

/** Bars of contributions, and below them their sum next to `total`, the score of the answer. */
export function bars(contributions, total, called) {
  const largest = Math.max(0, ...contributions.map((one) => Math.abs(one.value)));
  const sum = contributions.reduce((before, one) => before + one.value, 0);
  return [
    make("ul", { class: "bars", "aria-label": "Contributions, the largest first" },
      contributions.map((one) => make("li", {}, make("bdi", {}, named(one)), bar(one.value, largest), number(one.value)))),
    facts([["Sum", number(sum)], [called, number(total)], ["Residual", make("data", { value: String(sum - total) }, (sum - total).toExponential(1))]], "attributes"),
  ];
}

const brief = (value) => (value < 100 ? value.toFixed(2) : Math.round(value).toLocaleString());
const isTaken = (one) => one !== null && one.state === "learnt" && HISTORY.test(one.field);
const value = (one) => make("bdi", {}, `${one.field} ${one.state === "learnt" ? `= ${one.value}` : `(${one.state})`}`);
const said = (one) => (isTaken(one) ? [make("bdi", {}, one.field), " = ", itemLabel(one.value)] : value(one));

/** A table of contributions by pairs of values, the largest first. */
function values(pairs) {
  const rows = pairs.slice(0, LISTED).map((one) => make("tr", {},
    make("td", {}, one.user === null ? "everyone" : said(one.user)),
    make("td", {}, one.items.map((item) => make("div", {}, said(item)))),
    make("td", {}, number(one.value))));
  return make("table", {},
    make("caption", {}, pairs.length > LISTED ? `The largest ${LISTED} of ${pairs.length}` : "All of them"),
    make("thead", {}, make("tr", {}, ["User", "Item", "Brings"].map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, rows));
}

/** The pairs grouped by the user's value, the largest sum first; each with the item's values of its largest contribution. */
function reasons(found, user_id) {
  const groups = new Map();
  for (const { user, items, value: brought } of found) {
    const key = JSON.stringify(user === null ? null : isTaken(user) ? ["took", user.value] : [user.field, user.value, user.state]);
    const group = groups.get(key) ?? { user, sum: 0, items: [] };
    group.sum += brought;
    group.items.push({ items, value: brought });
    groups.set(key, group);
  }
  const sorted = [...groups.values()].sort((one, other) => Math.abs(other.sum) - Math.abs(one.sum));
  return sorted.map(({ user, sum, items }) => {
    const most = items.reduce((one, other) => (other.value * sum > one.value * sum ? other : one));
    return { sum, cause: cause(user, sum, user_id), most: most.items.filter((one) => one.state === "learnt") };
  });
}

function cause(user, sum, user_id) {
  const of = sum < 0 ? "despite" : "because of";
  const that = sum < 0 ? "although" : "because";
  if (user === null) return sum < 0 ? "although it is less popular than others" : "because it is popular with all users";
  if (isTaken(user)) return [`${that} you took `, itemLabel(user.value)];
  if (user.state === "learnt" && user.value === user_id) return `${of} your own taste, as learnt`;
  if (user.state === "missing") return [`${that} there is no `, make("bdi", {}, user.field)];
  if (user.state === "unknown") return [`${that} your `, make("bdi", {}, user.field), " is new to the model"];
  return [`${of} your `, make("bdi", {}, user.field), ": ", make("bdi", {}, user.value)];
}

const goesWith = (items, item_id) => {
  const shown = items.filter((one) => one.value !== item_id);
  return shown.length ? [" (it has ", shown.map((one, place) => [place ? " and " : "", make("bdi", {}, `${one.field} ${one.value}`)]), ")"] : null;
};

/** Explain the score of an item in `place`: the largest reasons in words, all contributions folded below them. */
export async function explain(body, item, place) {
  const { user_id, features, context, history, popularity, boosts } = body;
  const question = call("POST", "v1/explain", { user_id, features, context, history, popularity, boosts, item_id: item.item_id, values: true });
  const { value: answer } = await ask(question);
  const merged = item.sources?.length > 0; // then the served score is that of the channels
  await know(answer.values.filter((one) => isTaken(one.user)).map((one) => one.user.value));
  const boosted = answer.contributions.filter((one) => one.user_field === "boosts").map((one) => ({ sum: one.value, cause: `because the request boosts ${one.item_fields[0]}`, most: [] }));
  const all = [...reasons(answer.values, user_id), ...boosted].sort((one, other) => Math.abs(other.sum) - Math.abs(one.sum));
  put(
    place,
    make("ul", { class: "reasons", "aria-label": "The largest reasons" }, all.slice(0, REASONS).map(({ sum, cause, most }) => make("li", {},
      make("data", { value: String(sum), class: sum < 0 ? "down" : "up" }, `${sum < 0 ? "−" : "+"}${brief(Math.abs(sum))}`), make("span", {}, cause, goesWith(most, item.item_id))))),
    all.length > REASONS ? make("p", { class: "quiet" }, `and ${all.length - REASONS} smaller ones`) : null,
    make("details", {}, make("summary", {}, "All parts of the score"), bars(answer.contributions, merged ? answer.score : item.score, merged ? "Score of the model" : "Served score"),
      make("details", {}, make("summary", {}, "Value by value"), values(answer.values)), copies([question], "this explanation")),
  );
}

// Two lists side by side: of two users, or with two weights of popularity.

import { ask, call, turns } from "./api.js";
import { findUsers, itemColumns, itemLabel, note, settle } from "./catalog.js";
import { copies } from "./code.js";
import { by, dial, make, number, put } from "./dom.js";
import { suggest } from "./picker.js";
import { attempt, wholeIn } from "./troubles.js";

const turn = turns();

export function openCompare() {
  for (const side of ["left", "right"]) {
    dial(`${side}-popularity`);
    suggest(by(`${side}-user`), findUsers);
  }
  by("compare-form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(by("compare-error"), compare, by("compare-form"));
  });
}

function request(side) {
  const user = by(`${side}-user`).value;
  return { ...(user ? { user_id: user } : {}), n: wholeIn(by("compare-n")), popularity: Number(by(`${side}-popularity`).value), fields: itemColumns().slice(0, 100) };
}

async function compare() {
  const signal = turn();
  const questions = ["left", "right"].map((side) => call("POST", "v1/recommend", request(side)));
  const [left, right] = (await Promise.all(questions.map((one) => ask(one, signal)))).map((answer) => answer.value);
  for (const one of [left, right]) {
    settle(one.bundle, one.sequence);
    note(one.items);
  }
  const rankOf = (list) => new Map(list.items.map((one, at) => [one.item_id, at + 1]));
  const [before, after] = [rankOf(left), rankOf(right)];
  const both = [...after.keys()].filter((id) => before.has(id)).length;
  const most = Math.max(before.size, after.size);
  put(by("compare-status"), `Overlap@${questions[0].body.n}: ${most ? (both / most).toFixed(2) : "none"} (${both} of ${most} items are in both lists).`
    + (left.bundle === right.bundle && left.sequence === right.sequence ? "" : " The lists come from different versions of the catalogue."));
  const rows = Array.from({ length: most }, (_, at) => make("tr", {},
    make("th", { scope: "row" }, `${at + 1}`),
    cell(left.items[at]),
    cell(right.items[at]),
    make("td", {}, right.items[at] ? move(before.get(right.items[at].item_id), at + 1) : null)));
  const heads = ["Rank", `Left: user ${left.user}`, `Right: user ${right.user}`, "Right against left"];
  put(by("compare-result"), make("table", {},
    make("caption", {}, "Change of place from the left list to the right one"),
    make("thead", {}, make("tr", {}, heads.map((one) => make("th", { scope: "col" }, one)))),
    make("tbody", {}, rows)));
  put(by("compare-code"), copies(questions, "both lists"));
}

const cell = (item) => make("td", {}, item ? [itemLabel(item.item_id), " ", number(item.score)] : null);

function move(before, after) {
  if (before === undefined) return "new";
  if (before === after) return "same";
  return before > after ? make("span", { class: "up" }, `up ${before - after}`) : make("span", { class: "down" }, `down ${after - before}`);
}

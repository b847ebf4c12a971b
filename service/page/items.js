// Change the catalogue and show the effect on the next answer.

import { ask, call, pathOf } from "./api.js";
import { findItems, itemColumns, itemLabel, know, note, schema, settle } from "./catalog.js";
import { copies } from "./code.js";
import { by, idText, make, put } from "./dom.js";
import { columnForm } from "./fields.js";
import { suggest } from "./picker.js";
import { again, asked } from "./recommend.js";
import { attempt, jsonIn, textIn } from "./troubles.js";

let form = null;

export function openItems() {
  suggest(by("item"), findItems, { picked: () => doing(load), first: true });
  by("item").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.defaultPrevented) return;
    event.preventDefault(); // the text may be part of a title: it must not become a new item
    doing(load);
  });
  const acts = { "item-load": load, "item-delete": remove };
  for (const [id, act] of Object.entries(acts)) by(id).addEventListener("click", () => doing(act));
  by("item-form").addEventListener("submit", (event) => {
    event.preventDefault();
    doing(save);
  });
}

/** Rebuild the form for the columns of the items. */
export function fitItem() {
  form = columnForm(by("item-columns"), itemColumns(), schema.filter, schema.item_values, "/items/0/features", false);
}

async function doing(act) {
  const buttons = [...by("item-form").querySelectorAll("button")];
  const focused = document.activeElement;
  for (const one of buttons) one.disabled = true; // a change is not sent twice
  put(by("item-status"));
  try {
    await attempt(by("item-error"), act, by("item-form"));
  } finally {
    for (const one of buttons) one.disabled = false;
    if (document.activeElement === document.body) focused.focus();
  }
}

const named = () => textIn(by("item"), "Name an item");

async function save() {
  const item_id = named();
  const features = { ...form?.read(), ...jsonIn(by("item-features")) };
  const question = call("POST", "v1/items:upsert", { items: [{ item_id, features }] });
  const { value } = await ask(question);
  settle("", value.sequence);
  note([{ item_id, fields: features }]);
  put(by("item-code"), copies([question], "this change"));
  const warnings = value.warnings.map((one) => make("p", { class: "quiet" }, one));
  const saved = make("p", {}, `Saved as change ${value.sequence}: `, itemLabel(item_id), value.known ? " was in the catalogue before." : " is new in the catalogue.");
  put(by("item-status"), saved, warnings);
  await again(item_id);
  const { value: standing } = await ask(call("POST", "v1/why-not", { ...asked(), item_id }));
  const who = asked().user_id === undefined ? ["an unknown user"] : ["user ", idText(asked().user_id)];
  put(by("item-status"), saved, warnings,
    make("p", {}, "For ", ...who, ` it ranks ${standing.rank} of ${standing.eligible}, `,
      standing.listed === null ? "which is not in the list. " : `place ${standing.listed} of the list. `, make("a", { href: "#recommend" }, "See the list")));
}

async function load() {
  const item_id = named();
  const question = call("GET", pathOf("v1/items", item_id));
  const { value } = await ask(question);
  form.write(value.features);
  by("item-features").value = "";
  note([{ item_id, fields: value.features }]);
  put(by("item-code"), copies([question], "this item"));
  put(by("item-status"), make("p", {}, itemLabel(item_id), ` after change ${value.sequence}.`));
}

async function remove() {
  const item_id = named();
  const question = call("DELETE", pathOf("v1/items", item_id));
  await know([item_id]);
  const label = itemLabel(item_id);
  if (!window.confirm(`Delete the item ${JSON.stringify(item_id)} from the catalogue?`)) return;
  const { value } = await ask(question);
  put(by("item-code"), copies([question], "this change"));
  put(by("item-status"), make("p", {}, `Deleted as change ${value.sequence}: `, label, value.known ? " is in no answer any more." : " was not in the catalogue."));
  await again();
}

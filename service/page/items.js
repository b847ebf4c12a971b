// Changing the catalogue, and seeing the change in the next answer.

import { ask, call, pathOf } from "./api.js";
import { copies } from "./code.js";
import { by, idText, make, put } from "./dom.js";
import { asked, recommend } from "./recommend.js";
import { attempt, jsonIn, textIn } from "./troubles.js";

const FIELDS = { items: "item-features", features: "item-features", item_id: "item" };

export function openItems() {
  const acts = { "item-load": load, "item-delete": remove };
  for (const [id, act] of Object.entries(acts)) by(id).addEventListener("click", () => doing(act));
  by("item-form").addEventListener("submit", (event) => {
    event.preventDefault();
    doing(save);
  });
}

async function doing(act) {
  const buttons = [...by("item-form").querySelectorAll("button")];
  const focused = document.activeElement;
  for (const one of buttons) one.disabled = true; // a change is not sent twice
  put(by("item-status"));
  try {
    await attempt(by("item-error"), act, FIELDS);
  } finally {
    for (const one of buttons) one.disabled = false;
    if (document.activeElement === document.body) focused.focus();
  }
}

const named = () => textIn("item", "/item_id", "Name an item");

async function save() {
  const item_id = named();
  const features = jsonIn("item-features", "/features") ?? {};
  const question = call("POST", "v1/items:upsert", { items: [{ item_id, features }] });
  const { value } = await ask(question);
  put(by("item-code"), copies([question], "this change"));
  const saved = make("p", {}, `Saved as change ${value.sequence}: `, idText(item_id), value.known ? " was in the catalogue before." : " is new in the catalogue.");
  put(by("item-status"), saved);
  await recommend(asked(), item_id);
  const { value: stands } = await ask(call("POST", "v1/why-not", { ...asked(), item_id }));
  const who = asked().user_id === undefined ? ["an unknown user"] : ["user ", idText(asked().user_id)];
  put(by("item-status"), saved,
    make("p", {}, "For ", ...who, ` it ranks ${stands.rank} of ${stands.eligible}, `,
      stands.listed === null ? "which is not in the list. " : `place ${stands.listed} of the list. `, make("a", { href: "#recommend" }, "See the list")));
}

async function load() {
  const item_id = named();
  const question = call("GET", pathOf("v1/items", item_id));
  const { value } = await ask(question);
  by("item-features").value = JSON.stringify(value.features, null, 2);
  put(by("item-code"), copies([question], "this item"));
  put(by("item-status"), make("p", {}, idText(item_id), ` as it is at change ${value.sequence}.`));
}

async function remove() {
  const item_id = named();
  const question = call("DELETE", pathOf("v1/items", item_id));
  if (!window.confirm(`Delete the item ${JSON.stringify(item_id)} from the catalogue?`)) return;
  const { value } = await ask(question);
  put(by("item-code"), copies([question], "this change"));
  put(by("item-status"), make("p", {}, `Deleted as change ${value.sequence}: `, idText(item_id), value.known ? " is in no answer any more." : " was not in the catalogue."));
  await recommend(asked());
}

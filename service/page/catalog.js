// Columns of the served bundle, and titles, images and other values of items.

import { ask, call } from "./api.js";
import { by, make, written } from "./dom.js";

const MOST = 1000; // items of one question

/** Columns that requests may name, as /v1/info lists them. */
export let schema = { features: [], context: [], filter: {}, types: {}, values: {}, item_values: {}, boosts: [], title: null, user_title: null, history: false };
let version = "";
const known = new Map(); // id -> values by column; null for an item that the catalogue lacks

export function learn(info) {
  schema = info.columns;
  for (const part of ["filter", "types", "values", "item_values"]) Object.setPrototypeOf(schema[part], null); // a column may be called "constructor"
  for (const id of ["user", "left-user", "right-user"])
    document.querySelector(`label[for="${id}"]`).textContent = schema.user_title ? "User id or name" : "User id";
  settle(info.bundle, info.changes);
}

/** Columns of items, other than their id. */
export const itemColumns = () => Object.keys(schema.filter).filter((name) => name !== schema.item_id);

/** Forget values that another version, or another change of items, may have replaced. */
export function settle(bundle, sequence) {
  const now = `${bundle} ${sequence}`;
  if (now !== version) known.clear();
  version = now;
}

/** Note the values that came with an answer. */
export function note(items) {
  for (const item of items) if (item.fields) known.set(item.item_id, item.fields);
}

/** Ask for the values of items that are not known yet. */
export async function know(ids, signal) {
  const lacking = [...new Set(ids)].filter((id) => !known.has(id));
  const fields = itemColumns().slice(0, 100);
  for (let at = 0; at < lacking.length && fields.length; at += MOST) {
    const items = lacking.slice(at, at + MOST);
    note((await ask(call("POST", "v1/score", { items, fields }), signal)).value.items);
    for (const id of items) if (!known.has(id)) known.set(id, null);
  }
}

const valuesOf = (id) => known.get(id) ?? {};

const titleOf = (id) => (schema.title === null ? undefined : valuesOf(id)[schema.title]);

/** The title of an item, or its id, as text. */
export const nameOf = (id) => titleOf(id) || id;

/** An item: image, title and id, each where there is one. Both may be written from right to left, or hold markup. */
export function itemLabel(id, className = "") {
  const title = titleOf(id);
  return make("span", { class: `item ${className}` }, picture(id),
    make("span", { class: "names" },
      title ? make("bdi", { class: "title" }, title) : null,
      make("bdi", { class: title ? "id small" : "id" }, id)));
}

/** Addresses among the values of an item that begin with an origin whose images the service lets this page show. */
function isPicture(value) {
  const allowed = by("main").dataset.images.split(" ").filter(Boolean);
  return typeof value === "string" && allowed.some((origin) => value.startsWith(`${origin}/`));
}

function picture(id) {
  const address = Object.values(valuesOf(id)).find(isPicture);
  if (!address) return null;
  const image = make("img", { src: address, alt: "", width: 48, height: 48, loading: "lazy", referrerpolicy: "no-referrer" });
  image.addEventListener("error", () => image.remove());
  return image;
}

/** The values of an item beside title and image, as names and elements. */
export const attributesOf = (id) => Object.entries(valuesOf(id))
  .filter(([name, value]) => name !== schema.title && !isPicture(value))
  .map(([name, value]) => [name, make("bdi", {}, written(value))]);

/** Items whose title or id holds a text. */
export async function findItems(text, signal) {
  const { value } = await ask(call("GET", `v1/items?page_size=8&search=${encodeURIComponent(text.toWellFormed())}`), signal);
  note(value.items.map(({ item_id, features }) => ({ item_id, fields: features })));
  return value.items.map(({ item_id }) => ({ id: item_id, label: itemLabel(item_id) }));
}

/** A user: title and id, each where there is one. */
export const userLabel = (id, title) => make("span", { class: "item" }, make("span", { class: "names" },
  typeof title === "string" ? make("bdi", { class: "title" }, title) : null, make("bdi", { class: typeof title === "string" ? "id small" : "id" }, id)));

/** Users whose id begins with a text, or their title or a word of it; none where users may not be listed. */
export async function findUsers(text, signal) {
  try {
    const { value } = await ask(call("GET", `v1/users?page_size=8&search=${encodeURIComponent(text.toWellFormed())}`), signal);
    return value.users.map(({ user_id, title }) => ({ id: user_id, label: userLabel(user_id, title) }));
  } catch (error) {
    if (error.status === 401 || error.status === 403) return [];
    throw error;
  }
}

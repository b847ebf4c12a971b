// Forms made from columns and their types. A control has an `element`, `read()`, which returns undefined if it is empty, and
// `write(value)`. `data-at` of an input is the JSON pointer of its value, so that errors of the service are shown next to it.

import { findItems, itemColumns, itemLabel, know, schema } from "./catalog.js";
import { make, put, written } from "./dom.js";
import { suggest } from "./picker.js";

let count = 0;
const newId = () => `field-${(count += 1)}`;

/** Extend a JSON pointer by a name. */
const at = (base, name) => `${base}/${String(name).replaceAll("~", "~0").replaceAll("/", "~1")}`;

/** A control below its label. */
function labelled(label, control, hidden = false) {
  const id = newId();
  const [input] = control.element.matches("input, select, textarea") ? [control.element] : control.element.querySelectorAll("input, select, textarea");
  input.id = id;
  return make("div", { class: "field" }, make("label", { for: id, class: hidden ? "unseen" : "" }, label), control.element);
}

function optionsOf(values) {
  return make("datalist", { id: newId() }, values.map((value) => make("option", { value })));
}

function textControl(pointer, values, parse, attributes = {}) {
  const list = values.length ? optionsOf(values) : null;
  const input = make("input", { autocomplete: "off", autocapitalize: "off", spellcheck: "false", list: list?.id, "data-at": pointer, ...attributes });
  return {
    element: list ? make("span", { class: "joined" }, input, list) : input,
    read: () => (input.value === "" ? undefined : parse(input.value)),
    write: (value) => { input.value = value === undefined ? "" : written(value); },
    stored: (text) => { input.placeholder = text; },
  };
}

/** A choice among `[value, text]`; the first one means no value. */
function choice(pointer, options, none = "any") {
  const blank = none === null ? [] : [make("option", { value: "" }, none)];
  const element = make("select", { "data-at": pointer }, blank, options.map(([value, text]) => make("option", { value: JSON.stringify(value) }, text)));
  return {
    element,
    read: () => (element.value === "" ? undefined : JSON.parse(element.value)),
    write: (value) => {
      const text = value === undefined ? "" : JSON.stringify(value);
      if (![...element.options].some((one) => one.value === text)) element.append(make("option", { value: text }, written(value)));
      element.value = text;
    },
    stored: (text) => { element.options[0].textContent = text; },
  };
}

/** Several values, each of which can be removed; `draw` shows one, `suggestions` are those of the input that adds values. */
function several(pointer, { parse = (text) => text, values = [], find = null, draw = (one) => make("bdi", {}, written(one)) } = {}) {
  let chosen = [], whole = null;
  const list = make("ul", { class: "chips" });
  const entry = textControl(pointer, values, (text) => text);
  const input = entry.element.matches("input") ? entry.element : entry.element.querySelector("input");
  const show = () => put(list, chosen.map((one, number) => make("li", {}, draw(one),
    make("button", { type: "button", class: "remove", click: () => { chosen.splice(number, 1); show(); input.focus(); } }, "×", make("span", { class: "unseen" }, ` Remove ${written(one)}`)))));
  const add = async () => {
    const value = entry.read();
    if (value === undefined) return;
    if (find) await know([value]);
    chosen.push(parse(value));
    input.value = "";
    show();
  };
  const holder = make("span", { class: "joined" }, entry.element, make("button", { type: "button", click: add }, "Add"));
  if (find) suggest(input, find, { picked: add, first: true });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.defaultPrevented || input.value === "") return;
    event.preventDefault();
    add();
  });
  return {
    element: make("div", { class: "several" }, list, holder),
    read: () => {
      const all = [...chosen, ...(entry.read() === undefined ? [] : [parse(entry.read())])];
      return all.length ? (all.length === 1 && all[0] === whole ? whole : all) : undefined;
    },
    write: (value) => {
      whole = typeof value === "string" ? value : null; // a text that the bundle itself cuts into values
      chosen = value === undefined ? [] : [value].flat();
      show();
    },
    stored: (text) => { input.placeholder = text; },
  };
}

/** Several items, found by their titles. */
const severalItems = (pointer) => several(pointer, { find: findItems, draw: (id) => itemLabel(id) });

/** One item, found by its title, which is shown next to it. */
function oneItem(pointer) {
  const control = textControl(pointer, [], (text) => text);
  const holder = make("span", {}, control.element);
  suggest(control.element, findItems, { first: true });
  return { ...control, element: holder };
}

// Anything but a number is sent as text, so that the service reports what is wrong with it.
const numeric = (text) => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text);

/** A control for a value of a type as /v1/info names it; `known` are values to choose from, all of them if it is `closed`. */
function control(type, pointer, known = [], closed = false) {
  const parse = /^(integer|float)/.test(type.replace("list of ", "")) ? numeric : (text) => text;
  if (type.startsWith("list of ")) return several(pointer, { parse, values: known });
  if (type === "boolean") return choice(pointer, [[true, "yes"], [false, "no"]]);
  if (/^(integer|float)/.test(type)) return textControl(pointer, known, parse, { inputmode: "decimal", class: "short" });
  if (closed && known.length && known.length < 30) return choice(pointer, known.map((value) => [value, value]));
  const hints = { date: { type: "date" }, clock: { type: "time", step: "1" }, time: { placeholder: "2026-01-31T18:00:00Z" } };
  return textControl(pointer, known, parse, hints[type]);
}

/** Controls for columns in `place`: `read` returns an object of the values entered, or undefined if there are none. */
export function columnForm(place, names, types, known, pointer, closed) {
  const controls = new Map(names.map((name) => [name, control(types[name] ?? "text", at(pointer, name), known[name], closed)]));
  put(place, names.length ? [...controls].map(([name, one]) => labelled(name, one)) : make("p", { class: "quiet" }, "The model reads none."));
  const entries = () => [...controls].map(([name, one]) => [name, one.read()]).filter(([, value]) => value !== undefined);
  return {
    read: () => (entries().length ? Object.fromEntries(entries()) : undefined),
    write: (values) => { for (const [name, one] of controls) one.write((Object.hasOwn(values, name) ? values[name] : null) ?? undefined); },
    /** Show the stored values in empty controls. */
    stored: (values) => { for (const [name, one] of controls) one.stored(Object.hasOwn(values, name) && values[name]?.length !== 0 ? `stored: ${written(values[name])}` : ""); },
  };
}

/** Rows of small forms; a button adds more. `build(base)` returns the parts of a row and its reader, `pointer(number)` its
 *  JSON pointer. */
function repeated(place, name, pointer, build) {
  const rows = [];
  const list = make("div", { class: "repeated" });
  const renumber = () => rows.forEach((row, number) => {
    for (const one of row.element.querySelectorAll("[data-at]")) one.dataset.at = one.dataset.at.replace(row.base, pointer(number));
    row.base = pointer(number);
  });
  const add = () => {
    const base = pointer(rows.length);
    const row = { ...build(base), base };
    row.element = make("fieldset", {}, make("legend", { class: "unseen" }, name), row.parts,
      make("button", { type: "button", class: "remove", click: () => {
        rows.splice(rows.indexOf(row), 1);
        row.element.remove();
        renumber();
        button.focus();
      } }, "×", make("span", { class: "unseen" }, ` Remove this ${name}`)));
    rows.push(row);
    list.append(row.element);
    row.element.querySelector("select, input").focus();
  };
  const button = make("button", { type: "button", click: add }, `Add a ${name}`);
  put(place, list, button);
  return { read: () => rows.map((row) => row.read()).filter((one) => one !== undefined) };
}

/** A choice that decides which further parts are shown: `kinds` gives a text and the parts, `[name, label, control]`, by kind. */
function chosenParts(label, kinds, base) {
  const select = make("select", { "data-at": base }, Object.entries(kinds).map(([kind, { text }]) => make("option", { value: kind }, text)));
  const place = make("span", { class: "parts" });
  let parts = [];
  const show = () => {
    parts = kinds[select.value].parts(base);
    put(place, parts.map(([, name, one]) => labelled(name, one)));
  };
  select.addEventListener("change", show);
  show();
  return {
    parts: [labelled(label, { element: select }), place],
    kind: () => select.value,
    values: () => Object.fromEntries(parts.map(([name, , one]) => [name, one.read()]).filter(([, value]) => value !== undefined)),
  };
}

// Operators of filters: text, supported types, and whether the operator takes one value or several.
const OPERATORS = {
  equals: ["is", (type) => !type.startsWith("list"), 1],
  in: ["is one of", (type) => type === "text", 2],
  not: ["is not", (type) => !type.startsWith("list"), 1],
  gte: ["is at least", (type) => /^(integer|float|date|time|clock)/.test(type), 1],
  lte: ["is at most", (type) => /^(integer|float|date|time|clock)/.test(type), 1],
  any: ["has any of", (type) => type.startsWith("list"), 2],
  all: ["has all of", (type) => type.startsWith("list"), 2],
  missing: ["is missing", () => true, 0],
  exists: ["is not missing", () => true, 0],
};
const WORDS = ["all", "any", "not", "available", "columns"]; // keywords of the filter language; a column with such a name is written below `columns`

function condition(name, type, base) {
  const known = schema.item_values[name] ?? [];
  const fitting = Object.entries(OPERATORS).filter(([, [, fits]]) => fits(type));
  const one = type.replace("list of ", "");
  const kinds = Object.fromEntries(fitting.map(([operator, [text, , values]]) => [operator, { text, parts: () => {
    if (values === 0) return [];
    return [["value", "Value", values === 2 ? control(`list of ${one}`, base, known) : control(one, base, known)]];
  } }]));
  const chosen = chosenParts("Condition", kinds, base);
  const read = () => {
    const operator = chosen.kind();
    const { value } = chosen.values();
    const whole = (wanted) => (WORDS.includes(name) ? { columns: { [name]: wanted } } : { [name]: wanted });
    if (OPERATORS[operator][2] === 0) return whole({ [operator]: true });
    if (value === undefined) return undefined;
    if (operator === "not") return { not: whole({ equals: value }) };
    return whole({ [operator]: value });
  };
  return { parts: chosen.parts, read };
}

/** A form for a filter that requires all of its conditions. */
export function filterForm(place) {
  const names = [...itemColumns(), schema.item_id];
  const form = repeated(place, "condition", () => "/filter", (base) => {
    const column = make("select", { "data-at": base }, names.map((name) => make("option", { value: name }, name)));
    const rest = make("span", { class: "parts" });
    let part = null;
    const show = () => {
      part = condition(column.value, schema.filter[column.value], base);
      put(rest, part.parts);
    };
    column.addEventListener("change", show);
    show();
    return { parts: [labelled("Column", { element: column }), rest], read: () => part.read() };
  });
  return {
    ...form,
    read: () => {
      const conditions = form.read();
      return conditions.length > 1 ? { all: conditions } : conditions[0];
    },
  };
}

const columnChoice = (base, name) => [name, "Column", choice(at(base, name), itemColumns().map((one) => [one, one]), null)];
const numberPart = (base, name, label, value) => {
  const one = textControl(at(base, name), [], numeric, { inputmode: "decimal", class: "short" });
  one.write(value);
  return [name, label, one];
};

const RULES = {
  quota: { text: "At most so many of each", parts: (base) => [columnChoice(base, "column"), numberPart(base, "most", "Most", 3)] },
  dedupe: { text: "Only the best of each", parts: (base) => [columnChoice(base, "column")] },
  diversify: { text: "Diversify", parts: (base) => [numberPart(base, "relevance", "Relevance, 0 to 1", 0.7)] },
  pin: { text: "Pin an item", parts: (base) => [["item", "Item", oneItem(at(base, "items"))], numberPart(base, "position", "Place", 1)] },
};

export const rulesForm = (place) => repeated(place, "rule", (number) => `/rules/${number}`, (base) => {
  const chosen = chosenParts("Rule", RULES, base);
  return {
    parts: chosen.parts,
    read: () => {
      const { item, position, ...values } = chosen.values();
      return { kind: chosen.kind(), ...values, ...(item === undefined ? {} : { items: { [item]: position } }) };
    },
  };
});

export function boostsForm(place) {
  if (!schema.boosts.length) {
    put(place, make("p", { class: "quiet" }, "The configuration names none in index.boosts."));
    return { read: () => undefined };
  }
  const form = repeated(place, "boost", () => "/boosts", (base) => {
    const name = choice(base, schema.boosts.map((one) => [one, one]), null);
    const [, , weight] = numberPart(base, "weight", "Weight", 1);
    return { parts: [labelled("Boost", name), labelled("Weight", weight)], read: () => [name.read(), weight.read()] };
  });
  return { read: () => (form.read().length ? Object.fromEntries(form.read().filter(([, weight]) => weight !== undefined)) : undefined) };
}

const CHANNELS = {
  model: { text: "The model", parts: (base) => [numberPart(base, "weight", "Weight", 1)] },
  popular: { text: "Most popular", parts: (base) => [numberPart(base, "weight", "Weight", 1)] },
  latest: { text: "Newest", parts: (base) => [
    ["column", "By", choice(at(base, "column"), itemColumns().map((one) => [one, one]), "order of the catalogue")],
    numberPart(base, "weight", "Weight", 1)] },
  list: { text: "These items", parts: (base) => [["items", "Items", severalItems(at(base, "items"))], numberPart(base, "weight", "Weight", 1)] },
};

export function channelsForm(place) {
  const merge = choice("/channels/merge", [["reciprocal_rank", "by ranks"], ["weights", "by weighted scores"]], null);
  const rows = make("div", {});
  const form = repeated(rows, "channel", (number) => `/channels/lists/${number}`, (base) => {
    const chosen = chosenParts("Channel", CHANNELS, base);
    return { parts: chosen.parts, read: () => ({ kind: chosen.kind(), ...chosen.values() }) };
  });
  put(place, rows, labelled("Merge", merge));
  return { read: () => (form.read().length ? { lists: form.read(), merge: merge.read() } : undefined) };
}

// The first view: the request, the recommended items, and their explanations.

import { ask, call, pathOf, Problem, turns } from "./api.js";
import { attributesOf, findItems, findUsers, itemColumns, itemLabel, know, nameOf, note, schema, settle, userLabel } from "./catalog.js";
import { copies } from "./code.js";
import { by, columns, dial, facts, make, number, put } from "./dom.js";
import { boostsForm, channelsForm, columnForm, filterForm, rulesForm } from "./fields.js";
import { suggest } from "./picker.js";
import { attempt, jsonIn, textIn, wholeIn } from "./troubles.js";
import { bars, explain } from "./why.js";

const SHOWN = 20; // items of a history
const MOST = 1000; // that a request may have
const DRAWN = 1000; // users of whom one is drawn
const NOT_ASKED = ["fields", "because", "explain", "tokens", "page_token", "description"]; // keys of requests for lists that requests for why-not lack
const turn = turns();
let forms = null; // of features, context, filter, rules, boosts and channels
let scenarios = new Map();
let last = null; // the last request that was answered
let begun = false; // whether a list was asked for
let history = null; // ids that replace the stored history; null for that one
let person = { id: "", history: [], features: {} }; // user of the last answer, with the known values

export function openRecommend() {
  dial("popularity");
  suggest(by("user"), findUsers, { picked: () => recommend() });
  suggest(by("history-add"), findItems, { picked: (id) => edit([id, ...current()]), first: true });
  suggest(by("why-not-item"), findItems, { first: true });
  by("recommend-form").addEventListener("submit", (event) => {
    event.preventDefault();
    recommend();
  });
  by("history-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (by("history-add").value) edit([by("history-add").value, ...current()]);
  });
  by("history-stored").addEventListener("click", () => edit(null));
  by("random").addEventListener("click", () => attempt(by("recommend-error"), someUser, by("recommend-form")));
  by("scenario").addEventListener("change", chooseScenario);
  by("why-not-form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(by("why-not-error"), whyNot, by("why-not-form"));
  });
}

/** Rebuild the forms for the columns of the served bundle. */
export async function fitForms() {
  const { features, context, types, values } = schema;
  forms = {
    features: columnForm(by("features"), features.filter((name) => name !== schema.user_id), types, values, "/features", true),
    context: columnForm(by("context"), context, types, values, "/context", true),
    filter: filterForm(by("filter")),
    rules: rulesForm(by("rules")),
    boosts: boostsForm(by("boosts")),
    channels: channelsForm(by("channels")),
  };
  const chosen = by("scenario").value;
  scenarios = new Map((await ask(call("GET", "v1/scenarios"))).value.scenarios.map((one) => [one.name, one]));
  put(by("scenario"), make("option", { value: "" }, "None: as set below"), [...scenarios.keys()].map((name) => make("option", { value: name }, name)));
  by("scenario").value = scenarios.has(chosen) ? chosen : "";
  by("scenarios-field").hidden = !scenarios.size;
  chooseScenario();
}

const scenario = () => scenarios.get(by("scenario").value);

/** Use a scenario instead of the form: its number of items is shown, and the controls of its other settings are disabled. */
function chooseScenario() {
  const one = scenario();
  by("shaping").disabled = Boolean(one);
  by("shaping").hidden = Boolean(one);
  if (one) by("n").value = one.settings.n ?? 10;
  put(by("scenario-note"), one ? [one.description, " ", ...Object.entries(one.settings).map(([name, value]) => make("code", {}, `${name} = ${JSON.stringify(value)} `))] : null);
}

/** Show the list of the first known user at the start; a list without a user if users may not be listed. */
export async function begin() {
  if (begun) return;
  let user_id;
  try {
    user_id = (await ask(call("GET", "v1/users?page_size=1"))).value.users[0]?.user_id;
  } catch (error) {
    if (error.status === 401) return;
  }
  if (begun) return;
  by("user").value = user_id ?? "";
  await recommend(questionOf({ ...(user_id === undefined ? {} : { user_id }), n: 10, popularity: 1 }));
  by("recommend-status").prepend(user_id === undefined ? "To begin with, for an unknown user: " : "To begin with, for the first user: ");
}

/** Request a list for a random user among the first that the service lists. */
async function someUser() {
  const { value } = await ask(call("GET", `v1/users?page_size=${DRAWN}`));
  const users = value.users.map((one) => one.user_id).filter((id) => !/[\r\n]/.test(id)); // which an input cannot hold
  if (!users.length) throw new Problem("No user is known");
  by("user").value = users[Math.floor(Math.random() * users.length)];
  await recommend();
}

/** A request for a list, with the values of its items. */
const questionOf = (body) => call("POST", "v1/recommend", { ...body, ...(itemColumns().length ? { fields: itemColumns().slice(0, 100) } : {}) });

/** Return the request of the form. */
function request() {
  const user = by("user").value;
  if (user !== person.id) history = null; // it was of another user
  const body = { n: wholeIn(by("n")) };
  if (user) body.user_id = user;
  const { features, context, ...shaping } = forms ?? {};
  const add = (parts) => {
    for (const [name, form] of Object.entries(parts)) {
      const value = form?.read();
      if (value !== undefined && (!Array.isArray(value) || value.length)) body[name] = value;
    }
  };
  add({ features, context });
  if (history !== null) body.history = history;
  const one = scenario();
  if (!one) {
    body.popularity = Number(by("popularity").value);
    add(shaping);
    if (!by("seen").checked) body.exclude_seen = false;
    if (by("because").value !== "0") body.because = Number(by("because").value);
  }
  Object.assign(body, jsonIn(by("more")));
  return one ? call("POST", `${pathOf("v1/scenarios", one.name)}:recommend`, body) : questionOf(body);
}

/** Return the request of the list on display; without a list, that of an unknown user. */
export function asked() {
  const body = { n: 10, popularity: 1, ...(last?.settings ?? {}), ...(last?.question.body ?? {}) };
  for (const name of NOT_ASKED) delete body[name];
  return body;
}

/** Send the request of the form, or repeat a request, and show the answer with the item `mark` highlighted. */
export function recommend(again = null, mark = null) {
  const signal = turn();
  begun = true;
  return attempt(by("recommend-error"), async () => {
    const question = again ?? request();
    const settings = again === last?.question ? last?.settings : scenario()?.settings;
    put(by("recommend-status"), "Asking …");
    by("list").setAttribute("aria-busy", "true");
    try {
      const answer = await ask(question, signal);
      settle(answer.value.bundle, answer.value.sequence);
      note(answer.value.items);
      for (const one of answer.value.rows ?? []) note(one.items);
      await know([...answer.value.items, ...(answer.value.rows ?? []).flatMap((one) => [{ item_id: one.because }, ...one.items])].map((one) => one.item_id), signal);
      last = { question, settings };
      show(answer, mark, signal);
    } catch (error) {
      if (!signal.aborted) {
        put(by("recommend-status"), "No answer.");
        by("list").removeAttribute("aria-busy");
      }
      throw error;
    }
  }, by("recommend-form"));
}

/** Repeat the last request. */
export const again = (mark = null) => recommend(last?.question ?? questionOf({ n: 10, popularity: 1 }), mark);

function show(answer, mark, signal) {
  const { items, user, rows = [] } = answer.value;
  const { body } = last.question;
  put(by("badges"), badges(answer));
  put(by("list"), items.map((item, at) => row(item, at + 1, item.item_id === mark, answer.value.recommendation_id)));
  showMore(answer.value.next_page_token);
  put(by("rows"), rows.map((one) => make("section", {}, make("h3", {}, "Because you took ", itemLabel(one.because)), plain(one.items))));
  put(by("recommend-code"), copies([last.question], "this list"));
  put(by("why-not"));
  const wanted = body.n ?? 10;
  put(by("recommend-status"), `${items.length} ${items.length === 1 ? "item" : "items"}${items.length < wanted ? `; no more than that are left of ${wanted}` : ""}.`);
  showUser(body.user_id, user, signal).then(() => {
    if (!signal.aborted) by("list").removeAttribute("aria-busy");
  });
}

/** A button that appends the next page of the list, if there is one. */
function showMore(page_token) {
  const button = make("button", { type: "button", click: () => attempt(by("recommend-error"), more) }, "More");
  const more = async () => {
    const { question } = last;
    button.disabled = true;
    const { value } = await ask(call("POST", question.path, { page_token }));
    note(value.items);
    await know(value.items.map((one) => one.item_id));
    if (last.question !== question) return; // a different list is shown by now
    const shown = by("list").childElementCount;
    by("list").append(...value.items.map((item, at) => row(item, shown + at + 1, false, value.recommendation_id)));
    put(by("recommend-status"), `${by("list").childElementCount} items.`);
    showMore(value.next_page_token);
    by("list").children[shown]?.querySelector("button").focus();
  };
  put(by("next-page"), page_token ? button : null);
}

function badges({ value, requestId, timing }) {
  const badge = (text, warn = false) => make("li", warn ? { class: "warn" } : {}, text);
  const quiet = [`bundle ${value.bundle}`, `sequence ${value.sequence}`, `request ${requestId}`, ...timing.split(",").filter(Boolean).map((one) => `${one.trim().replace(";dur=", " ")} ms`)];
  return [
    value.scenario ? badge(`scenario ${value.scenario}`) : null,
    badge(`user ${value.user}`, value.user === "unknown"),
    badge(value.exact ? "exact" : "approximate"),
    ...(value.degraded.length ? value.degraded.map((one) => badge(`degraded: ${one.part}: ${one.reason}`, true)) : [badge("not degraded")]),
    ...value.unknown.map((one) => badge(`value never seen: ${one}`, true)),
    ...value.warnings.map((one) => badge(one, true)),
    ...quiet.map((one) => badge(one)),
  ];
}

const unseenName = (item) => [make("span", { class: "unseen" }, ": "), make("bdi", { class: "unseen" }, nameOf(item.item_id))];

function row(item, rank, marked, recommendation_id) {
  const { body } = last.question;
  const trouble = make("div", { role: "alert" });
  const head = make("div", { class: "head" }, make("span", { class: "rank" }, `${rank}.`), itemLabel(item.item_id), number(item.score));
  const details = attributesOf(item.item_id);
  const sources = item.sources?.length ? [["from", item.sources.map((one) => `${one.channel} ${one.rank}`).join(", ")]] : [];
  const known = [...details, ...sources];
  const took = body.user_id === undefined ? null
    : make("button", { type: "button", click: () => take(took, trouble, item.item_id, recommendation_id) }, "Took it", unseenName(item));
  const why = fold("Why", item, (place) => explain(asked(), item, place));
  const similar = fold("Similar", item, async (place) => {
    const question = call("POST", `${pathOf("v1/items", item.item_id)}/similar`, { n: 5, ...(itemColumns().length ? { fields: itemColumns().slice(0, 100) } : {}) });
    const { value } = await ask(question);
    note(value.items);
    put(place, make("h3", {}, "Most similar, by cosine"), plain(value.items), copies([question], "similar items"));
  });
  return make("li", marked ? { class: "mark" } : {}, head,
    make("div", { class: "below" }, facts(known, "attributes"), make("div", { class: "buttons" }, why.button, similar.button, took)),
    trouble, why.inner, similar.inner);
}

/** A list of items with their scores and nothing else. */
const plain = (items) => make("ol", { class: "plain" }, items.map((one) => make("li", {}, itemLabel(one.item_id), number(one.score))));

/** A button that opens and closes a part of a row; `fill` fills it when it first opens. */
function fold(text, item, fill) {
  const inner = make("div", { class: "inner", hidden: true });
  const toggle = async () => {
    inner.hidden = !inner.hidden;
    button.setAttribute("aria-expanded", String(!inner.hidden));
    if (!inner.hidden && !inner.querySelector("ul, ol")) await attempt(inner, () => fill(inner));
  };
  const button = make("button", { type: "button", "aria-expanded": "false", click: toggle }, text, unseenName(item));
  return { button, inner };
}

async function take(button, place, item_id, recommendation_id) {
  button.disabled = true; // no second request while this one is in flight
  const { user_id } = last.question.body;
  const done = await attempt(place, async () => {
    await ask(call("POST", "v1/interactions", { interactions: [{ user_id, item_id, ...(recommendation_id ? { recommendation_id } : {}) }] }));
    return true;
  });
  button.disabled = false;
  if (!done) return;
  await again();
  by("list-title").focus(); // the button that had it is gone
  by("recommend-status").prepend("Taken. ");
}

// The known values of the user, and the history, which can be edited for the next request.

const current = () => history ?? person.history;

/** Repeat the request with a different history; null for the stored one. The user is that of the list, the rest that of the form. */
async function edit(ids) {
  history = ids?.slice(0, MOST) ?? null;
  by("user").value = person.id;
  by("history-add").value = "";
  await recommend();
  by("history-add").focus();
}

async function showUser(user_id, state, signal) {
  let said = null;
  person = { id: user_id ?? "", history: [], features: {} };
  if (state === "known") {
    try {
      person = { ...(await ask(call("GET", pathOf("v1/users", user_id)), signal)).value, id: user_id };
    } catch (error) {
      if (error.name === "AbortError") return;
      said = error instanceof Problem ? `${error.title}. ${error.detail}` : String(error);
    }
  } else said = state === "anonymous" ? "No user was named." : "No such user is known; the answer rests on the rest of the request.";
  forms?.features.stored(person.features);
  const ids = (last.question.body.history ?? person.history).slice(0, SHOWN);
  await know(ids, signal).catch(() => {}); // ids are shown without titles then
  if (!signal.aborted) showPerson(said, ids);
}

function showPerson(said, ids) {
  const features = columns(person.features);
  const total = current().length;
  const remove = (id, place) => make("button", { type: "button", class: "remove", click: () => edit(current().filter((_, at) => at !== place)) }, "×",
    make("span", { class: "unseen" }, " Remove "), make("bdi", { class: "unseen" }, nameOf(id)));
  put(by("known"), person.id ? make("p", {}, "User ", userLabel(person.id, person.features[schema.user_title])) : null, said ? make("p", { class: "quiet" }, said) : null,
    features.length ? facts(features, "attributes") : null);
  put(by("history"), ids.map((id, place) => make("li", {}, itemLabel(id), remove(id, place))));
  put(by("history-note"), history === null
    ? `${total ? "" : "None. "}${total > SHOWN ? `and ${total - SHOWN} more. ` : ""}${person.seen ? `Had ${person.seen.length} different ${person.seen.length === 1 ? "item" : "items"}.` : ""}`
    : "As changed here, for these requests only.");
  by("history-stored").hidden = history === null;
}

async function whyNot() {
  const item_id = textIn(by("why-not-item"), "Name an item");
  const question = call("POST", "v1/why-not", { ...asked(), item_id });
  const { value } = await ask(question);
  await know([item_id, ...(value.last ? [value.last.item_id] : [])]);
  const place = `It ranks ${value.rank} of ${value.eligible}.`;
  const reasons = value.reasons.map((one) => make("li", {}, make("strong", {}, one.kind), `: ${one.text}`, one.where ? make("span", { class: "quiet" }, ` (${one.where})`) : null));
  put(
    by("why-not"),
    make("p", {}, itemLabel(item_id), value.listed === null ? " is not listed. " : ` is listed at place ${value.listed}. `, place),
    reasons.length ? make("ul", {}, reasons) : null,
    value.last === null ? null : [
      make("h3", {}, "What ", itemLabel(value.last.item_id), " has more than it"),
      bars(value.contributions, value.missing, "Missing score"),
    ],
    copies([question], "this question"),
  );
}

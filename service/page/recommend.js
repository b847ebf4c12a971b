// The first view: who asks on the left, what they get on the right, and why.

import { ask, call, pathOf, Problem, turns } from "./api.js";
import { bars, values } from "./bars.js";
import { copies } from "./code.js";
import { by, columns, dial, facts, idText, make, number, put } from "./dom.js";
import { attempt, jsonIn, textIn, wholeIn } from "./troubles.js";

const FIELDS = { user_id: "user", n: "n", popularity: "popularity", features: "features", context: "context", history: "history", filter: "filter" };
const DESCRIBED = 20; // items whose attributes are asked for at once; further ones tell theirs with their explanation
const SHOWN = 20; // items of a history
const DRAWN = 1000; // users of whom one is drawn
const turn = turns();
let last = null; // the last request that was answered
let begun = false; // whether a list was asked for

export function openRecommend() {
  dial("popularity");
  by("recommend-form").addEventListener("submit", (event) => {
    event.preventDefault();
    recommend();
  });
  by("random").addEventListener("click", () => attempt(by("recommend-error"), someUser, FIELDS));
  by("why-not-form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(by("why-not-error"), whyNot, { item_id: "why-not-item" });
  });
}

/** Show the list of the first known user before anything is asked for; without a user where users may not be listed. */
export async function begin() {
  if (begun) return;
  let user_id;
  try {
    user_id = (await ask(call("GET", "v1/users?page_size=1"))).value.users[0]?.user_id;
  } catch (error) {
    if (error.status === 401) return;
  }
  if (begun) return;
  await recommend({ ...(user_id === undefined ? {} : { user_id }), n: 10, popularity: 1 });
  by("recommend-status").prepend(user_id === undefined ? "To begin with, for an unknown user: " : "To begin with, for the first user: ");
}

/** Ask for a user who is drawn from the first ones that the service lists. */
async function someUser() {
  const { value } = await ask(call("GET", `v1/users?page_size=${DRAWN}`));
  if (!value.users.length) throw new Problem("No user is known");
  by("user").value = value.users[Math.floor(Math.random() * value.users.length)].user_id;
  await recommend();
}

/** What the form asks for. */
function request() {
  const body = { n: wholeIn("n", "/n"), popularity: Number(by("popularity").value) };
  const user = by("user").value;
  if (user) body.user_id = user;
  for (const name of ["features", "context", "filter"]) {
    const value = jsonIn(name, `/${name}`);
    if (value !== undefined) body[name] = value;
  }
  const history = by("history").value.split("\n").filter((line) => line !== "");
  if (history.length) body.history = history;
  if (!by("seen").checked) body.exclude_seen = false;
  return body;
}

/** The request that the list shown answers; without a list, one of an unknown user. */
export const asked = () => last ?? { n: 10, popularity: 1 };

/** Ask what the form says, or a request again, and show the answer; the item `mark` is set off in it. */
export function recommend(again = null, mark = null) {
  const signal = turn();
  begun = true;
  return attempt(by("recommend-error"), async () => {
    const body = again ?? request();
    const question = call("POST", "v1/recommend", body);
    put(by("recommend-status"), "Asking …");
    by("list").setAttribute("aria-busy", "true");
    try {
      const answer = await ask(question, signal);
      last = body;
      show(body, question, answer, mark, signal);
    } catch (error) {
      if (!signal.aborted) {
        put(by("recommend-status"), "No answer.");
        by("list").removeAttribute("aria-busy");
      }
      throw error;
    }
  }, FIELDS);
}

function show(body, question, answer, mark, signal) {
  const { items, user } = answer.value;
  put(by("badges"), badges(answer));
  const rows = items.map((item, at) => row(body, item, at + 1, item.item_id === mark));
  put(by("list"), rows.map((one) => one.element));
  put(by("recommend-code"), copies([question], "this list"));
  put(by("why-not"));
  put(by("recommend-status"), `${items.length} ${items.length === 1 ? "item" : "items"}${items.length < body.n ? `; no more than that are left of ${body.n}` : ""}.`);
  Promise.all([showUser(body.user_id, user, signal), describe(rows.slice(0, DESCRIBED), signal)]).then(() => {
    if (!signal.aborted) by("list").removeAttribute("aria-busy");
  });
}

function badges({ value, requestId, timing }) {
  const badge = (text, warn = false) => make("li", warn ? { class: "warn" } : {}, text);
  return [
    badge(`user ${value.user}`, value.user === "unknown"),
    badge(value.exact ? "exact" : "approximate"),
    ...(value.degraded.length ? value.degraded.map((one) => badge(`degraded: ${one.part}: ${one.reason}`, true)) : [badge("not degraded")]),
    ...value.unknown.map((one) => badge(`value never seen: ${one}`, true)),
    ...value.warnings.map((one) => badge(one, true)),
    badge(`bundle ${value.bundle}`),
    badge(`sequence ${value.sequence}`),
    badge(`request ${requestId}`),
    ...timing.split(",").filter(Boolean).map((one) => badge(one.trim().replace(";dur=", " ") + " ms")),
  ];
}

function row(body, item, rank, marked) {
  const attributes = make("div", { "aria-live": "off" });
  const inner = make("div", { class: "inner", hidden: true });
  const trouble = make("div", { role: "alert" });
  const label = () => [make("span", { class: "unseen" }, ": "), make("bdi", { class: "unseen" }, item.item_id)];
  const why = make("button", { type: "button", "aria-expanded": "false", click: () => toggle() }, "Why", label());
  const toggle = async () => {
    inner.hidden = !inner.hidden;
    why.setAttribute("aria-expanded", String(!inner.hidden));
    if (!inner.hidden && !inner.querySelector(".bars")) await attempt(inner, () => explain(body, item, inner));
    if (!attributes.hasChildNodes()) describe([entry]);
  };
  const took = body.user_id === undefined ? null
    : make("button", { type: "button", click: () => take(took, trouble, body, item.item_id) }, "Took it", label());
  const head = make("div", { class: "head" }, make("span", { class: "rank" }, `${rank}.`), idText(item.item_id), number(item.score), make("div", { class: "buttons" }, why, took));
  const element = make("li", marked ? { class: "mark" } : {}, head, trouble, attributes, inner);
  const entry = { element, attributes, id: item.item_id };
  return entry;
}

/** Show the attributes of items; a few are asked for at a time. */
async function describe(entries, signal) {
  const waiting = [...entries];
  const worker = async () => {
    for (let entry = waiting.shift(); entry; entry = waiting.shift()) {
      if (signal?.aborted) return;
      try {
        const { value } = await ask(call("GET", pathOf("v1/items", entry.id)), signal);
        const known = columns(value.features);
        put(entry.attributes, known.length ? facts(known, "attributes") : make("p", { class: "quiet" }, "No attributes."));
      } catch (error) {
        if (error.name === "AbortError") return;
        put(entry.attributes, make("p", { class: "quiet" }, `Attributes are not known: ${error.message}.`));
      }
    }
  };
  await Promise.all([worker(), worker(), worker(), worker()]);
}

async function explain(body, item, inner) {
  const { user_id, features, context, history, popularity } = body;
  const asks = { user_id, features, context, history, popularity, item_id: item.item_id };
  const question = call("POST", "v1/explain", asks);
  const { value } = await ask(question);
  put(
    inner,
    make("h3", {}, "What the score comes from"),
    bars(value.contributions, item.score, "Served score"),
    single(call("POST", "v1/explain", { ...asks, values: true })),
    copies([question], "this explanation"),
  );
}

/** Contributions of single values, requested when they are shown. */
function single(question) {
  const place = make("div", {});
  const open = () => {
    if (details.open && !place.hasChildNodes()) attempt(place, async () => put(place, values((await ask(question)).value.values)));
  };
  const details = make("details", { toggle: open }, make("summary", {}, "Value by value"), place);
  return details;
}

async function take(button, place, body, item_id) {
  button.disabled = true; // what is taken is not taken twice
  const done = await attempt(place, async () => {
    await ask(call("POST", "v1/interactions", { interactions: [{ user_id: body.user_id, item_id }] }));
    return true;
  });
  button.disabled = false;
  if (!done) return;
  await recommend(body);
  by("list-title").focus(); // the button that had it is gone
  by("recommend-status").prepend("Taken. ");
}

async function showUser(user_id, state, signal) {
  const place = by("known");
  if (state !== "known") {
    put(place, make("p", {}, state === "anonymous" ? "No user was named." : "No such user is known; the answer rests on the rest of the request."));
    return;
  }
  try {
    const { value } = await ask(call("GET", pathOf("v1/users", user_id)), signal);
    const features = columns(value.features);
    put(
      place,
      make("p", {}, "User ", idText(value.user_id)),
      make("h3", {}, "Features"),
      features.length ? facts(features) : make("p", { class: "quiet" }, "None."),
      make("h3", {}, "History, latest first"),
      value.history.length ? make("ol", {}, value.history.slice(0, SHOWN).map((one) => make("li", {}, idText(one)))) : make("p", { class: "quiet" }, "None."),
      value.history.length > SHOWN ? make("p", { class: "quiet" }, `and ${value.history.length - SHOWN} more`) : null,
      make("p", { class: "quiet" }, `Had ${value.seen.length} different ${value.seen.length === 1 ? "item" : "items"}.`),
    );
  } catch (error) {
    if (error.name !== "AbortError") put(place, make("p", {}, error instanceof Problem ? `${error.title}. ${error.detail}` : String(error)));
  }
}

async function whyNot() {
  const item_id = textIn("why-not-item", "/item_id", "Name an item");
  const question = call("POST", "v1/why-not", { ...asked(), item_id });
  const { value } = await ask(question);
  const place = `It ranks ${value.rank} of ${value.eligible}.`;
  const reasons = value.reasons.map((one) => make("li", {}, make("strong", {}, one.kind), `: ${one.text}`, one.where ? make("span", { class: "quiet" }, ` (${one.where})`) : null));
  put(
    by("why-not"),
    make("p", {}, idText(item_id), value.listed === null ? " is not listed. " : ` is listed at place ${value.listed}. `, place),
    reasons.length ? make("ul", {}, reasons) : null,
    value.last === null ? null : [
      make("h3", {}, "What ", idText(value.last.item_id), " has more than it"),
      bars(value.contributions, value.missing, "Missing score"),
    ],
    copies([question], "this question"),
  );
}

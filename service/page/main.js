// The page: views, API key, and state shared by all views.

import { ask, call, Problem, useKey } from "./api.js";
import { learn } from "./catalog.js";
import { openCompare } from "./compare.js";
import { by, put } from "./dom.js";
import { fitItem, openItems } from "./items.js";
import { openModel, showModel } from "./model.js";
import { begin, fitForms, openRecommend } from "./recommend.js";
import { openTraffic, showTraffic } from "./traffic.js";

const VIEWS = ["recommend", "compare", "items", "model", "traffic"];

function view(focus) {
  const wanted = location.hash.slice(1);
  const shown = VIEWS.includes(wanted) ? wanted : VIEWS[0];
  for (const name of VIEWS) by(name).hidden = name !== shown;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${shown}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${by(`${shown}-title`).textContent} · FM recall`;
  if (focus) by(`${shown}-title`).focus();
  if (shown === "model") showModel();
  if (shown === "traffic") showTraffic();
  if (shown === VIEWS[0] && focus) begin();
}

/** Show the served version and rebuild the forms for it. */
async function look() {
  try {
    const { value } = await ask(call("GET", "v1/info"));
    put(by("serving"), `${value.name} ${value.bundle}`);
    learn(value);
    fitItem();
    await fitForms();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    put(by("serving"), error.status === 401 ? "A key is needed: type one." : error.title);
  }
}

/** Load the state of the service, and show a first list in the view of lists. */
async function start() {
  await look();
  if (!by(VIEWS[0]).hidden) await begin();
  by("main").dataset.started = "";
}

openRecommend();
openCompare();
openItems();
openModel(look);
openTraffic();
by("key").addEventListener("input", () => useKey(by("key").value));
by("key").addEventListener("change", start);
by("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  by("main").focus();
});
window.addEventListener("hashchange", () => view(true));
view(false);
start();

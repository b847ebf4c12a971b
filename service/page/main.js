// The page: its views, the key, and what every view has to know.

import { ask, call, useKey } from "./api.js";
import { openCompare } from "./compare.js";
import { by, put } from "./dom.js";
import { openItems } from "./items.js";
import { openModel, showModel } from "./model.js";
import { begin, openRecommend } from "./recommend.js";

const VIEWS = ["recommend", "compare", "items", "model"];

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
  if (shown === VIEWS[0] && focus) begin();
}

/** Tell what is served, and which names the forms may use. */
async function look() {
  try {
    const { value } = await ask(call("GET", "v1/info"));
    const names = (found) => (found.length ? `Known here: ${found.join(", ")}` : "None are known here.");
    put(by("serving"), `${value.name} ${value.bundle}`);
    put(by("features-note"), names(value.columns.features));
    put(by("context-note"), names(value.columns.context));
    put(by("filter-note"), names(Object.keys(value.columns.filter)));
    put(by("item-features-note"), names(Object.keys(value.columns.filter).filter((name) => name !== "item_id")));
  } catch (error) {
    put(by("serving"), error.status === 401 ? "A key is needed: type one." : error.title);
  }
}

/** Look, and show a first list where lists are shown. */
async function start() {
  await look();
  if (!by(VIEWS[0]).hidden) await begin();
  by("main").dataset.started = "";
}

openRecommend();
openCompare();
openItems();
openModel();
by("key").addEventListener("input", () => useKey(by("key").value));
by("key").addEventListener("change", start);
by("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  by("main").focus();
});
window.addEventListener("hashchange", () => view(true));
view(false);
start();

// Published versions: list them, activate one, and compare two.

import { ask, call } from "./api.js";
import { by, idText, make, put, table } from "./dom.js";
import { attempt } from "./troubles.js";

let live = null; // the live version known to this page

export function openVersions(changed) {
  const act = (question, text) => async () => {
    if (!window.confirm(text)) return;
    const button = by("roll-back");
    button.disabled = true;
    put(by("versions-status"), "Verifying and warming up …");
    const done = await attempt(by("versions-error"), async () => {
      const { value } = await ask(question());
      live = value.version; // the next change starts from it, even before the table is drawn again
      put(by("versions-status"), `${value.version} is live${value.previous ? `; before it was ${value.previous}` : ""}.`);
      return true;
    });
    button.disabled = false;
    if (!done) put(by("versions-status"));
    else await changed();
  };
  const guard = () => (live ? { "If-Match": `"${live}"` } : {}); // nothing is changed if a different version went live meanwhile
  by("roll-back").addEventListener("click", act(() => call("POST", "v1/models:rollback", undefined, guard()), "Return to the version that was live before?"));
  by("versions").addEventListener("click", (event) => {
    const version = event.target.closest("button")?.dataset.version;
    if (version) act(() => call("POST", `v1/models/${version}:activate`, undefined, guard()), `Make ${version} live?`)();
  });
  by("changes-form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(by("changes-error"), compare, by("changes-form"));
  });
}

const size = (bytes) => (bytes == null ? "" : bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

export function showVersions({ models, live: named }) {
  live = named;
  const state = (one) => [one.served ? "served" : null, one.live ? "live" : null].filter(Boolean).join(", ");
  const activate = (one) => (one.live || one.fault ? null
    : make("button", { type: "button", "data-version": one.version }, "Activate", make("span", { class: "unseen" }, ` ${one.version}`)));
  put(by("versions"), table("Table of versions", ["Version", "State", "Created", "Users", "Items", "Size", "Change"], models.map((one) => [
    idText(one.version), state(one), one.fault ?? (one.created ?? "").slice(0, 16).replace("T", " "), `${one.users ?? ""}`, `${one.items ?? ""}`, size(one.bytes), activate(one)])));
  const names = models.filter((one) => !one.fault).map((one) => one.version);
  const served = Math.max(0, names.indexOf(models.find((one) => one.served)?.version));
  for (const [id, usual] of [["changes-from", names[served + 1] ?? names[served - 1]], ["changes-to", names[served]]]) {
    const chosen = names.includes(by(id).value) ? by(id).value : usual;
    put(by(id), names.map((name) => make("option", { value: name, selected: name === chosen }, name)));
  }
  by("changes-form").hidden = names.length < 2;
  by("roll-back").hidden = models.length < 2;
}

/** Every leaf of nested objects by its path; lists are leaves. */
function leaves(value, path = "", found = new Map()) {
  if (value !== null && typeof value === "object" && !Array.isArray(value)) {
    for (const [name, one] of Object.entries(value)) leaves(one, path ? `${path}.${name}` : name, found);
  } else found.set(path, typeof value === "string" ? value : JSON.stringify(value));
  return found;
}

async function compare() {
  const [from, to] = await Promise.all(["changes-from", "changes-to"].map(async (id) => (await ask(call("GET", `v1/models/${by(id).value}`))).value));
  const parts = (one) => {
    const { metrics = {}, config, sizes, model, index = {}, libraries, data_hash: data } = one.origin;
    const { race, validation } = metrics;
    const figures = { validation, ...(race ? { race: { metric: race.metric, winner: race.winner, figure: race.raced.find((run) => run.recipe === race.winner)?.value } } : {}) };
    const { engine, kind, params, recall } = index;
    return leaves({ created: one.created, size: size(one.bytes), figures, config, sizes, model, index: { engine, kind, params, recall }, data, libraries });
  };
  const [before, after] = [parts(from), parts(to)];
  const changed = [...new Set([...before.keys(), ...after.keys()])].filter((path) => before.get(path) !== after.get(path));
  const cell = (text) => make("bdi", {}, text === undefined ? "–" : text.length > 200 ? `${text.slice(0, 200)}…` : text);
  put(by("changes"), changed.length ? table("What changed", ["What", from.version, to.version], changed.map((path) => [path, cell(before.get(path)), cell(after.get(path))]))
    : make("p", {}, "Nothing but the parameters of the model."));
}

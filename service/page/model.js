// The served version: model card, recall of the index, training, charts of the report, and published versions.

import { ask, call, turns } from "./api.js";
import { PARTS } from "./charts.js";
import { copies } from "./code.js";
import { by, facts, idText, make, put } from "./dom.js";
import { samples } from "./metrics.js";
import { attempt } from "./troubles.js";
import { openVersions, showVersions } from "./versions.js";

const QUESTIONS = [call("GET", "v1/info"), call("GET", "v1/models"), call("GET", "metrics")];
const CHARTS = call("GET", "v1/charts");
const turn = turns();

/** `changed` is called when another version was activated here. */
export function openModel(changed) {
  by("model-again").addEventListener("click", showModel);
  openVersions(async () => {
    await changed();
    await showModel();
  });
}

/** Request everything again. */
export function showModel() {
  const signal = turn();
  return attempt(by("model-error"), async () => {
    const [info, models, metrics] = await Promise.all(QUESTIONS.map((one) => ask(one, signal)));
    showCard(info.value);
    showCertificate(info.value, samples(metrics.text));
    showVersions(models.value);
    const of = call("GET", `v1/models/${info.value.bundle}`);
    showTraining((await ask(of, signal)).value.origin);
    put(by("model-code"), copies([...QUESTIONS, of, CHARTS], "all of this"));
    showReport((await ask(CHARTS, signal)).value);
    put(by("model-status"), `As of ${new Date().toLocaleTimeString()}.`);
  });
}

function age(created) {
  const minutes = Math.max(0, Math.round((Date.now() - Date.parse(created)) / 60_000));
  if (minutes < 120) return `${minutes} minutes old`;
  return minutes < 2880 ? `${Math.round(minutes / 60)} hours old` : `${Math.round(minutes / 1440)} days old`;
}

const list = (names) => (names.length ? names.join(", ") : "none");

function showCard(info) {
  put(by("card"), facts([
    ["Name", info.name],
    ["Version", idText(info.bundle)],
    ["Created", `${info.created}, ${age(info.created)}`],
    ["Users", info.sizes.users.toLocaleString()],
    ["Items", info.sizes.items.toLocaleString()],
    ["Factors", String(info.sizes.factors)],
    ["Index", info.index],
    ["Features", list(info.columns.features)],
    ["Context", list(info.columns.context)],
    ["History", info.columns.history ? "counts" : "only leaves items out"],
    ["Filter by", list(Object.entries(info.columns.filter).map(([name, type]) => `${name} (${type})`))],
    ["Boosts", list(info.columns.boosts)],
    ["Live change", String(info.changes)],
    ["Degraded", info.degraded.length ? info.degraded.map((one) => `${one.part}: ${one.reason}`).join("; ") : "no"],
  ]));
}

function showCertificate(info, found) {
  const certificate = info.certificate;
  const share = (value) => `${(100 * value).toFixed(2)} %`;
  const [live, lower, upper] = ["recall_ann_recall_ratio", "recall_ann_recall_lower_ratio", "recall_ann_recall_upper_ratio"]
    .map((name) => found.find((one) => one.name === name)?.value);
  put(
    by("certificate"),
    info.index === "exact" && !certificate ? make("p", {}, "The index is exact: it finds all of the best items.") : null,
    info.index !== "exact" && !certificate ? make("p", {}, "The kind of the index was prescribed; there is no certificate.") : null,
    certificate ? facts([
      ["Asked for", `${share(certificate.target)} of the exact lists of ${certificate.n}`],
      ["Found", certificate.queries ? `${share(certificate.recall)} for ${certificate.queries} users` : "all, by construction"],
      ["At least", `${share(certificate.lower)} with probability ${certificate.confidence}`],
      ["Met", certificate.met ? "yes" : "no"],
    ]) : null,
    live === undefined || Number.isNaN(live) ? make("p", { class: "quiet" }, "No live sample of recall yet.")
      : facts([["Live", `${share(live)}${lower === undefined || Number.isNaN(lower) ? "" : `, between ${share(lower)} and ${share(upper)}`}`]]),
  );
}

const figure = (value) => String(Number(value.toPrecision(4)));
const interval = (one) => `${figure(one.value)}${one.low == null ? "" : ` [${figure(one.low)}, ${figure(one.high)}]`}`;

/** The figures of training in the manifest. */
function showTraining({ metrics = {}, config = {} }) {
  const { curve, race, validation } = metrics;
  const sweeps = curve?.losses ?? [];
  const said = [
    race ? ["Recipe", race.winner] : config.train?.objective ? ["Objective", config.train.objective] : null,
    race ? [`Winner's ${race.metric}`, interval(race.raced.find((one) => one.recipe === race.winner) ?? race.popularity)] : null,
    race ? ["More than popularity", interval(race.over_popularity)] : null,
    race ? ["Race", `${race.raced.length} recipes, ${race.requests} requests, ${figure(race.seconds)} s`] : null,
    sweeps.length ? ["Sweeps", String(sweeps.length)] : null,
    ...Object.entries(validation ?? {}).map(([name, value]) => [name, typeof value === "number" ? figure(value) : JSON.stringify(value)]),
  ].filter(Boolean);
  put(by("training"), said.length ? facts(said) : make("p", { class: "quiet" }, "This version records no figures: it was imported, or trained by an earlier version."));
}

/** The charts of the report; the service selects the same ones for the HTML report. */
function showReport({ sections, fault }) {
  const drawn = sections.filter((one) => one.parts.length), missing = sections.filter((one) => one.missing);
  put(by("report"),
    fault ? make("p", { role: "alert" }, fault) : null,
    make("div", { class: "charts" }, drawn.map((one) => make("section", {}, make("h3", {}, one.title), one.parts.map((part) => PARTS[part.kind](part))))),
    missing.length ? make("details", {}, make("summary", {}, "Not shown"), facts(missing.map((one) => [one.title, one.missing]))) : null);
}

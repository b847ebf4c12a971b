// What is served: the model card, how much the index finds, how it was trained, and the versions.

import { ask, call, turns } from "./api.js";
import { barList, lineChart } from "./charts.js";
import { copies } from "./code.js";
import { by, facts, idText, make, put } from "./dom.js";
import { samples } from "./metrics.js";
import { attempt } from "./troubles.js";
import { openVersions, showVersions } from "./versions.js";

const QUESTIONS = [call("GET", "v1/info"), call("GET", "v1/models"), call("GET", "metrics")];
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
    put(by("model-code"), copies([...QUESTIONS, of], "all of this"));
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
const numbered = (values) => values.map((value, at) => [at + 1, value ?? NaN]);

/** The figures and curves of training, as the manifest has them. */
function showTraining({ metrics = {}, config = {}, index = {} }) {
  const { curve, race, validation, fields = [] } = metrics;
  const drawn = [];
  if (race?.raced?.length) {
    const longest = Math.max(...race.raced.map((one) => one.figures.length), 2);
    drawn.push(lineChart({ title: `Race: ${race.metric} on the validation part, by sweep`, y: figure, from: 0, lines: [
      ...race.raced.slice(0, 6).map((one) => ({ name: one.recipe + (one.recipe === race.winner ? " (winner)" : ""), points: numbered(one.figures) })),
      { name: "popularity", points: [[1, race.popularity.value], [longest, race.popularity.value]], dashed: true }] }));
    drawn.push(barList(`${race.metric}, validation`, [...race.raced.map((one) => [one.recipe, one.value]), ["popularity", race.popularity.value]], figure));
  }
  const sweeps = curve?.losses ?? [];
  const warm = config.train?.opening ? 1 : 0; // the first loss is of another objective
  if (sweeps.length > warm) drawn.push(lineChart({ title: "Loss by sweep of the final training", y: figure, lines: [{ name: "loss", points: numbered(sweeps).slice(warm) }] }));
  const looked = numbered(curve?.figures ?? []);
  const best = looked.find(([sweep]) => sweep === curve?.best_sweep);
  if (looked.some(([, value]) => !Number.isNaN(value))) {
    drawn.push(lineChart({ title: "Validation figure by sweep of the final training", y: figure, lines: [{ name: "figure", points: looked }],
      mark: best && !Number.isNaN(best[1]) ? { point: best, text: "kept" } : null }));
  }
  if (fields.length) {
    drawn.push(barList("What the validation figure loses without each field", [...fields].sort((a, b) => b.loss - a.loss).slice(0, 15)
      .map((one) => [one.name + (one.helps ? "" : " (no help shown)"), one.loss]), figure));
  }
  const trials = (index.candidates ?? []).filter((one) => one.curve?.length);
  if (trials.length) {
    drawn.push(lineChart({ title: `Index: recall of the exact top ${index.n} against microseconds of a search`, x: (value) => `${figure(value)} µs`, y: figure,
      lines: trials.slice(0, 6).map((one) => ({ name: one.name, points: [...one.curve].sort((a, b) => a.microseconds - b.microseconds).map((point) => [point.microseconds, point.recall]) })) }));
  }
  const said = [
    race ? ["Recipe", race.winner] : config.train?.objective ? ["Objective", config.train.objective] : null,
    race ? [`Winner's ${race.metric}`, interval(race.raced.find((one) => one.recipe === race.winner) ?? race.popularity)] : null,
    race ? ["More than popularity", interval(race.over_popularity)] : null,
    race ? ["Race", `${race.raced.length} recipes, ${race.requests} requests, ${figure(race.seconds)} s`] : null,
    sweeps.length ? ["Sweeps", String(sweeps.length)] : null,
    ...Object.entries(validation ?? {}).map(([name, value]) => [name, typeof value === "number" ? figure(value) : JSON.stringify(value)]),
  ].filter(Boolean);
  put(by("training"), said.length ? facts(said) : null, drawn.length ? make("div", { class: "charts" }, drawn) : null,
    said.length || drawn.length ? null : make("p", { class: "quiet" }, "This version records no figures: it was imported, or trained by an earlier version."));
}

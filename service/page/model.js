// What is served: the model card, how much the index finds, and how long answers take.

import { ask, call, turns } from "./api.js";
import { copies } from "./code.js";
import { by, draw, facts, idText, make, put } from "./dom.js";
import { histograms, quantile, samples } from "./metrics.js";
import { attempt } from "./troubles.js";

const QUESTIONS = [call("GET", "v1/info"), call("GET", "v1/models"), call("GET", "metrics"), call("GET", "v1/scenarios")];
const turn = turns();
let times = new Map();

export function openModel() {
  by("model-again").addEventListener("click", showModel);
  by("route").addEventListener("change", showTimes);
  put(by("model-code"), copies(QUESTIONS, "all of this"));
}

/** Request everything again. */
export function showModel() {
  const signal = turn();
  return attempt(by("model-error"), async () => {
    const [info, models, metrics, scenarios] = await Promise.all(QUESTIONS.map((one) => ask(one, signal)));
    const found = samples(metrics.text);
    showCard(info.value);
    showCertificate(info.value, found);
    showVersions(models.value.models);
    showScenarios(scenarios.value);
    times = histograms(found, "recall_http_request_duration_seconds", "route");
    const routes = [...times].filter(([, buckets]) => buckets.some((one) => one.count)).map(([route]) => route);
    const chosen = by("route").value;
    put(by("route"), routes.map((route) => make("option", { selected: route === (chosen || "/v1/recommend") }, route)));
    showTimes();
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
  const value = (name, labels = {}) => found.find((one) => one.name === name && Object.entries(labels).every(([label, said]) => one.labels[label] === said))?.value;
  const live = value("recall_ann_recall_ratio");
  const [lower, upper] = ["recall_ann_recall_lower_ratio", "recall_ann_recall_upper_ratio"].map((name) => value(name));
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

function showVersions(models) {
  const size = (bytes) => (bytes == null ? "" : bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
  const rows = models.map((one) => make("tr", {},
    make("th", { scope: "row" }, idText(one.version)),
    make("td", {}, [one.served ? "served" : null, one.live ? "live" : null].filter(Boolean).join(", ")),
    make("td", {}, one.fault ?? `${one.created ?? ""}`),
    make("td", {}, `${one.items ?? ""}`),
    make("td", {}, size(one.bytes))));
  put(by("versions"), table("Table of versions", ["Version", "State", "Created", "Items", "Size"], rows));
}

function table(label, heads, rows) {
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, make("table", {},
    make("thead", {}, make("tr", {}, heads.map((one) => make("th", { scope: "col" }, one)))),
    make("tbody", {}, rows)));
}

/** The scenarios with what they set, and how often something was taken from their lists. */
function showScenarios({ scenarios, attribution }) {
  const cells = (head, ...others) => make("tr", {}, make("th", { scope: "row" }, head), others.map((one) => make("td", {}, String(one))));
  const rates = attribution.map((one) => cells(one.scenario || "none", one.bundle, one.answers, one.hits, `${(100 * one.hits / Math.max(1, one.answers)).toFixed(2)} %`));
  put(
    by("scenarios"),
    scenarios.length ? table("Table of scenarios", ["Scenario", "Description", "Sets"], scenarios.map((one) => cells(one.name, one.description, JSON.stringify(one.settings))))
      : make("p", { class: "quiet" }, "None."),
    rates.length ? table("Table of hit rates", ["Scenario", "Version", "Lists", "Hits", "Hits by list"], rates) : null,
  );
}

const milliseconds = (seconds) => (Number.isFinite(seconds) ? `${Number((1000 * seconds).toPrecision(3))} ms` : "longer");

function showTimes() {
  const route = by("route").value;
  const buckets = times.get(route);
  if (!buckets) {
    put(by("latency"), make("p", { class: "quiet" }, "Nothing was asked yet."));
    return;
  }
  const all = buckets.reduce((sum, one) => sum + one.count, 0);
  const said = `${all} answers; half took at most ${milliseconds(quantile(buckets, 0.5))}, 99 of 100 at most ${milliseconds(quantile(buckets, 0.99))}.`;
  put(
    by("latency"),
    make("p", {}, said),
    chart(buckets, `Answers to ${route} by their time. ${said}`),
    make("details", {}, make("summary", {}, "As a table"), make("table", {},
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "At most"), make("th", { scope: "col" }, "Answers"))),
      make("tbody", {}, buckets.filter((one) => one.count).map((one) => make("tr", {}, make("th", { scope: "row" }, milliseconds(one.most)), make("td", {}, String(one.count))))))),
  );
}

function chart(buckets, label) {
  const used = buckets.map((one) => one.count > 0);
  const shown = buckets.slice(Math.max(0, used.indexOf(true) - 1), used.lastIndexOf(true) + 2);
  const [width, height, foot] = [600, 160, 22];
  const most = Math.max(...shown.map((one) => one.count));
  const step = width / shown.length;
  const every = Math.ceil(shown.length / 9);
  const columns = shown.map((one, at) => {
    const tall = ((height - foot - 14) * one.count) / most;
    return [
      draw("rect", { x: at * step + 1, y: height - foot - tall, width: Math.max(1, step - 2), height: tall }),
      at % every ? null : draw("text", { x: (at + 0.5) * step, y: height - 7, "text-anchor": "middle" }, milliseconds(one.most)),
    ];
  });
  return draw("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    draw("line", { x1: 0, x2: width, y1: height - foot, y2: height - foot }), columns);
}

// Current traffic: metrics of the service, fetched every few seconds while this view is shown.

import { ask, call, turns } from "./api.js";
import { barList, histogram, lineChart } from "./charts.js";
import { copies } from "./code.js";
import { by, make, put, table } from "./dom.js";
import { histograms, quantile, samples } from "./metrics.js";
import { attempt } from "./troubles.js";

const EVERY = 3000; // milliseconds between two samples
const KEPT = 200; // samples that the charts show
const PROBES = /^\/(metrics|health|v2\/health)/; // routes that this view and load balancers request, not callers
const QUESTIONS = [call("GET", "metrics"), call("GET", "v1/scenarios")];
const turn = turns();
let looks = [];
let times = new Map();
let timer = 0;

export function openTraffic() {
  by("route").addEventListener("change", showTimes);
  put(by("traffic-code"), copies(QUESTIONS, "all of this"));
}

/** Sample the metrics now, and repeatedly while the view is shown. */
export function showTraffic() {
  clearTimeout(timer);
  if (by("traffic").hidden) return undefined;
  timer = setTimeout(showTraffic, EVERY);
  if (document.hidden) return undefined;
  const signal = turn();
  return attempt(by("traffic-error"), async () => {
    const [metrics, scenarios] = await Promise.all(QUESTIONS.map((one) => ask(one, signal)));
    const found = samples(metrics.text);
    times = histograms(found, "recall_http_request_duration_seconds", "route");
    looks = [...looks, lookOf(found)].slice(-KEPT);
    if (looks.length > 1 && looks.at(-1).requests < looks.at(-2).requests) looks = looks.slice(-1); // it was started again
    showTiles();
    showCharts();
    showRoutes();
    showScenarios(scenarios.value);
    put(by("traffic-status"), `As of ${new Date().toLocaleTimeString()}, and every ${EVERY / 1000} seconds while this is open. Rates are since the look before.`);
  });
}

/** The metrics of one sample that the charts show. */
function lookOf(found) {
  const sum = (name, fits = () => true) => found.filter((one) => one.name === name && fits(one.labels)).reduce((all, one) => all + one.value, 0);
  const gauge = (name) => found.find((one) => one.name === name)?.value ?? NaN;
  const buckets = new Map();
  for (const [route, rising] of times) {
    if (!PROBES.test(route)) for (const { most, count } of rising) buckets.set(most, (buckets.get(most) ?? 0) + count);
  }
  return {
    time: Date.now() / 1000,
    requests: sum("recall_http_requests_total", ({ route }) => !PROBES.test(route)),
    failed: sum("recall_http_requests_total", ({ route, status }) => status >= "500" && !PROBES.test(route)),
    refused: sum("recall_http_requests_total", ({ status }) => status >= "400" && status < "500"),
    recommended: sum("recall_recommendations_total"),
    degraded: sum("recall_degraded_total"),
    buckets,
    recall: gauge("recall_ann_recall_ratio"),
    lower: gauge("recall_ann_recall_lower_ratio"),
    upper: gauge("recall_ann_recall_upper_ratio"),
    promised: gauge("recall_ann_promised_ratio"),
    sampled: gauge("recall_ann_samples"),
  };
}

const percent = (value) => `${Number((100 * value).toPrecision(4))} %`;
const milliseconds = (seconds) => (Number.isFinite(seconds) ? `${Number((1000 * seconds).toPrecision(3))} ms` : "longer");
const brief = (value) => String(Number(value.toPrecision(3)));

function showTiles() {
  const now = looks.at(-1);
  const rising = [...now.buckets].sort(([a], [b]) => a - b).map(([most, count]) => ({ most, count }));
  const tile = (name, value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));
  put(by("tiles"), make("dl", {},
    tile("Requests", now.requests.toLocaleString()),
    tile("Recommendations", now.recommended.toLocaleString()),
    tile("Half of all within", now.requests ? milliseconds(quantile(rising, 0.5)) : "–"),
    tile("99 % within", now.requests ? milliseconds(quantile(rising, 0.99)) : "–"),
    tile("Degraded", now.degraded.toLocaleString()),
    tile("Refused or failed", (now.refused + now.failed).toLocaleString()),
    tile("Recall of the index", Number.isNaN(now.recall) ? "–" : percent(now.recall))));
}

/** A series of changes between two samples: `of(before, after, seconds)`. */
const between = (of) => looks.slice(1).map((after, at) => [after.time, of(looks[at], after, after.time - looks[at].time)]);

function lateness(share) {
  return between((before, after) => {
    const rising = [...after.buckets].sort(([a], [b]) => a - b).map(([most, count]) => ({ most, count: count - (before.buckets.get(most) ?? 0) }));
    return rising.some((one) => one.count) ? 1000 * quantile(rising, share) : NaN;
  });
}

function showCharts() {
  const rate = (name) => between((before, after, seconds) => (after[name] - before[name]) / seconds);
  const ago = (time) => {
    const seconds = Math.round(looks.at(-1).time - time);
    return seconds ? `${seconds} s ago` : "now";
  };
  const chart = (given) => lineChart({ x: ago, y: brief, from: 0, ...given });
  const measured = looks.filter((one) => !Number.isNaN(one.recall));
  put(
    by("charts"),
    chart({ title: "Requests a second", lines: [{ name: "all", points: rate("requests") }, { name: "recommendations", points: rate("recommended") }] }),
    chart({ title: "Time of answers, ms", lines: [{ name: "99 of 100 at most", points: lateness(0.99) }, { name: "half at most", points: lateness(0.5) }] }),
    chart({ title: "Degraded, refused and failed answers a second", lines: [
      { name: "degraded", points: rate("degraded") }, { name: "refused", points: rate("refused") }, { name: "failed", points: rate("failed") }] }),
    chart({ title: `Recall of the index, from ${looks.at(-1).sampled} sampled requests`, from: null, y: percent, lines: [
      { name: "measured", points: measured.map((one) => [one.time, one.recall]), band: measured.map((one) => [one.time, one.lower, one.upper]) },
      ...(measured.length ? [{ name: "promised", points: measured.map((one) => [one.time, one.promised]), dashed: true }] : [])] }),
  );
}

function showRoutes() {
  const routes = [...times].filter(([, buckets]) => buckets.some((one) => one.count)).map(([route]) => route);
  const chosen = by("route").value;
  if ([...by("route").options].map((one) => one.value).join() !== routes.join()) {
    put(by("route"), routes.map((route) => make("option", { selected: route === (chosen || "/v1/recommend") }, route)));
  }
  showTimes();
}

function showTimes() {
  const route = by("route").value;
  const buckets = times.get(route);
  if (!buckets) {
    put(by("latency"), make("p", { class: "quiet" }, "No requests yet."));
    return;
  }
  const all = buckets.reduce((sum, one) => sum + one.count, 0);
  const said = `${all} answers; half took at most ${milliseconds(quantile(buckets, 0.5))}, 99 of 100 at most ${milliseconds(quantile(buckets, 0.99))}.`;
  const used = buckets.map((one) => one.count > 0);
  const shown = buckets.slice(Math.max(0, used.indexOf(true) - 1), used.lastIndexOf(true) + 2);
  const open = by("latency").querySelector("details")?.open ?? false;
  const rows = buckets.filter((one) => one.count).map((one) => [milliseconds(one.most), String(one.count)]);
  put(
    by("latency"),
    make("p", {}, said),
    histogram(`Answers to ${route} by their time. ${said}`, shown.map((one) => [milliseconds(one.most), one.count])),
    make("details", { open }, make("summary", {}, "As a table"), table("Answers by their time", ["At most", "Answers"], rows)),
  );
}

/** The scenarios with their settings, and how often items of their lists were taken. */
function showScenarios({ scenarios, attribution, degraded }) {
  const rate = (one) => one.hits / Math.max(1, one.answers);
  put(
    by("scenarios"),
    degraded.map((one) => make("p", { class: "warn" }, one.reason)),
    scenarios.length ? table("Scenarios", ["Scenario", "Description", "Sets"], scenarios.map((one) => [one.name, one.description, JSON.stringify(one.settings)]))
      : make("p", { class: "quiet" }, "There is no scenario: scenarios.toml in the folder of versions names them."),
    attribution.length ? [
      barList("Items taken by list", attribution.map((one) => ({ name: `${one.scenario || "no scenario"}, ${one.bundle}`, value: rate(one) })), percent),
      table("Hit rates", ["Scenario", "Version", "Lists", "Hits", "Hits by list"],
        attribution.map((one) => [one.scenario || "none", one.bundle, String(one.answers), String(one.hits), `${(100 * rate(one)).toFixed(2)} %`])),
    ] : null,
  );
}

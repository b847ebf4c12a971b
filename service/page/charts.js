// Charts as SVG, drawn without a library. What a chart shows is said in its label, and as a table where numbers matter.

import { draw, make } from "./dom.js";

const WIDE = 480, TALL = 170, LEFT = 46, FOOT = 20, TOP = 14; // of the drawing; texts have 11 units

/** A rising list of about four round numbers that spans what is given. */
function ticks(least, most) {
  const rough = (most - least || Math.abs(most) || 1) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const first = Math.floor(least / step), last = Math.ceil(most / step);
  return Array.from({ length: last - first + 1 }, (_, at) => Number(((first + at) * step).toPrecision(12)));
}

/** Lines over numbers. A line has a `name`, `points` as [x, y], and may be `dashed` or have a `band` as [x, low, high]; `mark` is
 *  a point with a text. */
export function lineChart({ title, lines, x = String, y = String, from = null, mark = null }) {
  const shown = lines.map((line) => ({ ...line, points: line.points.filter(([, value]) => Number.isFinite(value)) })).filter((line) => line.points.length);
  if (!shown.length) return make("p", { class: "quiet" }, `${title}: nothing to draw yet.`);
  const all = shown.flatMap((line) => [...line.points, ...(line.band ?? []).flatMap(([at, low, high]) => [[at, low], [at, high]])]);
  const [left, right] = [Math.min(...all.map((one) => one[0])), Math.max(...all.map((one) => one[0]))];
  const rungs = ticks(Math.min(...all.map((one) => one[1]), from ?? Infinity), Math.max(...all.map((one) => one[1])));
  if (rungs.length === 1) rungs.push(rungs[0] + 1);
  const [low, high] = [rungs[0], rungs.at(-1)];
  const across = (value) => LEFT + ((value - left) / (right - left || 1)) * (WIDE - LEFT - 8);
  const up = (value) => TALL - FOOT - ((value - low) / (high - low || 1)) * (TALL - FOOT - TOP);
  const path = (points) => points.map(([at, value], number) => `${number ? "L" : "M"}${across(at).toFixed(1)} ${up(value).toFixed(1)}`).join("");
  const label = `${title}. ${shown.map((line) => `${line.name}: ${y(line.points[0][1])} to ${y(line.points.at(-1)[1])}`).join("; ")}.`;
  const svg = draw("svg", { class: "chart", viewBox: `0 0 ${WIDE} ${TALL}`, role: "img", "aria-label": label },
    rungs.map((value) => [
      draw("line", { class: "grid", x1: LEFT, x2: WIDE, y1: up(value), y2: up(value) }),
      draw("text", { x: LEFT - 5, y: up(value) + 4, "text-anchor": "end" }, y(value)),
    ]),
    draw("text", { x: LEFT, y: TALL - 4 }, x(left)),
    right > left ? draw("text", { x: WIDE - 2, y: TALL - 4, "text-anchor": "end" }, x(right)) : null,
    shown.map((line, number) => [
      line.band ? draw("path", { class: `area s${number}`, d: `${path(line.band.map(([at, , most]) => [at, most]))}L${path(line.band.map(([at, least]) => [at, least]).reverse()).slice(1)}Z` }) : null,
      draw("path", { class: `series s${number}${line.dashed ? " dashed" : ""}`, d: path(line.points) + (line.points.length === 1 ? `H${WIDE - 8}` : "") }),
      line.points.length < 25 ? line.points.map(([at, value]) => draw("circle", { class: `s${number}`, cx: across(at), cy: up(value), r: 2.5 })) : null,
    ]),
    mark ? [
      draw("circle", { class: "marked", cx: across(mark.point[0]), cy: up(mark.point[1]), r: 6 }),
      draw("text", { x: across(mark.point[0]) + (mark.point[0] > (left + right) / 2 ? -10 : 10), y: up(mark.point[1]) + 14, "text-anchor": mark.point[0] > (left + right) / 2 ? "end" : "start" }, mark.text),
    ] : null);
  const legend = shown.length > 1 ? make("ul", { class: "legend", "aria-hidden": "true" }, shown.map((line, number) => make("li", { class: `s${number}` }, line.name))) : null;
  return make("figure", {}, make("figcaption", {}, title), svg, legend);
}

/** Horizontal bars, `[name, value]`, as a list with the numbers in writing. */
export function barList(title, rows, written = String) {
  const most = Math.max(...rows.map((one) => one[1]), 0);
  return make("figure", {}, make("figcaption", {}, title), make("ul", { class: "bars" }, rows.map(([name, value]) => {
    const inner = make("span", { class: "bar" });
    inner.style.width = `${most ? (100 * Math.max(0, value)) / most : 0}%`;
    return make("li", {}, make("bdi", {}, name), make("span", { class: "track whole", "aria-hidden": "true" }, inner), make("data", { value: String(value) }, written(value)));
  })));
}

/** Columns of a histogram, `[label, value]`. */
export function histogram(label, shown) {
  const [width, height, foot] = [600, 160, 22];
  const most = Math.max(...shown.map((one) => one[1]));
  const step = width / shown.length;
  const every = Math.ceil(shown.length / 9);
  const columns = shown.map(([name, value], at) => {
    const tall = ((height - foot - 14) * value) / most;
    return [
      draw("rect", { x: at * step + 1, y: height - foot - tall, width: Math.max(1, step - 2), height: tall }),
      at % every ? null : draw("text", { x: (at + 0.5) * step, y: height - 7, "text-anchor": "middle" }, name),
    ];
  });
  return draw("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    draw("line", { x1: 0, x2: width, y1: height - foot, y2: height - foot }), columns);
}

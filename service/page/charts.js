// Charts as SVG, drawn without a library. The label of a chart describes it; where numbers matter, a table lists them.

import { draw, make, table } from "./dom.js";

const WIDE = 480, TALL = 170, LEFT = 46, FOOT = 20, TOP = 14; // of the drawing; texts have 11 units

/** Return about four round numbers, ascending, that span the values. */
function ticks(least, most) {
  const rough = (most - least || Math.abs(most) || 1) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const first = Math.floor(least / step), last = Math.ceil(most / step);
  return Array.from({ length: last - first + 1 }, (_, at) => Number(((first + at) * step).toPrecision(12)));
}

/** Lines over numbers. A line has a `name`, `points` as [x, y], and may be `dashed`, `thin`, of a `colour`, or have a `band` as
 *  [x, low, high]; `marks` are points with a text, as [x, y, text]. */
export function lineChart({ title, lines, x = String, y = String, from = null, marks = [], axes = ["", ""], log = false }) {
  const shown = lines.map((line) => ({ ...line, points: line.points.filter(([, value]) => Number.isFinite(value)) })).filter((line) => line.points.length);
  if (!shown.length) return make("p", { class: "quiet" }, `${title}: nothing to draw yet.`);
  const all = shown.flatMap((line) => [...line.points, ...(line.band ?? []).flatMap(([at, low, high]) => [[at, low], [at, high]])]);
  const [left, right] = [Math.min(...all.map((one) => one[0])), Math.max(...all.map((one) => one[0]))];
  const rungs = ticks(Math.min(...all.map((one) => one[1]), from ?? Infinity), Math.max(...all.map((one) => one[1])));
  if (rungs.length === 1) rungs.push(rungs[0] + 1);
  const [low, high] = [rungs[0], rungs.at(-1)];
  const scale = log && left > 0 ? Math.log : (value) => value;
  const across = (value) => LEFT + ((scale(value) - scale(left)) / (scale(right) - scale(left) || 1)) * (WIDE - LEFT - 8);
  const up = (value) => TALL - FOOT - ((value - low) / (high - low || 1)) * (TALL - FOOT - TOP);
  const path = (points) => points.map(([at, value], number) => `${number ? "L" : "M"}${across(at).toFixed(1)} ${up(value).toFixed(1)}`).join("");
  const label = `${title}. ${shown.map((line) => `${line.name && `${line.name}: `}${y(line.points[0][1])} to ${y(line.points.at(-1)[1])}`).join("; ")}.`;
  const colour = (line, number) => line.colour ?? `s${number}`;
  const svg = draw("svg", { class: "chart", viewBox: `0 0 ${WIDE} ${TALL}`, role: "img", "aria-label": label },
    rungs.map((value) => [
      draw("line", { class: "grid", x1: LEFT, x2: WIDE, y1: up(value), y2: up(value) }),
      draw("text", { x: LEFT - 5, y: up(value) + 4, "text-anchor": "end" }, y(value)),
    ]),
    draw("text", { x: LEFT, y: 10 }, axes[1]),
    draw("text", { x: (LEFT + WIDE) / 2, y: TALL - 4, "text-anchor": "middle" }, axes[0]),
    draw("text", { x: LEFT, y: TALL - 4 }, x(left)),
    right > left ? draw("text", { x: WIDE - 2, y: TALL - 4, "text-anchor": "end" }, x(right)) : null,
    shown.map((line, number) => [
      line.band ? draw("path", { class: `area ${colour(line, number)}`, d: `${path(line.band.map(([at, , most]) => [at, most]))}L${path(line.band.map(([at, least]) => [at, least]).reverse()).slice(1)}Z` }) : null,
      draw("path", { class: `series ${colour(line, number)}${line.dashed ? " dashed" : ""}${line.thin ? " thin" : ""}`, d: path(line.points) + (line.points.length === 1 ? `H${WIDE - 8}` : "") }),
      line.points.length < (line.thin ? 2 : 25) ? line.points.map(([at, value]) => draw("circle", { class: colour(line, number), cx: across(at), cy: up(value), r: 2.5 })) : null,
    ]),
    marks.map(([at, value, text]) => {
      const late = across(at) > (LEFT + WIDE) / 2; // the text is on the side where there is room
      return [
        draw("circle", { class: "marked", cx: across(at), cy: up(value), r: 6 }),
        draw("text", { x: across(at) + (late ? -10 : 10), y: up(value) + 14, "text-anchor": late ? "end" : "start" }, text),
      ];
    }));
  return make("figure", {}, make("figcaption", {}, title), svg, legend(shown.map((line, number) => [line.name, colour(line, number)])));
}

function legend(names) {
  return names.length > 1 ? make("ul", { class: "legend", "aria-hidden": "true" }, names.filter(([name]) => name).map(([name, colour]) => make("li", { class: colour }, name))) : null;
}

/** Horizontal bars, `{name, value}`, which may have an `interval` or a `colour`, as a list with the numbers in writing. */
export function barList(title, rows, written = String) {
  const ends = rows.flatMap((one) => [one.value, ...(one.interval ?? [])]);
  const [low, high] = [Math.min(0, ...ends), Math.max(0, ...ends)];
  const at = (value) => (100 * (value - low)) / (high - low || 1);
  const span = (name, from, to) => {
    const drawn = make("span", { class: name });
    drawn.style.left = `${at(Math.min(from, to))}%`;
    drawn.style.width = `${at(Math.max(from, to)) - at(Math.min(from, to))}%`;
    return drawn;
  };
  return make("figure", {}, make("figcaption", {}, title), make("ul", { class: "bars" }, rows.map(({ name, value, interval, colour = "" }) => {
    const track = make("span", { class: "track whole", "aria-hidden": "true" }, span(`bar ${colour}`, 0, value), interval ? span("whisker", ...interval) : null);
    if (low < 0) track.append(span("zero", 0, 0));
    return make("li", {}, make("bdi", {}, name), track, make("span", {}, make("data", { value: String(value) }, written(value)),
      interval ? make("span", { class: "unseen" }, ` from ${written(interval[0])} to ${written(interval[1])}`) : null));
  })));
}

/** Groups of points, `[x, y, text]`, by name, with the text of `labels` beside them, and of all where the pointer rests. */
function scatter({ title, groups, labels }) {
  const [wide, tall, edge] = [WIDE, 320, 12];
  const names = Object.keys(groups), all = Object.values(groups).flat();
  const range = (place) => [Math.min(...all.map((one) => one[place])), Math.max(...all.map((one) => one[place]))];
  const [[left, right], [low, high]] = [range(0), range(1)];
  const across = (value) => edge + ((value - left) / (right - left || 1)) * (wide - 2 * edge);
  const up = (value) => tall - edge - ((value - low) / (high - low || 1)) * (tall - 2 * edge);
  let next = 0;
  const colours = names.map((name) => (name ? `s${next++}` : "muted"));
  const svg = draw("svg", { class: "chart points", viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": `${title}. ${names.map((name) => `${name || "other"}: ${groups[name].length}`).join("; ")}.` },
    names.map((name, number) => groups[name].map(([x, y, text]) => draw("circle", { class: colours[number], cx: across(x).toFixed(1), cy: up(y).toFixed(1), r: 3 }, draw("title", {}, text)))),
    labels.map(([x, y, text]) => {
      const late = across(x) > wide / 2;
      return draw("text", { x: across(x) + (late ? -5 : 5), y: up(y) - 3, "text-anchor": late ? "end" : "start" }, text.length > 24 ? `${text.slice(0, 23)}…` : text);
    }));
  return make("figure", {}, make("figcaption", {}, title), svg, legend(names.map((name, number) => [name || "other", colours[number]])));
}

const figure = (value) => String(Number(value.toPrecision(4)));

/** A part of a report in the form of /v1/charts. */
export const PARTS = {
  lines: (one) => lineChart({ title: one.title, axes: [one.x, one.y], x: figure, y: figure, log: one.log, marks: one.marks, lines: one.lines.map((line) => ({
    ...line, name: line.label, points: line.x.map((at, number) => [at, line.y[number] ?? NaN]),
    band: line.band && line.x.map((at, number) => [at, line.band[0][number], line.band[1][number]]) })) }),
  bars: (one) => barList(`${one.title}: ${one.x}`, one.bars, figure),
  points: scatter,
  caption: (one) => make("p", { class: "quiet" }, one.text),
  heading: (one) => make("h4", {}, one.text),
  table: (one) => make("details", {}, make("summary", {}, one.summary), table(one.summary, one.head, one.rows)),
};

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

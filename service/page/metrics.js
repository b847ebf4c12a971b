// The text that Prometheus reads.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:\\.|[^"\\])*)"/g;

/** Samples: name, labels and value of each. */
export function samples(text) {
  return text.split("\n").map((line) => LINE.exec(line)).filter(Boolean).map(([, name, labels = "", value]) => ({
    name,
    labels: Object.fromEntries([...labels.matchAll(LABEL)].map(([, label, said]) => [label, said.replace(/\\(.)/g, (_, one) => (one === "n" ? "\n" : one))])),
    value: Number(value.replace("Inf", "Infinity")),
  }));
}

/** The histogram of one family: for each value of a label its buckets `{most, count}`, by ascending seconds, not cumulative. */
export function histograms(found, family, label) {
  const sums = new Map();
  for (const { name, labels, value } of found) {
    if (name !== `${family}_bucket`) continue;
    const most = Number(labels.le.replace("Inf", "Infinity"));
    const buckets = sums.get(labels[label]) ?? new Map();
    sums.set(labels[label], buckets.set(most, (buckets.get(most) ?? 0) + value));
  }
  return new Map([...sums].map(([of, buckets]) => {
    const rising = [...buckets].sort(([a], [b]) => a - b);
    return [of, rising.map(([most, count], at) => ({ most, count: count - (at ? rising[at - 1][1] : 0) }))];
  }));
}

/** A quantile in seconds: the upper bound of its bucket. */
export function quantile(buckets, share) {
  const all = buckets.reduce((sum, one) => sum + one.count, 0);
  let before = 0;
  return buckets.find((one) => (before += one.count) >= share * all)?.most ?? NaN;
}

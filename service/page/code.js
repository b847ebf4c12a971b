// Requests as code to copy. The code never contains an API key.

import { addressOf, hasKey } from "./api.js";
import { make, put } from "./dom.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A call as a shell command. */
function curlOf(question) {
  const parts = [`curl -sS ${quoted(addressOf(question))}`];
  if (question.method !== (question.body === undefined ? "GET" : "POST")) parts.push(`-X ${question.method}`);
  if (hasKey()) parts.push('-H "Authorization: Bearer $RECALL_KEY"');
  for (const [name, value] of Object.entries(question.headers)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (question.body !== undefined) parts.push("-H 'Content-Type: application/json'", `--data-binary ${quoted(JSON.stringify(question.body))}`);
  return parts.join(" \\\n  ");
}

/** A call as Python that uses only the standard library. */
function pythonOf(question) {
  const headers = Object.entries(question.headers).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  if (hasKey()) headers.push('"Authorization": "Bearer " + os.environ["RECALL_KEY"]');
  if (question.body !== undefined) headers.push('"Content-Type": "application/json"');
  const lines = [`    ${JSON.stringify(addressOf(question))},`];
  if (question.body !== undefined) lines.push(`    data=json.dumps(${literal(question.body)}).encode(),`);
  if (headers.length) lines.push(`    headers={${headers.join(", ")}},`);
  lines.push(`    method=${JSON.stringify(question.method)},`);
  return `request = urllib.request.Request(\n${lines.join("\n")}\n)\nwith urllib.request.urlopen(request) as answer:\n    print(answer.read().decode())`;
}

/** A JSON value as a Python literal. JSON strings are valid Python strings. */
function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${literal(one)}`).join(", ")}}`;
  return JSON.stringify(value);
}

const STYLES = {
  curl: (calls) => calls.map(curlOf).join("\n"),
  Python: (calls) => `import json\nimport os\nimport urllib.request\n\n${calls.map(pythonOf).join("\n\n")}`,
};

/** Buttons that copy calls, and show what they copy. */
export function copies(calls, of) {
  const status = make("span", { role: "status", class: "quiet" });
  const shown = make("textarea", { readonly: true, rows: 6, hidden: true, spellcheck: "false" });
  const copy = async (style) => {
    shown.value = `${STYLES[style](calls)}\n`;
    shown.setAttribute("aria-label", `${of} as ${style}`);
    shown.hidden = false;
    put(status);
    try {
      await navigator.clipboard.writeText(shown.value);
      put(status, `Copied as ${style}.`);
    } catch { // unavailable over plain HTTP from another machine, or if the browser forbids it
      shown.focus();
      shown.select();
      put(status, "Copy the marked text: the browser does not let this page do it.");
    }
  };
  const buttons = Object.keys(STYLES).map((style) =>
    make("button", { type: "button", click: () => copy(style) }, `Copy as ${style}`, make("span", { class: "unseen" }, `: ${of}`)));
  return make("div", {}, make("div", { class: "buttons" }, buttons, status), shown);
}

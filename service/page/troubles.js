// What went wrong, said where it went wrong.

import { Problem } from "./api.js";
import { by, make, put } from "./dom.js";

/** Do something for a form: what goes wrong is said in `place`, and the fields that are named are marked.
 *  `fields` gives the id of an input for each first part of a JSON pointer. */
export async function attempt(place, act, fields = {}) {
  put(place);
  for (const id of Object.values(fields)) by(id).removeAttribute("aria-invalid");
  try {
    return await act();
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    if (!(error instanceof Problem)) throw error;
    show(place, error, fields);
    return undefined;
  }
}

/** What a field holds as JSON; undefined where it is empty. It must be an object. */
export function jsonIn(id, pointer) {
  const text = by(id).value;
  if (!text.trim()) return undefined;
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Problem("This is not JSON", "", { errors: [{ pointer, message: error.message }] });
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new Problem("This is not an object", "", { errors: [{ pointer, message: "Write names and values in braces" }] });
  }
  return value;
}

/** What a field holds as a whole number. */
export function wholeIn(id, pointer) {
  const value = Number(by(id).value);
  if (!Number.isInteger(value)) {
    throw new Problem("This is not a whole number", "", { errors: [{ pointer, message: "Write a whole number" }] });
  }
  return value;
}

/** What a field holds, which may not be empty. */
export function textIn(id, pointer, message) {
  const value = by(id).value;
  if (!value) throw new Problem(message, "", { errors: [{ pointer, message }] });
  return value;
}

function show(place, problem, fields) {
  const named = problem.errors.map((one) => {
    const id = fields[one.pointer.split("/")[1]];
    if (id) by(id).setAttribute("aria-invalid", "true");
    return make("li", {}, one.pointer ? make("code", {}, one.pointer) : null, one.pointer ? " " : null, one.message);
  });
  const needsKey = problem.status === 401 || problem.status === 403;
  put(
    place,
    make("p", {}, make("strong", {}, problem.title), problem.detail ? `: ${problem.detail}` : ""),
    named.length ? make("ul", {}, named) : null,
    needsKey ? make("p", {}, "Type one into the field “Key” at the top, and try again.") : null,
    problem.requestId ? make("p", { class: "quiet" }, `Request ${problem.requestId}`) : null,
  );
  const first = Object.values(fields).map(by).find((input) => input.hasAttribute("aria-invalid"));
  first?.closest("details")?.setAttribute("open", "");
  if (needsKey) by("key").focus();
  else first?.focus();
}

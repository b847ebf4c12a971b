// Show errors next to the input that caused them.

import { Problem } from "./api.js";
import { by, make, put } from "./dom.js";

/** Run an action for a form: errors are shown in `place`, and the inputs of `form` that they name are marked. `data-at` of an
 *  input is the JSON pointer of its value or of a part of it. */
export async function attempt(place, act, form = null) {
  put(place);
  for (const input of form?.querySelectorAll("[aria-invalid]") ?? []) input.removeAttribute("aria-invalid");
  try {
    return await act();
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    if (!(error instanceof Problem)) throw error;
    show(place, error, form);
    return undefined;
  }
}

/** A problem with the value of one input. */
const wrong = (title, pointer, message = title) => new Problem(title, "", { errors: [{ pointer, message }] });

/** Return the JSON object in an input; undefined if it is empty. */
export function jsonIn(input) {
  if (!input.value.trim()) return undefined;
  let value;
  try {
    value = JSON.parse(input.value);
  } catch (error) {
    throw wrong("This is not JSON", input.dataset.at, error.message);
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw wrong("This is not an object", input.dataset.at, "Write names and values in braces");
  }
  return value;
}

/** Return the integer in an input. */
export function wholeIn(input) {
  const value = Number(input.value);
  if (!Number.isInteger(value)) throw wrong("This is not a whole number", input.dataset.at, "Write a whole number");
  return value;
}

/** Return the text of an input, which must not be empty. */
export function textIn(input, message) {
  if (!input.value) throw wrong(message, input.dataset.at);
  return input.value;
}

/** Return the input of a JSON pointer, or of the closest value that contains it. */
function inputOf(form, pointer) {
  const fitting = [...form.querySelectorAll("[data-at]")].filter(({ dataset }) => pointer === dataset.at || pointer.startsWith(`${dataset.at}/`));
  return fitting.reduce((best, one) => (best && best.dataset.at.length > one.dataset.at.length ? best : one), null);
}

function show(place, problem, form) {
  const inputs = problem.errors.map((one) => (form ? inputOf(form, one.pointer) : null));
  const named = problem.errors.map((one) => make("li", {}, one.pointer.startsWith("/") ? [make("code", {}, one.pointer), " "] : null, one.message));
  const needsKey = problem.status === 401 || problem.status === 403;
  put(
    place,
    make("p", {}, make("strong", {}, problem.title), problem.detail ? `: ${problem.detail}` : ""),
    named.length ? make("ul", {}, named) : null,
    needsKey ? make("p", {}, "Type one into the field “Key” at the top, and try again.") : null,
    problem.requestId ? make("p", { class: "quiet" }, `Request ${problem.requestId}`) : null,
  );
  for (const input of inputs) input?.setAttribute("aria-invalid", "true");
  const first = inputs.find(Boolean);
  for (let fold = first?.closest("details:not([open])"); fold; fold = fold.parentElement.closest("details:not([open])")) fold.open = true;
  if (needsKey) by("key").focus();
  else first?.focus();
}

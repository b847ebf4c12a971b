// Requests to the service that serves this page.

const LONGEST = 30_000; // milliseconds

let key = "";

/** Send this key from now on. It is kept in this variable and nowhere else. */
export function useKey(text) { key = text; }

export const hasKey = () => key !== "";

/** An error reported by the service or by the network. */
export class Problem extends Error {
  constructor(title, detail = "", { status = 0, errors = [], requestId = "" } = {}) {
    super(title);
    Object.assign(this, { title, detail, status, errors, requestId });
  }
}

/** A request, which can be shown as code, too. */
export const call = (method, path, body, headers = {}) => ({ method, path, body, headers });

/** The path of a thing by its id. */
export function pathOf(folder, id) {
  if (id === "." || id === "..") throw new Problem("This page cannot request this id", "Browsers take it for a folder.");
  try {
    return `${folder}/${encodeURIComponent(id)}`;
  } catch {
    throw new Problem("This id is not text", "It holds half a character.");
  }
}

/** The full address of a call. */
export const addressOf = ({ path }) => new URL(path, document.baseURI.replace(/[?#].*$/, "")).href;

/** Send a request; return the value, text, request id and server timing of the answer. Throws a Problem. */
export async function ask(question, signal) {
  const headers = { ...question.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  if (question.body !== undefined) headers["Content-Type"] = "application/json";
  const late = AbortSignal.timeout(LONGEST);
  let response, text;
  try {
    response = await fetch(addressOf(question), {
      method: question.method,
      headers,
      body: question.body === undefined ? undefined : JSON.stringify(question.body),
      signal: signal ? AbortSignal.any([signal, late]) : late,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    if (late.aborted) throw new Problem("The service has not answered in time");
    throw new Problem("The service does not answer", "It may be down, or the way there is.");
  }
  const json = /[/+]json/.test(response.headers.get("content-type") ?? "");
  let value = null;
  try {
    if (json) value = JSON.parse(text);
  } catch {
    throw new Problem("The answer is not JSON", "Something between this page and the service may have written it.");
  }
  const requestId = response.headers.get("x-request-id") ?? "";
  if (!response.ok) {
    throw new Problem(value?.title ?? `The answer is ${response.status}`, value?.detail ?? "", {
      status: response.status, errors: value?.errors ?? [], requestId,
    });
  }
  return { value, text, requestId, timing: response.headers.get("server-timing") ?? "" };
}

/** Abort signals; each new one aborts the previous request, so that a late answer does not replace a newer one. */
export function turns() {
  let current = null;
  return () => {
    current?.abort();
    current = new AbortController();
    return current.signal;
  };
}

// The one way to the API: every request of the page goes through here.

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export async function request(path, { method = "GET", body, accept = "application/json" } = {}) {
  const headers = { Accept: accept };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(15000),
    });
  } catch {
    throw new Refused("The API does not answer", 0);
  }
  const text = await answer.text();
  let content = null;
  try {
    content = text ? JSON.parse(text) : null;
  } catch {
    // What a proxy says in between is not JSON.
  }
  // GET /health tells of an engine that is away by 503, with its usual body.
  if (!answer.ok && !(path === "/health" && content?.agents_total !== undefined)) {
    throw new Refused(content?.detail ?? `The API answered ${answer.status}`, answer.status);
  }
  return content;
}

export const order = (path, body = {}) => request(path, { method: "POST", body });

export function query(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  return `${path}?${new URLSearchParams(given)}`;
}

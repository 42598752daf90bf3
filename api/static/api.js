// All that is said to the API goes through `request`: the one place for credentials.

const TIMEOUT_MS = 20_000;
const MAX_PAUSE_MS = 10_000;
const UNAUTHORIZED = 401;

/** The API answered with an error; `status` is 0 when it did not answer at all. */
export class Failure extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Show where to log in; the view that was asked for comes back after that. */
export function toLogin() {
  location.assign(`/login${location.hash}`);
}

/**
 * Send a request; the answer as JSON, or as `accepted` makes it of the response. Who is not known
 * is sent to `/login`, unless `login` is false.
 */
export async function request(path, { method = "GET", body, expected = [], accepted, login = true } = {}) {
  // No other site's page can send this header: it stands for the session's cookie being meant.
  const headers = { Accept: "application/json", "X-Requested-With": "dashboard" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  }).catch(() => {
    throw new Failure(0, "The API does not answer");
  });
  if (response.status === UNAUTHORIZED && login) toLogin();
  if (!response.ok && !expected.includes(response.status)) throw await failure(response);
  return accepted ? accepted(response) : response.json();
}

async function failure(response) {
  const problem = await response.json().catch(() => ({}));
  return new Failure(response.status, problem.detail ?? `HTTP ${response.status}`);
}

/** POST an order with what was given for it. */
export function order(path, body = {}) {
  const given = Object.entries(body).filter(([, value]) => value !== "" && value != null);
  return request(path, { method: "POST", body: Object.fromEntries(given) });
}

/** A path with its query; what is empty is left out. */
export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  const text = new URLSearchParams(given).toString();
  return text ? `${path}?${text}` : path;
}

/**
 * Calls `look` again and again: `pause` ms after it has ended, later and later while it fails, and
 * never while nobody sees the page. `look` answers false, or throws, when it has failed.
 */
export class Poll {
  #look;
  #pause;
  #wait;
  #timer;
  #busy = false;
  #again = false;
  on = true;

  constructor(look, pause) {
    this.#look = look;
    this.#pause = this.#wait = pause;
    document.addEventListener("visibilitychange", () => document.hidden || this.now());
  }

  /** Milliseconds until the next look. */
  get wait() {
    return this.#wait;
  }

  /** Look at once; a look under way is followed by another. */
  async now() {
    clearTimeout(this.#timer);
    if (this.#busy) {
      this.#again = true;
      return;
    }
    this.#busy = true;
    const good = await this.#look().catch((error) => console.error(error));
    this.#busy = false;
    this.#wait = good ? this.#pause : Math.min(2 * this.#wait, MAX_PAUSE_MS);
    this.#next();
  }

  #next() {
    const pause = this.#again ? 0 : this.#wait;
    const wanted = this.#again || (this.on && !document.hidden);
    this.#again = false;
    if (wanted) this.#timer = setTimeout(() => this.now(), pause);
  }
}

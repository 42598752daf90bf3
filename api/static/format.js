// Numbers, times and words as people read them.

const whole = new Intl.NumberFormat("en");
let skew = 0;

/** Go by the service's clock from now on. */
export function setClock(timestamp) {
  skew = Date.parse(timestamp) - Date.now();
}

/** The service's time of day in milliseconds. */
export const now = () => Date.now() + skew;

export const count = (number) => whole.format(number);

/** `1 task`, `3 tasks`. */
export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** A duration: `12 ms`, `3.4 s`, `5 min 10 s`, `2 h 5 min`. */
export function duration(seconds) {
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const [unit, smaller, size] = scale(seconds);
  const rest = Math.round((seconds % size) / smaller[1]);
  const top = Math.floor(seconds / size);
  return rest ? `${top} ${unit} ${rest} ${smaller[0]}` : `${top} ${unit}`;
}

function scale(seconds) {
  if (seconds < 3600) return ["min", ["s", 1], 60];
  if (seconds < 86_400) return ["h", ["min", 60], 3600];
  return ["d", ["h", 3600], 86_400];
}

/** How long ago that was, roughly: `12 s ago`; in the future `in 12 s`. */
export function ago(stamp) {
  const seconds = (now() - Date.parse(stamp)) / 1000;
  const far = Math.abs(seconds);
  if (far < 1) return "now";
  const text = rough(far);
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

function rough(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** The time of day, with the date where it is not today's. */
export function clock(stamp) {
  const date = new Date(stamp);
  const time = date.toLocaleTimeString("en-GB");
  const today = new Date(now()).toDateString() === date.toDateString();
  return today ? time : `${date.toLocaleDateString("en-CA")} ${time}`;
}

export const between = (begin, end) => (Date.parse(end) - Date.parse(begin)) / 1000;

/** The first characters of an id, which tell it apart. */
export const short = (id) => (id.length > 13 ? `${id.slice(0, 8)}…${id.slice(-4)}` : id);

const BLOCKED = {
  breaker: "waits for the breaker",
  rate_limit: "waits for the rate limit",
  retry_backoff: "waits to be tried again",
  capacity: "waits for a free slot",
  no_worker: "no worker takes it",
  answer: "waits for the agent, which answers later",
  paused: "paused by an operator",
};

/** What an open task waits for. */
export function waitsFor(task) {
  const word = BLOCKED[task.blocked_by];
  const until = task.until ?? task.next_attempt_at;
  if (!word) return "";
  return until && Date.parse(until) > now() ? `${word}, ${ago(until)}` : word;
}

const MOST = 20_000;

/** Any value as text, cut where nobody reads on. */
export function pretty(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  if (text.length <= MOST) return text;
  return `${text.slice(0, MOST)}\n… ${count(text.length - MOST)} more characters`;
}

// The page that asks for a key: it is sent once, and kept by nobody but its session's cookie.

import { Failure, request } from "./api.js";
import { choose, remembered } from "./theme.js";

const form = document.getElementById("login");
const field = document.getElementById("key");
const button = form.querySelector("button");
const complaint = document.getElementById("complaint");

/** Begin a session; none with a key that could see nothing in it. */
async function begin(key) {
  const { scopes } = await request("/session", { method: "POST", body: { key }, login: false });
  if (scopes.includes("read") || scopes.includes("admin")) return;
  await request("/session", { method: "DELETE", accepted: () => null });
  throw new Failure(403, "The dashboard takes the scope 'read', which this key has not");
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  try {
    await begin(field.value.trim());
    // Back to the view that was asked for.
    location.replace(`/${location.hash}`);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    complaint.textContent = error.message;
    field.setAttribute("aria-invalid", "true");
    field.select();
  } finally {
    button.disabled = false;
  }
});

choose(remembered());

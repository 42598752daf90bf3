// The page that asks for a key: it is sent once, and kept by nobody but its session's cookie.

import { Failure, request } from "./api.js";
import { choose, remembered } from "./theme.js";

const form = document.getElementById("login");
const field = document.getElementById("key");
const button = form.querySelector("button");
const complaint = document.getElementById("complaint");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  try {
    await request("/session", { method: "POST", body: { key: field.value.trim() }, login: false });
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

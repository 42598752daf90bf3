// The theme: the system's, until somebody chooses another.

export const THEMES = ["auto", "light", "dark"];

/** Show a theme, and remember it where that is allowed. */
export function choose(name) {
  document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("theme", name);
  } catch {
    // Where nothing may be stored it holds until the page is left.
  }
}

/** What was chosen last. */
export function remembered() {
  try {
    const name = localStorage.getItem("theme");
    return THEMES.includes(name) ? name : THEMES[0];
  } catch {
    return THEMES[0];
  }
}

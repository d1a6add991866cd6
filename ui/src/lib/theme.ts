/** Light, dark or the system's; `public/theme.js` applies the choice before the first paint. */
export type Theme = "system" | "light" | "dark";
const KEY = "rackhand.theme";

export function theme(): Theme {
  const now = document.documentElement.dataset.theme;
  return now === "light" || now === "dark" ? now : "system";
}

export function setTheme(choice: Theme): void {
  if (choice === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
  try {
    if (choice === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, choice);
  } catch {
    // Storage is blocked: the choice lasts until the page is left.
  }
}

// Day or night: as the browser prefers, or as the user chose on this device.

const KEY = "dasnet.theme";
const CHOICES = {auto: "Auto", day: "Day", night: "Night"};
const preference = matchMedia("(prefers-color-scheme: light)");

export function isNight() {
  const {theme} = document.documentElement.dataset;
  return theme ? theme === "night" : !preference.matches;
}

// A button that goes through the choices.  The choice is applied before the page is drawn, by first.js.
export function offerThemes(button) {
  const show = () => {
    const choice = document.documentElement.dataset.theme ?? "auto";
    button.textContent = CHOICES[choice];
    button.title = "Theme: day, night, or as the system has it";
    button.ariaLabel = `Theme: ${CHOICES[choice]}`;
  };
  button.addEventListener("click", () => {
    const choices = Object.keys(CHOICES);
    const next = choices[(choices.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % choices.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      if (next === "auto") localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, next);
    } catch {
      // not allowed to remember it
    }
    show();
    dispatchEvent(new Event("themechange"));
  });
  preference.addEventListener("change", () => dispatchEvent(new Event("themechange")));
  show();
}

// Sets the theme that the user chose on this device, before the page is drawn; theme.js changes it.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("dasnet.theme");
  } catch {
    // not allowed to remember it
  }
  if (chosen === "day" || chosen === "night") document.documentElement.dataset.theme = chosen;
}

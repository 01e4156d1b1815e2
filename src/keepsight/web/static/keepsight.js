// What every page has: the theme's switch, and polling that does not pull a page from under its reader.
document.addEventListener("DOMContentLoaded", () => {
  const root = document.documentElement;
  const button = document.querySelector("[data-theme-switch]");
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => {
    button.textContent = isDark() ? "Light" : "Dark";
  };
  button.hidden = false;
  name();
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem("keepsight-theme", root.dataset.theme);
    name();
    document.dispatchEvent(new Event("keepsight:theme"));
  });

  document.addEventListener("click", (event) => {
    for (const open of document.querySelectorAll("details.switch[open]")) {
      if (!open.contains(event.target)) {
        open.open = false;
      }
    }
  });
});

document.addEventListener("htmx:before:request", (event) => {
  const source = event.detail.ctx.sourceElement;
  const busy = source.matches("[data-poll]") && source.querySelector("details[open], :focus");
  if (busy) {
    event.preventDefault();
  }
});

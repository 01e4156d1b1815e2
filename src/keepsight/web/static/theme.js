// Before anything is drawn: the theme that was chosen here, if any; else that of the system.
(() => {
  const chosen = localStorage.getItem("keepsight-theme");
  if (chosen === "dark" || chosen === "light") {
    document.documentElement.dataset.theme = chosen;
  }
})();

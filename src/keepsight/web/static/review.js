// The review page by keyboard: a key presses the button that shows it, Z looks closer.
document.addEventListener("alpine:init", () => {
  Alpine.data("review", () => ({
    zoomed: false,

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || this.waiting()) {
        return;
      }
      const field = event.target.closest("input:not([type=checkbox]), textarea, select");
      if (field) {
        return;
      }
      if (event.key === "/") {
        this.press(event, this.$root.querySelector("[data-find]"));
      } else if (event.key === "Enter" && event.target.closest("a, button, summary")) {
        return;
      } else if (event.key.toLowerCase() === "z" && this.$root.querySelector(".picture")) {
        this.zoom();
      } else {
        const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
        this.press(event, this.$root.querySelector(`[data-key="${CSS.escape(key)}"]`));
      }
    },

    press(event, target) {
      if (!target) {
        return;
      }
      event.preventDefault();
      if (target.matches("input, textarea")) {
        target.focus();
      } else {
        target.click();
      }
    },

    // One answer at a time: a second key would judge the picture that is just leaving.
    waiting() {
      return this.$root.querySelector(".htmx-request") !== null;
    },

    zoom() {
      this.zoomed = !this.zoomed;
      const image = this.$root.querySelector(".picture img");
      if (this.zoomed && image.src !== image.dataset.large) {
        image.src = image.dataset.large;
      }
    },
  }));
});

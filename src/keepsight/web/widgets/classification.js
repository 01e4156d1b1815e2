// Finds a class among many by typing: what matches stays, and the first nine of that have a number key.
document.addEventListener("alpine:init", () => {
  Alpine.data("classification", () => ({
    nothing: false,

    init() {
      const box = this.$root.querySelector("[data-find]");
      if (box) {
        box.disabled = false;
        this.number();
      }
    },

    buttons() {
      return [...this.$root.querySelectorAll("button[data-name]")];
    },

    narrow(event) {
      const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const button of this.buttons()) {
        button.hidden = !words.every((word) => button.dataset.name.includes(word));
      }
      this.number();
    },

    number() {
      const shown = this.buttons().filter((button) => !button.hidden);
      this.nothing = shown.length === 0;
      for (const button of this.buttons()) {
        const key = shown.indexOf(button) + 1;
        button.querySelector("kbd")?.remove();
        delete button.dataset.key;
        if (key >= 1 && key <= 9) {
          const mark = document.createElement("kbd");
          mark.textContent = String(key);
          button.dataset.key = String(key);
          button.prepend(mark, " ");
        }
      }
    },

    take() {
      this.buttons().find((button) => !button.hidden)?.click();
    },

    leave(event) {
      event.target.value = "";
      this.narrow(event);
      event.target.blur();
    },
  }));
});

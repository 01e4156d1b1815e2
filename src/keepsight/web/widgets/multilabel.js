// Finds a label among many by typing: what matches stays, Enter ticks the first of it.
document.addEventListener("alpine:init", () => {
  Alpine.data("multilabel", () => ({
    init() {
      const box = this.$root.querySelector("[data-find]");
      if (box) {
        box.disabled = false;
      }
    },

    labels() {
      return [...this.$root.querySelectorAll("label[data-name]")];
    },

    narrow(event) {
      const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const label of this.labels()) {
        label.hidden = !words.every((word) => label.dataset.name.includes(word));
      }
    },

    take() {
      this.labels().find((label) => !label.hidden)?.click();
      const box = this.$root.querySelector("[data-find]");
      box.value = "";
      box.dispatchEvent(new Event("input"));
    },
  }));
});

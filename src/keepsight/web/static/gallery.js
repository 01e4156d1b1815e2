// Enrolling by dropping pictures: what is dropped becomes the form's files; sending waits for one answer.
document.addEventListener("alpine:init", () => {
  Alpine.data("enrolment", () => ({
    init() {
      const drop = this.$root.querySelector("[data-drop]");
      const files = this.$root.querySelector("[data-files]");
      for (const kind of ["dragenter", "dragover"]) {
        drop.addEventListener(kind, (event) => {
          event.preventDefault();
          drop.classList.add("over");
        });
      }
      drop.addEventListener("dragleave", () => drop.classList.remove("over"));
      drop.addEventListener("drop", (event) => {
        event.preventDefault();
        drop.classList.remove("over");
        files.files = event.dataTransfer.files;
      });
      this.$root.addEventListener("submit", () => {
        this.$root.querySelector("[data-send]").setAttribute("aria-busy", "true");
      });
    },
  }));
});

// Who is in the picture: one subject after the other gets a name; the hidden input holds what the list shows.
document.addEventListener("alpine:init", () => {
  Alpine.data("recognition", () => ({
    subjects: [],
    nearest: [],
    active: 0,
    fresh: false,

    init() {
      this.field = this.find("input[name=value]");
      this.subjects = JSON.parse(this.field.value).subjects;
      this.first = JSON.stringify(this.subjects);
      this.nearest = JSON.parse(this.$root.dataset.nearest);
      this.agree = this.find("[data-save] span").textContent;
      this.names = [...this.$root.querySelectorAll(".choices button")];
      const box = this.find("[data-find]");
      if (box) {
        box.disabled = false;
        box.addEventListener("input", () => this.narrow(box.value));
        box.addEventListener("keydown", (event) => this.finding(event, box));
      }
      for (const button of this.$root.querySelectorAll("button[name=label]")) {
        button.addEventListener("click", (event) => this.choose(event, button.value, false));
      }
      this.find("[data-next]").addEventListener("click", () => this.turn((this.active + 1) % this.subjects.length));
      this.find("[data-drop]").addEventListener("click", () => this.drop());
      this.find("[data-add]").addEventListener("click", (event) => this.name(event));
      this.find("[data-new]").addEventListener("keydown", (event) => {
        if (event.key === "Enter") {
          event.preventDefault();
          this.name(event);
        }
      });
      for (const face of this.faces()) {
        face.addEventListener("click", () => this.turn(Number(face.dataset.face) - 1));
      }
      this.show();
    },

    find(selector) {
      return this.$root.querySelector(selector);
    },

    faces() {
      return [...document.querySelectorAll(".faces [data-face]")];
    },

    // The one subject of a picture is answered by a click; several, or a blind check, are saved together.
    choose(event, label, fresh) {
      this.fresh = this.fresh || fresh;
      if (this.subjects.length === 0 || (this.active >= this.subjects.length && !this.subjects.some((s) => s.label === label))) {
        this.subjects.push({ label });
        this.nearest.push([]);
        this.active = this.subjects.length;
      } else if (this.active >= this.subjects.length) {
        this.subjects = this.subjects.filter((subject) => subject.label !== label);
        this.active = this.subjects.length;
      } else {
        this.subjects[this.active] = { ...this.subjects[this.active], label };
        this.active = (this.active + 1) % this.subjects.length;
      }
      this.write();
      if ("single" in this.$root.dataset && event.type === "click" && event.currentTarget.name === "label") {
        return;
      }
      event.preventDefault();
      this.show();
    },

    name(event) {
      const field = this.find("[data-new]");
      const label = field.value.trim().replace(/\s+/g, " ");
      if (!label) {
        field.focus();
        return;
      }
      field.value = "";
      this.find("details").open = false;
      this.choose(event, label, true);
      this.find("[data-save]").focus();
    },

    drop() {
      this.subjects.splice(this.active, 1);
      this.nearest.splice(this.active, 1);
      this.faces()[this.active]?.remove();
      this.faces().forEach((face, place) => {
        face.dataset.face = String(place + 1);
        face.querySelector("text").textContent = String(place + 1);
      });
      this.active = 0;
      this.write();
      this.show();
    },

    turn(place) {
      this.active = place;
      this.show();
    },

    write() {
      this.field.value = JSON.stringify({ subjects: this.subjects });
      this.find("input[name=new]").value = this.fresh ? "1" : "";
    },

    show() {
      const list = this.find("[data-list]");
      list.replaceChildren();
      this.subjects.forEach((subject, place) => {
        const item = document.createElement("li");
        const button = document.createElement("button");
        button.type = "button";
        button.className = place === this.active ? "choice active" : "choice";
        button.textContent = subject.label === "unknown" ? "nobody known" : subject.label;
        button.addEventListener("click", () => this.turn(place));
        item.append(button);
        list.append(item);
      });
      list.hidden = this.subjects.length < 2 && "single" in this.$root.dataset;
      this.faces().forEach((face, place) => face.classList.toggle("active", place === this.active));
      const several = this.subjects.length > 1;
      this.find("[data-next]").hidden = !several;
      this.find("[data-drop]").hidden = !this.subjects.length || this.active >= this.subjects.length;
      const changed = JSON.stringify(this.subjects) !== this.first;
      const save = this.find("[data-save]");
      save.disabled = !changed && this.agree === "Save";
      save.querySelector("span").textContent = changed ? `Save: ${this.told()}` : this.agree;
      const whose = several && this.active < this.subjects.length ? `Number ${this.active + 1} is` : "or it is";
      this.find("[data-hint]").textContent = this.agree === "Save" ? "Choose everybody whom you see" : whose;
      this.narrow(this.find("[data-find]")?.value ?? "");
    },

    told() {
      const strangers = this.subjects.filter((subject) => subject.label === "unknown").length;
      const known = [...new Set(this.subjects.map((subject) => subject.label))].filter((label) => label !== "unknown");
      known.sort();
      if (strangers) {
        known.push(strangers === 1 && !known.length ? "unknown" : `${strangers} unknown`);
      }
      return known.join(", ") || "nobody";
    },

    // The names most like the active subject come first; what matches the search stays, and the first nine have keys.
    narrow(text) {
      const words = text.toLowerCase().split(/\s+/).filter(Boolean);
      const near = this.nearest[this.active] ?? [];
      const rank = (button) => (near.indexOf(button.value) + 1 || near.length + 1);
      const parent = this.find(".choices");
      const ordered = this.names.map((button, place) => [rank(button), place, button]);
      ordered.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
      let key = 0;
      for (const [, , button] of ordered) {
        parent.append(button);
        button.hidden = !words.every((word) => button.dataset.name.includes(word));
        button.querySelector("kbd")?.remove();
        delete button.dataset.key;
        if (!button.hidden && key < 9) {
          key += 1;
          const mark = document.createElement("kbd");
          mark.textContent = String(key);
          button.dataset.key = String(key);
          button.prepend(mark, " ");
        }
      }
      this.find("[data-none]").hidden = key > 0 || !this.names.length;
    },

    finding(event, box) {
      if (event.key === "Enter") {
        event.preventDefault();
        const first = [...this.$root.querySelectorAll(".choices button")].find((button) => !button.hidden);
        box.value = "";
        box.blur();
        first?.click();
      } else if (event.key === "Escape") {
        box.value = "";
        this.narrow("");
        box.blur();
      }
    },
  }));
});

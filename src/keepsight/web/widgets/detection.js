// Boxes over a picture: seen, drawn, moved, resized, removed, given another class, by mouse, finger or keys.
// What is drawn is what the hidden field holds; the picture lies inside the drawing, so that both grow together.
document.addEventListener("alpine:init", () => {
  const SVG = "http://www.w3.org/2000/svg";
  const COLOURS = 10;
  const LEAST_SIDE = 3;

  // The one drawing of the page; the tools beside it find it here.
  const desk = { drawing: null, tools: null, fresh: new Set() };

  const element = (name, values, parent) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(values)) {
      made.setAttribute(key, value);
    }
    parent?.append(made);
    return made;
  };
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const rounded = (value) => Math.round(value * 10) / 10;
  const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "es"}`;

  Alpine.data("boxes", () => ({
    init() {
      const state = JSON.parse(this.$root.dataset.state);
      this.svg = this.$root;
      this.wide = Number(this.svg.dataset.width);
      this.high = Number(this.svg.dataset.height);
      this.items = state.boxes;
      this.maybe = state.maybe;
      this.classes = state.classes;
      this.chosen = -1;
      this.current = this.classes[0] ?? "";
      this.view = [0, 0, this.wide, this.high];
      this.gesture = null;
      desk.drawing = this;
      desk.fresh = new Set();
      const image = this.svg.closest(".picture").querySelector("img");
      this.image = element("image", { width: this.wide, height: this.high, href: image.src, preserveAspectRatio: "none" });
      this.large = image.dataset.large ?? image.src;
      this.layer = element("g", {});
      this.svg.replaceChildren(this.image, this.layer);
      this.svg.classList.add("live");
      this.listen();
      this.draw();
    },

    listen() {
      this.svg.addEventListener("pointerdown", (event) => this.begin(event));
      this.svg.addEventListener("pointermove", (event) => this.move(event));
      this.svg.addEventListener("pointerup", (event) => this.finish(event));
      this.svg.addEventListener("pointercancel", () => this.cancel());
      this.onKey = (event) => this.key(event);
      document.addEventListener("keydown", this.onKey, true);
      this.resized = new ResizeObserver(() => this.draw());
      this.resized.observe(this.svg);
    },

    destroy() {
      document.removeEventListener("keydown", this.onKey, true);
      this.resized.disconnect();
      if (desk.drawing === this) {
        desk.drawing = null;
      }
    },

    // Picture pixels for one of the screen.
    unit() {
      const matrix = this.svg.getScreenCTM();
      return matrix ? 1 / matrix.a : 1;
    },

    point(event) {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
      return [clamp(at.x, 0, this.wide), clamp(at.y, 0, this.high)];
    },

    draw() {
      const unit = this.unit();
      this.svg.setAttribute("viewBox", this.view.join(" "));
      this.layer.replaceChildren();
      for (const [place, item] of this.maybe.entries()) {
        this.rectangle(item, { "data-maybe": place, class: `box maybe ${this.colour(item.label)}` });
      }
      // Small boxes lie above large ones, the chosen one above all.
      const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
      const order = [...this.items.keys()].sort((a, b) => area(this.items[b].box) - area(this.items[a].box));
      for (const place of order.filter((each) => each !== this.chosen)) {
        this.rectangle(this.items[place], { "data-place": place, class: `box ${this.colour(this.items[place].label)}` });
      }
      const item = this.items[this.chosen];
      if (item) {
        this.rectangle(item, { "data-place": this.chosen, class: `box chosen ${this.colour(item.label)}` });
        const [x1, y1, x2, y2] = item.box;
        const side = 11 * unit;
        for (const [name, x, y] of [["nw", x1, y1], ["ne", x2, y1], ["sw", x1, y2], ["se", x2, y2]]) {
          element("rect", { class: `handle ${name}`, "data-handle": name, x: x - side / 2, y: y - side / 2, width: side, height: side }, this.layer);
        }
        const size = 14 * unit;
        const below = y1 < 1.6 * size;
        const text = element("text", { class: "box-name", x: x1, y: below ? y2 + 1.2 * size : y1 - 0.5 * size, "font-size": size }, this.layer);
        text.textContent = item.label;
      }
      desk.tools?.show();
    },

    rectangle(item, values) {
      const [x1, y1, x2, y2] = item.box;
      const made = element("rect", { x: x1, y: y1, width: x2 - x1, height: y2 - y1, ...values }, this.layer);
      element("title", {}, made).textContent = values["data-maybe"] !== undefined ? `perhaps ${item.label}: click to take it` : item.label;
    },

    colour(label) {
      return `class-${Math.max(0, this.classes.indexOf(label)) % COLOURS}`;
    },

    // Mouse and finger

    begin(event) {
      if (event.button !== 0) {
        return;
      }
      event.preventDefault();
      const target = event.target.dataset;
      const at = this.point(event);
      this.svg.setPointerCapture(event.pointerId);
      if (target.maybe !== undefined) {
        const [taken] = this.maybe.splice(Number(target.maybe), 1);
        this.items.push(taken);
        this.choose(this.items.length - 1);
      } else if (target.handle) {
        this.gesture = { kind: target.handle, at, before: [...this.items[this.chosen].box] };
      } else if (target.place !== undefined) {
        this.choose(Number(target.place));
        this.gesture = { kind: "move", at, before: [...this.items[this.chosen].box] };
      } else {
        this.choose(-1);
        this.gesture = { kind: "draw", at };
      }
    },

    move(event) {
      if (!this.gesture) {
        return;
      }
      const [x, y] = this.point(event);
      const { kind, at, before } = this.gesture;
      if (kind === "draw") {
        const box = [Math.min(x, at[0]), Math.min(y, at[1]), Math.max(x, at[0]), Math.max(y, at[1])];
        if (this.chosen < 0) {
          if (Math.hypot(x - at[0], y - at[1]) < 5 * this.unit() || !this.current) {
            return;
          }
          this.items.push({ label: this.current, box });
          this.chosen = this.items.length - 1;
          this.gesture.made = true;
        }
        this.items[this.chosen].box = box.map(rounded);
      } else if (kind === "move") {
        this.items[this.chosen].box = this.shifted(before, x - at[0], y - at[1]);
      } else {
        this.items[this.chosen].box = this.pulled(before, kind, x - at[0], y - at[1]);
      }
      this.draw();
    },

    finish() {
      const gesture = this.gesture;
      this.gesture = null;
      if (gesture?.made) {
        const [x1, y1, x2, y2] = this.items[this.chosen].box;
        if (x2 - x1 < LEAST_SIDE || y2 - y1 < LEAST_SIDE) {
          this.remove();
        }
      }
      this.draw();
    },

    cancel() {
      this.gesture = null;
      this.draw();
    },

    shifted([x1, y1, x2, y2], dx, dy) {
      const x = clamp(dx, -x1, this.wide - x2);
      const y = clamp(dy, -y1, this.high - y2);
      return [x1 + x, y1 + y, x2 + x, y2 + y].map(rounded);
    },

    pulled([x1, y1, x2, y2], corner, dx, dy) {
      if (corner.includes("w")) {
        x1 = clamp(x1 + dx, 0, x2 - LEAST_SIDE);
      } else {
        x2 = clamp(x2 + dx, x1 + LEAST_SIDE, this.wide);
      }
      if (corner.includes("n")) {
        y1 = clamp(y1 + dy, 0, y2 - LEAST_SIDE);
      } else {
        y2 = clamp(y2 + dy, y1 + LEAST_SIDE, this.high);
      }
      return [x1, y1, x2, y2].map(rounded);
    },

    // Keys

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select") || !this.svg.isConnected) {
        return;
      }
      const step = Math.max(1, Math.round(2 * this.unit())) * (event.repeat ? 3 : 1);
      const arrows = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      const actions = { a: "add", n: "next", p: "before", z: "closer", Delete: "remove", Backspace: "remove", Escape: "letGo" };
      const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      if (arrows[name] && this.items[this.chosen]) {
        const item = this.items[this.chosen];
        item.box = event.shiftKey ? this.pulled(item.box, "se", ...arrows[name]) : this.shifted(item.box, ...arrows[name]);
        this.draw();
      } else if (actions[name]) {
        if (!event.repeat || name === "n" || name === "p") {
          this[actions[name]]();
        }
      } else if (/^[0-9]$/.test(name)) {
        const button = desk.tools?.button(name);
        if (!button || event.repeat) {
          return;
        }
        button.click();
      } else {
        return;
      }
      event.preventDefault();
      event.stopPropagation();
    },

    choose(place) {
      this.chosen = place;
      this.draw();
    },

    // From left to right, line by line, as one reads.
    order() {
      const row = this.high / 8;
      const key = ([x1, y1]) => Math.floor(y1 / row) * 1e6 + x1;
      return [...this.items.keys()].sort((a, b) => key(this.items[a].box) - key(this.items[b].box));
    },

    next(by = 1) {
      const order = this.order();
      if (order.length) {
        const at = order.indexOf(this.chosen);
        this.choose(order[at < 0 ? (by > 0 ? 0 : order.length - 1) : (at + by + order.length) % order.length]);
      }
    },

    before() {
      this.next(-1);
    },

    letGo() {
      this.choose(-1);
    },

    add() {
      if (!this.current) {
        return;
      }
      const [left, top, wide, high] = this.view;
      const side = Math.min(wide, high) / 5;
      const x = clamp(left + wide / 2 - side / 2, 0, this.wide - side);
      const y = clamp(top + high / 2 - side / 2, 0, this.high - side);
      this.items.push({ label: this.current, box: [x, y, x + side, y + side].map(rounded) });
      this.choose(this.items.length - 1);
    },

    remove() {
      if (this.items[this.chosen]) {
        this.items.splice(this.chosen, 1);
        this.choose(-1);
      }
    },

    // Nearer to the chosen box, or to the middle; again: the whole picture.
    closer() {
      if (this.view[2] < this.wide) {
        this.view = [0, 0, this.wide, this.high];
      } else {
        const [x1, y1, x2, y2] = this.items[this.chosen]?.box ?? [0.25 * this.wide, 0.25 * this.high, 0.75 * this.wide, 0.75 * this.high];
        const share = clamp(Math.max((4 * (x2 - x1)) / this.wide, (4 * (y2 - y1)) / this.high, 0.15), 0, 0.5);
        const [wide, high] = [share * this.wide, share * this.high];
        const left = clamp((x1 + x2) / 2 - wide / 2, 0, this.wide - wide);
        const top = clamp((y1 + y2) / 2 - high / 2, 0, this.high - high);
        this.view = [left, top, wide, high];
        if (this.image.getAttribute("href") !== this.large) {
          this.image.setAttribute("href", this.large);
        }
      }
      this.svg.setAttribute("viewBox", this.view.join(" "));
      this.draw();
    },

    name(label) {
      this.current = label;
      if (this.items[this.chosen]) {
        this.items[this.chosen].label = label;
      }
      this.draw();
    },

    value() {
      return { boxes: this.items.map(({ label, box }) => ({ label, box })) };
    },
  }));

  Alpine.data("boxTools", () => ({
    init() {
      desk.tools = this;
      this.$root.addEventListener("click", (event) => this.click(event));
      this.show();
    },

    destroy() {
      if (desk.tools === this) {
        desk.tools = null;
      }
    },

    button(key) {
      return this.$root.querySelector(`button[data-key="${key}"]`);
    },

    buttons() {
      return [...this.$root.querySelectorAll("button[data-class]")];
    },

    click(event) {
      const button = event.target.closest("button[type=button]");
      const drawing = desk.drawing;
      if (!button || !drawing) {
        return;
      }
      // Enter is for saving; who came by keyboard stays where they are.
      if (event.detail > 0) {
        button.blur();
      }
      if (button.dataset.class !== undefined) {
        drawing.name(button.dataset.class);
      } else {
        drawing[button.dataset.do]();
      }
    },

    show() {
      const drawing = desk.drawing;
      if (!drawing?.items) {
        return;
      }
      const counts = new Map();
      for (const { label } of drawing.items) {
        counts.set(label, (counts.get(label) ?? 0) + 1);
      }
      const words = [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).map(([label, count]) => `${count} ${label}`);
      const item = drawing.items[drawing.chosen];
      for (const button of this.buttons()) {
        const own = button.dataset.class;
        button.querySelector("[data-count]").textContent = counts.get(own) ?? "";
        button.setAttribute("aria-pressed", String(own === (item?.label ?? drawing.current)));
      }
      const order = drawing.order();
      this.$root.querySelector("[data-state-line]").textContent = item
        ? `Box ${order.indexOf(drawing.chosen) + 1} of ${order.length}: ${item.label}`
        : `${plural(order.length, "box")}${drawing.current ? `; the next one you draw is ${drawing.current}` : ""}`;
      this.$root.querySelector("[data-save-words]").textContent = `Save: ${words.join(", ") || "nothing is here"}`;
      this.$root.querySelector("[name=value]").value = JSON.stringify(drawing.value());
      const used = [...counts.keys()].some((label) => desk.fresh.has(label));
      this.$root.querySelector("[name=new_class]").value = used ? "yes" : "";
    },

    append(label) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = `choice ${desk.drawing.colour(label)}`;
      button.dataset.class = label;
      const name = document.createElement("span");
      name.textContent = label;
      const count = document.createElement("small");
      count.className = "muted";
      count.dataset.count = "";
      button.append(name, " ", count);
      this.$root.querySelector(".choices").append(button);
    },
  }));

  Alpine.data("newBoxClass", () => ({
    init() {
      this.field = this.$root.parentElement.querySelector("[data-new-label]");
      this.$root.closest("form")?.addEventListener("submit", (event) => {
        event.preventDefault();
        event.stopImmediatePropagation();
        this.add();
      }, true);
    },

    add() {
      const label = this.field.value.trim().replace(/\s+/g, " ");
      const drawing = desk.drawing;
      if (!label || !drawing || !desk.tools) {
        return;
      }
      if (!drawing.classes.includes(label)) {
        drawing.classes.push(label);
        desk.fresh.add(label);
        desk.tools.append(label);
      }
      this.field.value = "";
      this.field.blur();
      drawing.name(label);
    },
  }));
});

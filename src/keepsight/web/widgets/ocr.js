// A document's lines and fields. What is seen is what the hidden input holds, as JSON.
document.addEventListener("alpine:init", () => {
  const SVG = "http://www.w3.org/2000/svg";
  const SMALLEST = 4;

  Alpine.data("ocr", () => ({
    init() {
      const root = this.$root;
      this.hidden = root.querySelector("input[name=value]");
      this.size = { width: Number(root.dataset.width), height: Number(root.dataset.height) };
      this.lines = JSON.parse(root.dataset.lines).map((line) => ({ ...line }));
      this.list = root.querySelector("[data-lines-list]");
      this.checked = root.querySelector("[data-checked]");
      this.field = null;
      this.fresh = true;
      this.at = -1;
      this.drawing = false;
      this.begin = this.hidden.value;
      this.place(root.closest(".desk"));
      for (const line of this.lines) {
        this.addBox(line);
        this.addText(line);
      }
      for (const input of root.querySelectorAll("[data-field]")) {
        this.wire(input);
      }
      this.checked.addEventListener("change", () => this.write());
      root.querySelector("[data-add-field]").addEventListener("click", () => this.addField());
      root.querySelector("[data-new-field]").addEventListener("keydown", (event) => {
        if (event.key === "Enter") {
          event.preventDefault();
          this.addField();
        }
      });
      root.querySelector("[data-draw]").addEventListener("click", () => this.draw());
    },

    destroy() {
      this.watch?.disconnect();
    },

    // The layer lies exactly on the shown part of the picture, however large that is.
    place(desk) {
      this.layer = desk.querySelector("[data-lines-layer]");
      const image = desk.querySelector(".picture img");
      image.parentElement.classList.add("with-lines");
      image.parentElement.append(this.layer);
      const fit = () => {
        const scale = Math.min(image.offsetWidth / this.size.width, image.offsetHeight / this.size.height);
        const width = this.size.width * scale;
        const height = this.size.height * scale;
        this.layer.style.width = `${width}px`;
        this.layer.style.height = `${height}px`;
        this.layer.style.left = `${image.offsetLeft + (image.offsetWidth - width) / 2}px`;
        this.layer.style.top = `${image.offsetTop + (image.offsetHeight - height) / 2}px`;
      };
      this.watch = new ResizeObserver(fit);
      this.watch.observe(image);
      image.addEventListener("load", fit);
      fit();
      this.layer.addEventListener("click", (event) => {
        const chosen = event.target.closest("rect")?.line;
        if (chosen || this.drawing) {
          event.preventDefault();
          event.stopPropagation();
        }
        if (chosen && !this.drawing) {
          this.take(chosen);
        }
      });
      this.layer.addEventListener("pointerdown", (event) => this.drag(event));
    },

    addBox(line) {
      line.rect = document.createElementNS(SVG, "rect");
      line.rect.line = line;
      this.shape(line);
      this.layer.append(line.rect);
    },

    addText(line) {
      line.input = document.createElement("input");
      line.input.type = "text";
      line.input.value = line.text;
      line.input.maxLength = 2000;
      line.input.autocomplete = "off";
      line.input.spellcheck = false;
      line.input.setAttribute("aria-label", "Text of the line");
      line.input.addEventListener("focus", () => this.mark(line));
      line.input.addEventListener("input", () => {
        line.text = line.input.value;
        this.checked.checked = true;
        this.write();
      });
      line.input.addEventListener("keydown", (event) => this.move(event, line));
      line.item = document.createElement("li");
      line.item.append(line.input);
      this.list.append(line.item);
    },

    shape(line) {
      const [left, top, right, bottom] = line.box;
      line.rect.setAttribute("x", left);
      line.rect.setAttribute("y", top);
      line.rect.setAttribute("width", Math.max(0, right - left));
      line.rect.setAttribute("height", Math.max(0, bottom - top));
    },

    // In a list of lines the arrows go from line to line, Enter to the next one.
    move(event, line) {
      const step = { ArrowDown: 1, Enter: 1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") {
        event.target.blur();
      } else if (event.key === "Enter" && event.ctrlKey) {
        event.preventDefault();
        this.save();
      } else if (step) {
        event.preventDefault();
        this.lines[this.lines.indexOf(line) + step]?.input.focus();
      }
    },

    wire(input) {
      input.addEventListener("focus", () => {
        this.field = input;
        this.fresh = true;
        this.at = -1;
        this.mark(null);
        for (const other of this.$root.querySelectorAll("[data-field]")) {
          other.classList.toggle("armed", other === input);
        }
      });
      input.addEventListener("input", () => {
        this.fresh = false;
        this.write();
      });
      // In a field the arrows choose a line of the picture, Enter takes it; without one, Enter goes on.
      input.addEventListener("keydown", (event) => {
        if (event.key === "ArrowDown" || event.key === "ArrowUp") {
          event.preventDefault();
          this.choose(event.key === "ArrowDown" ? 1 : -1);
        } else if (event.key === "Enter" && event.ctrlKey) {
          event.preventDefault();
          this.save();
        } else if (event.key === "Enter") {
          event.preventDefault();
          if (this.at >= 0) {
            this.take(this.lines[this.at]);
          } else {
            this.next(input);
          }
        } else if (event.key === "Escape") {
          input.blur();
        }
      });
    },

    choose(step) {
      if (this.lines.length === 0) {
        return;
      }
      const from = this.at < 0 && step < 0 ? this.lines.length : this.at;
      this.at = Math.min(this.lines.length - 1, Math.max(0, from + step));
      this.mark(this.lines[this.at]);
    },

    next(input) {
      const all = [...this.$root.querySelectorAll("[data-field]")];
      const following = all[all.indexOf(input) + 1];
      if (following) {
        following.focus();
        following.select();
      } else {
        input.blur();
      }
    },

    // The first line replaces what a field says, further ones are added to it.
    take(line) {
      if (!this.field) {
        this.list.closest("details").open = true;
        line.input.focus();
        return;
      }
      this.field.value = this.fresh ? line.text : `${this.field.value} ${line.text}`.trim();
      this.fresh = false;
      this.at = -1;
      this.mark(line);
      this.field.focus({ preventScroll: true });
      this.fresh = false;
      this.write();
    },

    mark(line) {
      for (const other of this.lines) {
        other.rect.classList.toggle("marked", other === line);
      }
      line?.rect.scrollIntoView({ block: "nearest", inline: "nearest" });
    },

    addField() {
      const typed = this.$root.querySelector("[data-new-field]");
      const name = typed.value.trim().replace(/\s+/g, " ");
      const there = [...this.$root.querySelectorAll("[data-field]")].find((input) => input.dataset.field === name);
      if (name && !there) {
        const label = document.createElement("label");
        label.className = "document-field";
        const title = document.createElement("span");
        title.textContent = name;
        const input = document.createElement("textarea");
        input.rows = 1;
        input.maxLength = 2000;
        input.dataset.field = name;
        label.append(title, input);
        typed.closest("details").before(label);
        this.wire(input);
        this.$root.querySelector("input[name=new_fields]").value = "yes";
        input.focus();
      } else {
        there?.focus();
      }
      typed.value = "";
    },

    draw() {
      this.drawing = true;
      this.layer.classList.add("drawing");
      this.$root.querySelector("[data-hint]").textContent = "Draw a box around the new line in the picture.";
    },

    point(event) {
      const frame = this.layer.getBoundingClientRect();
      const x = ((event.clientX - frame.left) / frame.width) * this.size.width;
      const y = ((event.clientY - frame.top) / frame.height) * this.size.height;
      return [Math.min(this.size.width, Math.max(0, x)), Math.min(this.size.height, Math.max(0, y))];
    },

    drag(event) {
      if (!this.drawing) {
        return;
      }
      event.preventDefault();
      const start = this.point(event);
      const line = { text: "", box: [...start, ...start] };
      this.addBox(line);
      this.layer.setPointerCapture(event.pointerId);
      const grow = (moved) => {
        const [x, y] = this.point(moved);
        line.box = [Math.min(x, start[0]), Math.min(y, start[1]), Math.max(x, start[0]), Math.max(y, start[1])].map(
          (side) => Math.round(side * 10) / 10,
        );
        this.shape(line);
      };
      const end = () => {
        this.layer.removeEventListener("pointermove", grow);
        const [left, top, right, bottom] = line.box;
        if (right - left < SMALLEST || bottom - top < SMALLEST) {
          line.rect.remove();
          return;
        }
        // A click follows the release; the box is no choice of a line yet.
        setTimeout(() => {
          this.drawing = false;
          this.layer.classList.remove("drawing");
        });
        this.lines.push(line);
        this.addText(line);
        line.input.focus();
      };
      this.layer.addEventListener("pointermove", grow);
      this.layer.addEventListener("pointerup", end, { once: true });
    },

    save() {
      this.$root.querySelector("button.agree").click();
    },

    write() {
      const value = {};
      const fields = {};
      for (const input of this.$root.querySelectorAll("[data-field]")) {
        if (input.value.trim()) {
          fields[input.dataset.field] = input.value;
        }
      }
      if (Object.keys(fields).length > 0) {
        value.fields = fields;
      }
      const kept = this.lines.filter((line) => line.text.trim());
      if (this.checked.checked && kept.length > 0) {
        value.lines = kept.map((line) => ({ text: line.text, box: line.box }));
      }
      this.hidden.value = JSON.stringify(value);
      const button = this.$root.querySelector("[data-save]");
      button.textContent = this.hidden.value === this.begin ? button.textContent : "Save what is here";
    },
  }));
});

// Paints a mask on a picture. What is seen is what the hidden input holds: one value for each pixel, in or out.
(() => {
  const MOST_PIXELS = 8_000_000;
  const UNDO = 40;
  // Radius of the brush as a share of the picture's shorter side.
  const SIZES = [0.004, 0.01, 0.022, 0.05, 0.1];
  const COVER = [200, 30, 80, 140];

  // COCO's run lengths, column by column, zeros first, and their compressed text (see keepsight.runtime.rle).
  function runsOf(text) {
    const counts = [];
    let place = 0;
    while (place < text.length) {
      let number = 0;
      let shift = 0;
      let sign = 0;
      do {
        sign = text.charCodeAt(place) - 48;
        number |= (sign & 31) << shift;
        shift += 5;
        place += 1;
      } while (sign & 32);
      if (sign & 16) {
        number |= -1 << shift;
      }
      counts.push(counts.length > 2 ? number + counts[counts.length - 2] : number);
    }
    return counts;
  }

  function textOf(counts) {
    const signs = [];
    for (let place = 0; place < counts.length; place += 1) {
      let number = place > 2 ? counts[place] - counts[place - 2] : counts[place];
      let more = true;
      while (more) {
        let sign = number & 31;
        number >>= 5;
        more = sign & 16 ? number !== -1 : number !== 0;
        if (more) {
          sign |= 32;
        }
        signs.push(String.fromCharCode(sign + 48));
      }
    }
    return signs.join("");
  }

  // A mask on a grid: a pixel of the picture each, or several where the picture is very large.
  class Mask {
    constructor(width, height) {
      this.full = { width, height };
      this.step = Math.ceil(Math.sqrt((width * height) / MOST_PIXELS));
      this.width = Math.ceil(width / this.step);
      this.height = Math.ceil(height / this.step);
      this.cells = new Uint8Array(this.width * this.height);
    }

    load(counts) {
      this.cells.fill(0);
      const { height } = this.full;
      let place = 0;
      for (let run = 0; run < counts.length; run += 1) {
        if (run % 2 === 1) {
          for (let pixel = place; pixel < place + counts[run]; pixel += 1) {
            const x = Math.floor(pixel / height);
            const y = pixel - x * height;
            if (x % this.step === 0 && y % this.step === 0) {
              this.cells[(y / this.step) * this.width + x / this.step] = 1;
            }
          }
        }
        place += counts[run];
      }
    }

    runs() {
      const counts = [];
      let before = 0;
      let length = 0;
      for (let x = 0; x < this.full.width; x += 1) {
        const column = Math.floor(x / this.step);
        for (let y = 0; y < this.full.height; y += 1) {
          const cell = this.cells[Math.floor(y / this.step) * this.width + column];
          if (cell !== before) {
            counts.push(length);
            length = 0;
            before = cell;
          }
          length += 1;
        }
      }
      counts.push(length);
      return counts;
    }

    disc(x, y, radius, value) {
      const top = Math.max(0, Math.ceil(y - radius));
      const bottom = Math.min(this.height - 1, Math.floor(y + radius));
      for (let row = top; row <= bottom; row += 1) {
        const half = Math.sqrt(Math.max(0, radius * radius - (row - y) * (row - y)));
        const left = Math.max(0, Math.ceil(x - half));
        const right = Math.min(this.width - 1, Math.floor(x + half));
        if (right >= left) {
          this.cells.fill(value, row * this.width + left, row * this.width + right + 1);
        }
      }
    }

    // All cells that are like the one at (x, y) and reached from it get the other value.
    flip(x, y) {
      const { width, height, cells } = this;
      const from = cells[y * width + x];
      this.spread([[x, y]], from, 1 - from, width, height, cells);
    }

    // What is out, and not reached from the rim, is enclosed: it gets in.
    close() {
      const { width, height } = this;
      const seen = this.cells.slice();
      const rim = [];
      for (let x = 0; x < width; x += 1) {
        rim.push([x, 0], [x, height - 1]);
      }
      for (let y = 0; y < height; y += 1) {
        rim.push([0, y], [width - 1, y]);
      }
      this.spread(rim, 0, 2, width, height, seen);
      for (let place = 0; place < seen.length; place += 1) {
        this.cells[place] = seen[place] === 2 ? 0 : 1;
      }
    }

    spread(starts, from, to, width, height, cells) {
      const waiting = starts.slice();
      while (waiting.length > 0) {
        const [x, y] = waiting.pop();
        const row = y * width;
        if (cells[row + x] !== from) {
          continue;
        }
        let left = x;
        let right = x;
        while (left > 0 && cells[row + left - 1] === from) {
          left -= 1;
        }
        while (right < width - 1 && cells[row + right + 1] === from) {
          right += 1;
        }
        cells.fill(to, row + left, row + right + 1);
        for (const next of [y - 1, y + 1]) {
          if (next < 0 || next >= height) {
            continue;
          }
          for (let at = left; at <= right; at += 1) {
            const open = cells[next * width + at] === from;
            if (open && (at === left || cells[next * width + at - 1] !== from)) {
              waiting.push([at, next]);
            }
          }
        }
      }
    }

    covered() {
      let sum = 0;
      for (const cell of this.cells) {
        sum += cell;
      }
      return sum / this.cells.length;
    }
  }

  // The canvas, the tools and the hidden input of one picture.
  class Editor {
    constructor(layer) {
      this.layer = layer;
      this.figure = layer.closest(".picture");
      this.desk = layer.closest(".desk");
      this.image = this.figure.querySelector("img");
      this.frame = this.image.closest("a") ?? this.image;
      this.canvas = layer.querySelector("canvas");
      this.ring = layer.querySelector(".brush");
      this.tools = this.desk.querySelector("[data-mask-tools]");
      this.input = this.tools?.querySelector('input[name="value"]');
      this.mask = new Mask(Number(layer.dataset.width), Number(layer.dataset.height));
      this.canvas.width = this.mask.width;
      this.canvas.height = this.mask.height;
      this.context = this.canvas.getContext("2d", { willReadFrequently: true });
      this.pixels = this.context.createImageData(this.mask.width, this.mask.height);
      this.past = [];
      // Whether changes were made that cannot be taken back any more.
      this.forgot = false;
      this.tool = "paint";
      this.size = 2;
      this.look = "edit";
      this.last = null;
      this.cursor = { x: this.mask.width / 2, y: this.mask.height / 2 };
      this.stop = new AbortController();
    }

    start() {
      const begin = this.input?.dataset.begin;
      if (begin) {
        this.mask.load(runsOf(JSON.parse(begin).mask.counts));
      }
      this.listen();
      this.draw();
      this.tell();
      this.place();
      this.layer.dataset.ready = "yes";
    }

    listen() {
      const options = { signal: this.stop.signal };
      const on = (target, name, handler) => target.addEventListener(name, handler, options);
      this.watch = new ResizeObserver(() => this.place());
      this.watch.observe(this.image);
      this.watch.observe(this.figure);
      on(this.image, "load", () => this.place());
      on(this.frame, "scroll", () => this.place());
      on(window, "resize", () => this.place());
      if (!this.tools) {
        return;
      }
      on(this.canvas, "pointerdown", (event) => this.press(event));
      on(this.canvas, "pointermove", (event) => this.move(event));
      on(this.canvas, "pointerup", () => this.lift());
      on(this.canvas, "pointercancel", () => this.lift());
      on(this.canvas, "pointerleave", () => this.showRing(null));
      on(this.canvas, "keydown", (event) => this.key(event));
      on(this.canvas, "wheel", (event) => this.frame.scrollBy(event.deltaX, event.deltaY));
      on(this.tools, "click", (event) => this.click(event.target.closest("button")));
      on(window, "keydown", (event) => this.shortcut(event));
    }

    end() {
      this.watch?.disconnect();
      this.stop.abort();
    }

    // The canvas lies exactly over the picture, however it is shown.
    place() {
      const frame = this.frame.getBoundingClientRect();
      const figure = this.figure.getBoundingClientRect();
      const image = this.image.getBoundingClientRect();
      const { width, height } = this.mask.full;
      const scale = Math.min(image.width / width, image.height / height);
      const style = (element, values) => Object.assign(element.style, values);
      style(this.layer, {
        left: `${frame.left - figure.left}px`,
        top: `${frame.top - figure.top}px`,
        width: `${frame.width}px`,
        height: `${frame.height}px`,
      });
      style(this.canvas, {
        left: `${image.left - frame.left + (image.width - width * scale) / 2}px`,
        top: `${image.top - frame.top + (image.height - height * scale) / 2}px`,
        width: `${width * scale}px`,
        height: `${height * scale}px`,
      });
    }

    radius() {
      const side = Math.min(this.mask.width, this.mask.height);
      return Math.max(0.5, SIZES[this.size] * side);
    }

    cellAt(event) {
      const box = this.canvas.getBoundingClientRect();
      return {
        x: ((event.clientX - box.left) / box.width) * this.mask.width - 0.5,
        y: ((event.clientY - box.top) / box.height) * this.mask.height - 0.5,
      };
    }

    press(event) {
      if (event.button !== 0) {
        return;
      }
      event.preventDefault();
      this.canvas.focus({ preventScroll: true });
      this.cursor = this.cellAt(event);
      this.remember();
      if (this.tool === "fill") {
        this.fill();
        return;
      }
      this.canvas.setPointerCapture(event.pointerId);
      this.last = this.cursor;
      this.line(this.cursor, this.cursor);
    }

    move(event) {
      const here = this.cellAt(event);
      this.showRing(here);
      if (!this.last) {
        return;
      }
      for (const part of event.getCoalescedEvents?.() ?? [event]) {
        const next = this.cellAt(part);
        this.line(this.last, next);
        this.last = next;
      }
      this.cursor = here;
    }

    lift() {
      if (this.last) {
        this.last = null;
        this.keep();
      }
    }

    fill() {
      const held = (value, most) => Math.min(most - 1, Math.max(0, Math.round(value)));
      this.mask.flip(held(this.cursor.x, this.mask.width), held(this.cursor.y, this.mask.height));
      this.draw();
      this.keep();
    }

    line(from, to) {
      const radius = this.radius();
      const value = this.tool === "erase" ? 0 : 1;
      const length = Math.hypot(to.x - from.x, to.y - from.y);
      const parts = Math.max(1, Math.ceil(length / Math.max(0.5, radius / 3)));
      for (let part = 0; part <= parts; part += 1) {
        const share = part / parts;
        this.mask.disc(from.x + (to.x - from.x) * share, from.y + (to.y - from.y) * share, radius, value);
      }
      const left = Math.floor(Math.min(from.x, to.x) - radius);
      const top = Math.floor(Math.min(from.y, to.y) - radius);
      this.draw(left, top, Math.ceil(Math.abs(to.x - from.x) + 2 * radius) + 2, Math.ceil(Math.abs(to.y - from.y) + 2 * radius) + 2);
    }

    key(event) {
      const step = event.shiftKey ? 1 : Math.max(1, this.radius() / 2);
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      if (event.key === " ") {
        this.remember();
        if (this.tool === "fill") {
          this.fill();
        } else {
          this.line(this.cursor, this.cursor);
          this.keep();
        }
      } else if (moves[event.key]) {
        const [x, y] = moves[event.key];
        this.cursor = {
          x: Math.min(this.mask.width - 1, Math.max(0, this.cursor.x + x)),
          y: Math.min(this.mask.height - 1, Math.max(0, this.cursor.y + y)),
        };
      } else {
        return;
      }
      event.preventDefault();
      event.stopPropagation();
      this.showRing(this.cursor);
    }

    // Ctrl+Z everywhere; the keys on the buttons where the page does not press them itself.
    shortcut(event) {
      const undo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
      if (undo) {
        event.preventDefault();
        this.back();
      } else if (!this.layer.closest("#review") && !event.ctrlKey && !event.metaKey && !event.altKey) {
        const button = this.tools.querySelector(`button[type="button"][data-key="${CSS.escape(event.key.toLowerCase())}"]`);
        if (button && !event.target.closest("input, textarea, select")) {
          event.preventDefault();
          button.click();
        }
      }
    }

    click(button) {
      if (!button || button.type !== "button") {
        return;
      }
      if (button.dataset.tool) {
        this.tool = button.dataset.tool;
        for (const other of this.tools.querySelectorAll("[data-tool]")) {
          other.setAttribute("aria-pressed", String(other === button));
        }
      } else if (button.dataset.size) {
        this.size = Math.min(SIZES.length - 1, Math.max(0, this.size + Number(button.dataset.size)));
        this.tools.querySelector(".size").textContent = String(this.size + 1);
      } else if ("undo" in button.dataset) {
        this.back();
      } else if ("holes" in button.dataset) {
        this.remember();
        this.mask.close();
        this.draw();
        this.keep();
      } else if ("look" in button.dataset) {
        const next = { edit: ["cut", "On white"], cut: ["white", "To correct"], white: ["edit", "As cut out"] };
        [this.look, button.querySelector("span").textContent] = next[this.look];
        this.layer.dataset.look = this.look;
        this.draw();
      }
    }

    remember() {
      this.past.push(this.mask.cells.slice());
      if (this.past.length > UNDO || this.past.length * this.mask.cells.length > 400_000_000) {
        this.past.shift();
        this.forgot = true;
      }
    }

    back() {
      const before = this.past.pop();
      if (before) {
        this.mask.cells = before;
        this.draw();
        this.keep();
      }
    }

    // The hidden input follows what is seen. Where nothing was changed, it is the mask that the page came with.
    keep() {
      const begin = this.input.dataset.begin;
      const { width, height } = this.mask.full;
      const changed = this.past.length > 0 || this.forgot;
      const counts = changed ? this.mask.runs() : [];
      const empty = counts.length === 1;
      this.input.value = !changed ? begin : empty ? "" : JSON.stringify({ mask: { size: [height, width], counts: textOf(counts) } });
      const save = this.tools.querySelector(".agree");
      save.querySelector("span").textContent = changed ? "Save my mask" : save.dataset.said;
      this.tools.querySelector("[data-undo]").disabled = this.past.length === 0;
      this.tell();
    }

    tell() {
      if (this.tools) {
        const share = this.mask.covered();
        const shown = share > 0 && share < 0.01 ? "less than 1" : String(Math.round(share * 100));
        this.tools.querySelector("[data-covered]").textContent = share ? `${shown} % of the picture is kept.` : "Nothing is kept yet.";
      }
    }

    showRing(cell) {
      this.ring.hidden = cell === null || this.tool === "fill";
      if (cell === null) {
        return;
      }
      const scale = this.canvas.clientWidth / this.mask.width;
      const radius = Math.max(2, this.radius() * scale);
      Object.assign(this.ring.style, {
        left: `${this.canvas.offsetLeft + (cell.x + 0.5) * scale - radius}px`,
        top: `${this.canvas.offsetTop + (cell.y + 0.5) * scale - radius}px`,
        width: `${2 * radius}px`,
        height: `${2 * radius}px`,
      });
    }

    draw(left = 0, top = 0, width = this.mask.width, height = this.mask.height) {
      const first = { x: Math.max(0, left), y: Math.max(0, top) };
      const last = { x: Math.min(this.mask.width, left + width), y: Math.min(this.mask.height, top + height) };
      if (last.x <= first.x || last.y <= first.y) {
        return;
      }
      const { data } = this.pixels;
      const tile = Math.max(4, Math.round(Math.min(this.mask.width, this.mask.height) / 40));
      for (let y = first.y; y < last.y; y += 1) {
        for (let x = first.x; x < last.x; x += 1) {
          const cell = y * this.mask.width + x;
          const at = cell * 4;
          if (this.mask.cells[cell]) {
            data[at + 3] = 0;
          } else if (this.look === "edit") {
            [data[at], data[at + 1], data[at + 2], data[at + 3]] = COVER;
          } else {
            const dark = this.look === "cut" && (Math.floor(x / tile) + Math.floor(y / tile)) % 2 === 1;
            data[at] = data[at + 1] = data[at + 2] = dark ? 204 : 255;
            data[at + 3] = 255;
          }
        }
      }
      this.context.putImageData(this.pixels, 0, 0, first.x, first.y, last.x - first.x, last.y - first.y);
    }
  }

  document.addEventListener("alpine:init", () => {
    Alpine.data("segmentation", () => {
      let editor = null;
      return {
        init() {
          editor = new Editor(this.$root);
          editor.start();
        },

        destroy() {
          editor?.end();
        },
      };
    });
  });
})();

// The maps of a scan: layer by projection, which the page has as a drawing, and layer by expert.

// Returns the step of the colour scale of a value, the brightest for the sharpest; null without a value.
function stepper(series, colours) {
  let low = Infinity, high = -Infinity;
  for (const value of series.values) if (value !== null) { if (value < low) low = value; if (value > high) high = value; }
  const step = (value) => (high > low ? Math.min(Math.floor((colours * (value - low)) / (high - low)), colours - 1) : 0);
  return { low, high, step: (value) => (value === null ? null : series.inverse ? colours - 1 - step(value) : step(value)) };
}

// Where arrow keys, Home and End lead in a grid, as [column, row, whole way].
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Home: [-1, 0, 1], End: [1, 0, 1] };

class ScanMap {
  constructor(explorer) {
    this.explorer = explorer;
    this.svg = explorer.find("svg.heat");
    this.cells = this.svg ? [...this.svg.querySelectorAll(".row rect")] : [];
    if (!this.svg) return;
    const { data } = explorer, squares = new Map(), layers = Math.max(...data.layer.map((layer) => layer ?? 0), 0) + 1;
    data.layer.forEach((layer, i) => {
      const key = data.strip[i] * layers + layer;
      if (layer === null) return;
      if (!squares.has(key)) squares.set(key, []);
      squares.get(key).push(i);
    });
    // The cells stand in the order of rows, and in each of layers.
    this.squares = [...squares.keys()].sort((a, b) => a - b).map((key) => squares.get(key));
    this.square = new Map(this.squares.flatMap((members, n) => members.map((i) => [i, n])));
    this.places = this.cells.map((cell) => [Number(cell.getAttribute("x")), Number(cell.getAttribute("y"))]);
    this.names = this.cells.map((cell) => cell.textContent.split(": ")[0]);
    this.svg.setAttribute("role", "grid");
    this.cells.forEach((cell) => { cell.setAttribute("role", "gridcell"); cell.setAttribute("tabindex", "-1"); });
    this.svg.querySelectorAll(".row").forEach((row) => row.setAttribute("role", "row"));
    this.svg.querySelectorAll(".row text").forEach((name) => name.setAttribute("role", "rowheader"));
    const at = (event) => this.cells.indexOf(event.target);
    this.svg.addEventListener("pointerover", (event) => { if (at(event) >= 0 && event.pointerType === "mouse") this.show(at(event)); });
    this.svg.addEventListener("pointerleave", () => explorer.tip());
    this.svg.addEventListener("click", (event) => { if (at(event) >= 0) this.cells[at(event)].focus({ preventScroll: true }); });
    this.svg.addEventListener("focusin", (event) => { if (at(event) >= 0) this.show(at(event)); });
    this.svg.addEventListener("focusout", () => explorer.tip());
    this.svg.addEventListener("keydown", (event) => this.walk(event, at(event)));
    ROWS.set(this.svg.closest("figure"), () => this.rows());
  }

  rows() {
    const { data, series, paths } = this.explorer;
    return [["projection", "layer", series.index, "modules", "sharpest"], ...this.squares.map((members, n) => {
      const i = this.sharpest(n);
      return [data.strips[data.strip[i]], data.layer[i], series.values[i], members.length, paths[i]];
    })];
  }

  show(square) {
    const module = this.sharpest(square), box = this.cells[square].getBoundingClientRect();
    this.explorer.look(module);
    this.explorer.tip(module, this.svg, box.left + box.width / 2, box.top);
  }

  walk(event, from) {
    const step = KEYS[event.key];
    if (!step || from < 0) return;
    event.preventDefault();
    const [x, y] = this.places[from];
    // The next cell that way, cells beside the line counting only where there is none on it.
    let best = -1, least = Infinity;
    this.places.forEach(([a, b], i) => {
      const [along, beside] = step[0] ? [(a - x) * step[0], Math.abs(b - y)] : [(b - y) * step[1], Math.abs(a - x)];
      const far = step[2] ? 1e6 - along + 1e7 * (beside > 0) : along + 1e3 * beside;
      if (along > 0 && far < least) [best, least] = [i, far];
    });
    if (best >= 0) this.cells[best].focus();
  }

  sharpest(square) { return this.explorer.sharpest(this.squares[square]); }

  recolour() {
    if (!this.svg) return;
    const { series, data } = this.explorer, { step } = stepper(series, data.colours);
    this.cells.forEach((cell, n) => {
      const value = series.values[this.sharpest(n)], level = step(value);
      cell.setAttribute("class", level === null ? "hn" : `h${level}`);
      cell.setAttribute("aria-label", `${this.names[n]}: ${show(value)}`);
      cell.replaceChildren();  // its title would lie over the label
    });
    this.look();
  }

  mark() {
    if (!this.svg) return;
    const { picked } = this.explorer, [wide, high] = ["width", "height"].map((name) => Number(this.cells[0].getAttribute(name)));
    const { cross } = this.svg.dataset;
    const path = this.places.map(([x, y], n) => (this.squares[n].some((i) => picked.has(i))
      ? `M${(x + wide / 2).toFixed(1)} ${(y + high / 2).toFixed(1)}${cross}` : "")).join("");
    this.svg.querySelectorAll(".cross").forEach((one) => one.setAttribute("d", path));
  }

  look() {
    if (!this.svg) return;
    const here = this.square.get(this.explorer.module), before = this.svg.querySelector(".here");
    before?.classList.remove("here");
    this.svg.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    this.cells[here]?.classList.add("here");
    this.cells[here ?? 0].setAttribute("tabindex", "0");
  }
}

// Experts across, layers down, one projection at a time. A path for every colour, since there are thousands of cells.
class ExpertMap {
  constructor(explorer) {
    this.explorer = explorer;
    this.svg = explorer.find("svg.experts");
    if (!this.svg) return;
    const { data } = explorer, held = first(data.count).filter((i) => data.expert[i] !== null && data.layer[i] !== null);
    this.layers = [...new Set(held.map((i) => data.layer[i]))].sort((a, b) => a - b);
    this.experts = [...new Set(held.map((i) => data.expert[i]))].sort((a, b) => a - b);
    this.select = explorer.find('select[name="experts"]');
    for (const strip of new Set(held.map((i) => data.strip[i]))) this.select.append(new Option(data.strips[strip], strip));
    this.wide = Math.min(Math.max(Math.floor(980 / this.experts.length), 4), 20);
    this.high = Math.min(Math.max(this.wide, 8), 16);
    const [across, down] = [36 + this.wide * this.experts.length + 4, 20 + this.high * this.layers.length + 22];
    for (const [name, value] of [["viewBox", `0 0 ${across} ${down}`], ["width", across], ["height", down]]) this.svg.setAttribute(name, value);
    const step = [1, 2, 4, 8, 16, 32, 64, 128].find((n) => n * this.wide >= 26) || 256;
    this.fills = first(data.colours).map((n) => shape("path", { class: `h${n}` }));
    this.marks = [shape("path", { class: "cross under" }), shape("path", { class: "cross" })];
    this.here = shape("rect", { class: "here", width: this.wide - 1, height: this.high - 1 });
    this.svg.append(...this.experts.filter((_, n) => n % step === 0).map((expert, n) => shape("text", { x: 36 + this.wide * (n * step + 0.5), y: 14, "text-anchor": "middle" }, String(expert))),
      ...this.layers.filter((_, n) => n % Math.ceil(13 / this.high) === 0).map((layer, n) => shape("text", { x: 30, y: 20 + this.high * (n * Math.ceil(13 / this.high) + 0.5) + 4, "text-anchor": "end" }, String(layer))),
      ...this.fills, ...this.marks, this.here, shape("text", { x: 36, y: down - 6 }, "expert across, layer down"));
    this.select.addEventListener("change", () => { this.fill(); this.recolour(); this.mark(); });
    this.svg.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") this.show(this.under(event)); });
    this.svg.addEventListener("click", (event) => this.show(this.under(event)));
    this.svg.addEventListener("pointerleave", () => explorer.tip());
    this.svg.addEventListener("focus", () => this.show(this.at ?? [0, 0]));
    this.svg.addEventListener("blur", () => explorer.tip());
    this.svg.addEventListener("keydown", (event) => this.walk(event));
    ROWS.set(this.svg.closest("figure"), () => this.rows());
    this.fill();
  }

  fill() {
    const { data } = this.explorer, strip = Number(this.select.value), row = new Map(this.layers.map((layer, n) => [layer, n]));
    const column = new Map(this.experts.map((expert, n) => [expert, n]));
    this.members = new Map();
    first(data.count).forEach((i) => {
      if (data.strip[i] !== strip || data.expert[i] === null || data.layer[i] === null) return;
      const key = row.get(data.layer[i]) * this.experts.length + column.get(data.expert[i]);
      if (!this.members.has(key)) this.members.set(key, []);
      this.members.get(key).push(i);
    });
  }

  rows() {
    const { data, series, paths } = this.explorer;
    return [["layer", "expert", series.index, "path"], ...[...this.members.values()].map((members) => {
      const i = this.explorer.sharpest(members);
      return [data.layer[i], data.expert[i], series.values[i], paths[i]];
    })];
  }

  corner(key) {
    const across = key % this.experts.length;
    return [36 + this.wide * across, 20 + this.high * ((key - across) / this.experts.length)];
  }

  under(event) {
    const box = this.svg.getBoundingClientRect(), scale = this.svg.viewBox.baseVal.width / box.width;
    const column = Math.floor(((event.clientX - box.left) * scale - 36) / this.wide), row = Math.floor(((event.clientY - box.top) * scale - 20) / this.high);
    return column < 0 || row < 0 || column >= this.experts.length || row >= this.layers.length ? null : [column, row];
  }

  walk(event) {
    const step = KEYS[event.key];
    if (!step) return;
    event.preventDefault();
    const [column, row] = this.at ?? [0, 0], last = [this.experts.length - 1, this.layers.length - 1];
    const there = (at) => this.members.has(at[1] * this.experts.length + at[0]), inside = (at) => at.every((n, i) => n >= 0 && n <= last[i]);
    // Over cells that hold nothing it goes on, and stays where there is no other.
    let at = step[2] ? [step[0] < 0 ? 0 : last[0], row] : [column + step[0], row + step[1]];
    const on = step[2] ? [-Math.sign(step[0]) || 1, 0] : step;
    while (inside(at) && !there(at)) at = [at[0] + on[0], at[1] + on[1]];
    if (inside(at)) this.show(at);
    else if (!this.at) this.show([...this.members.keys()].slice(0, 1).map((key) => [key % this.experts.length, Math.floor(key / this.experts.length)])[0]);
  }

  show(at) {
    const members = at && this.members.get(at[1] * this.experts.length + at[0]);
    if (!members) return this.explorer.tip();
    this.at = at;
    const module = this.explorer.sharpest(members), box = this.svg.getBoundingClientRect(), scale = box.width / this.svg.viewBox.baseVal.width;
    const [x, y] = this.corner(at[1] * this.experts.length + at[0]);
    this.explorer.look(module);
    this.explorer.tip(module, this.svg, box.left + (x + this.wide / 2) * scale, box.top + y * scale);
  }

  recolour() {
    if (!this.svg) return;
    const { series, data } = this.explorer, { step } = stepper(series, data.colours), parts = first(data.colours).map(() => []);
    for (const [key, members] of this.members) {
      const level = step(series.values[this.explorer.sharpest(members)]);
      if (level !== null) parts[level].push(`M${this.corner(key).join(" ")}h${this.wide - 1}v${this.high - 1}h${1 - this.wide}z`);
    }
    this.fills.forEach((path, level) => path.setAttribute("d", parts[level].join("")));
    this.look();
  }

  mark() {
    if (!this.svg) return;
    const { picked } = this.explorer, arm = Math.min((Math.min(this.wide, this.high) - 1) * 0.3, 4), path = [];
    for (const [key, members] of this.members) {
      const [x, y] = this.corner(key);
      if (members.some((i) => picked.has(i))) path.push(`M${x + (this.wide - 1) / 2} ${y + (this.high - 1) / 2}m${-arm} ${-arm}l${2 * arm} ${2 * arm}m0 ${-2 * arm}l${-2 * arm} ${2 * arm}`);
    }
    this.marks.forEach((mark) => mark.setAttribute("d", path.join("")));
  }

  look() {
    if (!this.svg) return;
    const key = [...this.members.keys()].find((one) => this.members.get(one).includes(this.explorer.module));
    this.here.classList.toggle("gone", key === undefined);
    if (key === undefined) return;
    const [x, y] = this.corner(key);
    this.at = [key % this.experts.length, Math.floor(key / this.experts.length)];
    this.here.setAttribute("x", x);
    this.here.setAttribute("y", y);
  }
}

// Lets a reader try other indices and rules on a scan. It only rearranges numbers that are in the page: the order of
// the modules and every index come from s3lora, so what is marked here is what the command beside it chooses.

// One adapter of the page.
class Explorer {
  constructor(root) {
    this.root = root;
    this.data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    this.series = this.data.series[this.data.first];
    this.picked = new Set(this.data.chosen);
    this.module = this.data.focus;
    this.form = root.querySelector("form");
    this.rows = [...root.querySelectorAll(".modules tbody tr")];
    this.cells = [...root.querySelectorAll("svg.heat .row rect")];
    this.paths = this.rows.map((row) => row.cells[0].textContent);
    this.names = this.cells.map((cell) => cell.textContent.split(": ")[0]);
    this.startForm();
    this.startMap();
    this.startTable();
    this.recolour();
    this.choose();
  }

  find(query) { return this.root.querySelector(query); }

  // ---- the chooser

  startForm() {
    const { index, rule, slide, amount } = this.form.elements;
    rule.value = this.data.start.rule;
    this.limits(this.data.start.amount);
    index.addEventListener("change", () => {
      this.series = this.data.series[index.value];
      if (rule.value === "given") rule.value = "top";
      this.limits();
      this.recolour();
      this.choose();
    });
    rule.addEventListener("change", () => {
      if (rule.value === "given") {
        index.value = this.data.first;
        this.series = this.data.series[this.data.first];
        this.recolour();
      }
      this.limits();
      this.choose();
    });
    slide.addEventListener("input", () => { amount.value = slide.value; this.choose(); });
    amount.addEventListener("input", () => { if (amount.checkValidity()) { slide.value = amount.value; this.choose(); } });
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.find(".copy").addEventListener("click", (event) => this.copy(event.target));
  }

  // Sets ends and steps of the slider for the rule, at `value` or where about the same modules are chosen as now.
  limits(value) {
    const { rule, slide, amount } = this.form.elements;
    const units = this.units(), chosen = units.filter((unit) => unit.members.some((i) => this.picked.has(i))).length;
    const worth = units.map((unit) => unit.worth), [low, high] = [Math.min(...worth), Math.max(...worth)];
    const step = 10 ** Math.floor(Math.log10((high - low || Math.abs(high) || 1) / 200));
    const edge = worth[Math.max(chosen - 1, 0)];
    const wanted = {
      top: [0, units.length, 1, chosen || Math.min(10, units.length)],
      fraction: [0, 100, 1, Math.round((100 * chosen) / units.length)],
      threshold: [Math.floor(low / step) * step, Math.ceil(high / step) * step, step,
        this.series.inverse ? Math.ceil(edge / step) * step : Math.floor(edge / step) * step],
      outlier: [0.5, 10, 0.1, 3.5],
    }[rule.value];
    for (const label of this.root.querySelectorAll("label.amount")) label.hidden = !wanted;
    if (!wanted) return;
    const [least, most, size] = wanted;
    // 0.1 + 0.2 must not show its tail.
    const start = Number((value === undefined ? wanted[3] : rule.value === "fraction" ? 100 * value : value).toPrecision(12));
    Object.assign(slide, { min: Number(least.toPrecision(6)), max: Number(most.toPrecision(6)), step: Number(size.toPrecision(3)) });
    Object.assign(amount, { min: rule.value === "threshold" ? "" : least, max: rule.value === "threshold" ? "" : most,
      step: rule.value === "top" ? 1 : "any" });
    slide.value = start;
    amount.value = start;
    this.find(".amount-name").textContent = { top: "τ", fraction: "%", threshold: this.series.label, outlier: "z" }[rule.value];
  }

  // Returns what is ranked, sharpest first.
  units() {
    const { series, data } = this;
    if (data.whole) return series.units.map((members, i) => ({ members, worth: rounded(series.worth[i], series.free), kind: 0 }));
    const { values } = series, sign = series.inverse ? 1 : -1;
    return (data.allowed || first(values.length)).filter((i) => values[i] !== null)
      .map((i) => ({ members: [i], worth: rounded(values[i], series.free), kind: data.kind[i] }))
      .sort((a, b) => sign * (a.worth - b.worth));
  }

  choose() {
    const rule = this.form.elements.rule.value, amount = Number(this.form.elements.amount.value);
    const units = this.units();
    this.picked = new Set(rule === "given" ? this.data.chosen
      : RULES[rule](amount, units, this.series).flatMap((i) => units[i].members));
    this.totals();
    this.commands(rule, amount);
    this.marks();
    this.strips();
    this.rows.forEach((row, i) => {
      const on = this.picked.has(i);
      if (row.classList.toggle("picked", on) !== Boolean(row.cells[1].textContent)) row.cells[1].textContent = on ? "×" : "";
    });
    if (this.filter) this.filter();
    this.point();
    this.where();
  }

  totals() {
    const { data } = this, all = first(this.rows.length), odd = new Set(data.odd);
    const frobenius = data.series[data.norm].values.map((value) => value ?? 0), largest = Math.max(...frobenius, 0);
    const parameters = all.map((i) => data.parameters[data.form[i]]);
    const sum = (chosen, value) => chosen.reduce((total, i) => total + value(i), 0);
    const part = (value) => { const whole = sum(all, value); return whole > 0 ? sum([...this.picked], value) / whole : 0; };
    const tile = (name, text) => { this.find(`[data-tile="${name}"]`).textContent = text; };
    tile("modules", this.picked.size.toLocaleString("en"));
    tile("parameters", share(part((i) => parameters[i])));
    tile("compute", share(part((i) => (odd.has(i) ? 0 : parameters[i]))));
    tile("energy", share(largest > 0 ? part((i) => (frobenius[i] / largest) ** 2) : 0));
  }

  commands(rule, amount) {
    const { command, done } = this.data, { series } = this;
    const own = series.method === command.method ? command.own : [];
    const wanted = { top: `--top ${amount}`, fraction: `--fraction ${fraction(amount)}`,
      threshold: `--threshold ${amount}`, outlier: `--rule outlier --z ${amount}`, gap: "--rule gap" }[rule];
    const words = ["s3lora prune", command.path, series.method === "mas-svd" ? "" : `--method ${series.method}`,
      series.index === command.usual ? "" : `--index ${series.index.replaceAll("_", "-")}`, ...own, ...command.shared, wanted, "-o PRUNED"];
    const all = this.picked.size === this.rows.length;
    const remark = !this.picked.size ? "Nothing is chosen." : all ? "Every module is chosen: the base model alone would be left."
      : series.flat ? `${series.label} hardly differs between the modules: prune asks for --force-flat.` : "";
    const given = rule === "given", other = this.data.chosen.length !== this.picked.size || this.data.chosen.some((i) => !this.picked.has(i));
    this.find(".command").hidden = !this.picked.size || all || series.flat || (given && !command.given);
    this.find(".command code").textContent = given ? command.given : words.filter(Boolean).join(" ");
    this.find(".remark").textContent = remark || (done && other ? "This is another choice than the one that was made." : "");
  }

  async copy(button) {
    const code = this.find(".command code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }

  // ---- the map

  startMap() {
    const map = this.find("svg.heat");
    if (!map) return;
    map.setAttribute("role", "grid");
    this.places = this.cells.map((cell) => [Number(cell.getAttribute("x")), Number(cell.getAttribute("y"))]);
    this.cells.forEach((cell) => { cell.setAttribute("role", "gridcell"); cell.setAttribute("tabindex", "-1"); });
    map.querySelectorAll(".row").forEach((row) => row.setAttribute("role", "row"));
    map.querySelectorAll(".row text").forEach((name) => name.setAttribute("role", "rowheader"));
    const at = (event) => this.cells.indexOf(event.target);
    map.addEventListener("pointerover", (event) => { if (at(event) >= 0 && event.pointerType === "mouse") this.look(this.sharpest(at(event))); });
    map.addEventListener("click", (event) => { if (at(event) >= 0) this.cells[at(event)].focus({ preventScroll: true }); });
    map.addEventListener("focusin", (event) => { if (at(event) >= 0) this.look(this.sharpest(at(event))); });
    map.addEventListener("keydown", (event) => this.walk(event, at(event)));
  }

  walk(event, from) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Home: [-1, 0, 1], End: [1, 0, 1] }[event.key];
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

  sharpest(square) {
    const { series } = this, sign = series.inverse ? -1 : 1;
    const worth = (i) => (series.values[i] === null ? -Infinity : sign * series.values[i]);
    return this.data.squares[square].reduce((best, i) => (worth(i) > worth(best) ? i : best));
  }

  recolour() {
    const { series } = this, { colours } = this.data, known = series.values.filter((value) => value !== null);
    const [low, high] = [Math.min(...known), Math.max(...known)];
    this.cells.forEach((cell, i) => {
      const value = series.values[this.sharpest(i)];
      const step = high > low ? Math.min(Math.floor((colours * (value - low)) / (high - low)), colours - 1) : 0;
      cell.setAttribute("class", value === null ? "hn" : `h${series.inverse ? colours - 1 - step : step}`);
      cell.firstElementChild.textContent = `${this.names[i]}: ${show(value)}`;
    });
    const ends = series.inverse ? [high, low] : [low, high];
    if (this.cells.length) {
      this.find(".dull").textContent = show(ends[0]);
      this.find(".sharp").textContent = show(ends[1]);
      this.find(".scale-name").textContent = series.label;
    }
    this.find(".series").textContent = series.label;
    this.look(this.module);
  }

  marks() {
    if (!this.cells.length) return;
    const box = this.cells[0], [wide, high] = ["width", "height"].map((name) => Number(box.getAttribute(name)));
    const { cross } = this.find("svg.heat").dataset;
    const path = this.places.map(([x, y], i) => (this.data.squares[i].some((m) => this.picked.has(m))
      ? `M${(x + wide / 2).toFixed(1)} ${(y + high / 2).toFixed(1)}${cross}` : "")).join("");
    this.root.querySelectorAll("svg.heat .cross").forEach((cross) => cross.setAttribute("d", path));
  }

  // ---- one module

  look(module) {
    this.module = module;
    const { data } = this;
    this.find("h3.path").textContent = this.paths[module];
    let tab = null;
    this.cells.forEach((cell, i) => {
      const here = data.squares[i].includes(module);
      cell.classList.toggle("here", here);
      cell.setAttribute("tabindex", "-1");
      if (here) tab = cell;
    });
    (tab || this.cells[0])?.setAttribute("tabindex", "0");
    this.rows.forEach((row, i) => { row.classList.toggle("here", i === module); row.tabIndex = i === module ? 0 : -1; });
    this.spectrum();
    this.numbers();
    this.where();
    this.dot();
  }

  where() {
    const units = this.units(), place = units.findIndex((unit) => unit.members.includes(this.module));
    const ranked = place < 0 ? `no ${this.series.label}` : `${place + 1} of ${units.length} by ${this.series.label}`;
    this.find(".where").textContent = `${ranked}; ${this.picked.has(this.module) ? "chosen" : "not chosen"}`;
  }

  spectrum() {
    const { data, module } = this, [left, step, bottom, whole] = data.spectrum;
    const points = (i) => data.sigma[i].map((value, n) =>
      [(left + step * n).toFixed(1), (bottom - (whole * value) / data.total[i]).toFixed(1)]);
    this.find(".bars").setAttribute("d", points(module).map(([x, y]) => `M${x} ${bottom}V${y}`).join(""));
    const near = data.near[module], legend = this.find(".neighbours");
    for (const i of [0, 1]) {
      const shown = i < near.length;
      this.find(`svg.spectrum .near${i}`).setAttribute("d", shown ? points(near[i]).map(([x, y], n) => `${n ? "L" : "M"}${x} ${y}`).join("") : "");
      legend.children[i].hidden = !shown;
      legend.children[i].lastChild.textContent = shown ? ` layer ${data.layer[near[i]]} ` : "";
    }
  }

  numbers() {
    const { data, module } = this;
    const texts = [...data.series.map((one) => show(one.values[module])), ...data.forms[data.form[module]]];
    this.root.querySelectorAll(".numbers dd").forEach((place, i) => { place.textContent = texts[i]; });
    this.find(".sigmas").textContent = data.sigma[module].length ? `σ̃: ${data.sigma[module].map(show).join(", ")}` : "A zero update has no spectrum.";
  }

  // ---- the distribution

  at(value) {
    const [low, high, start, end] = this.series.axis;
    return (start + ((value - low) / (high - low)) * (end - start)).toFixed(1);
  }

  spot(module) {
    return `M${this.at(this.series.values[module])} ${this.data.heights[module].toFixed(1)}h0`;
  }

  strips() {
    const { series, data } = this, box = this.find("svg.strips");
    const known = first(series.values.length).filter((i) => series.values[i] !== null);
    box.querySelector(".dots").setAttribute("d", known.filter((i) => !this.picked.has(i)).map((i) => this.spot(i)).join(""));
    box.querySelector(".picked").setAttribute("d", known.filter((i) => this.picked.has(i)).map((i) => this.spot(i)).join(""));
    const medians = data.strips.middle.map((y, row) => {
      const values = known.filter((i) => data.strip[i] === row).map((i) => series.values[i]);
      return values.length ? `M${this.at(median(values))} ${y}${data.strips.median}` : "";
    });
    box.querySelector(".median").setAttribute("d", medians.join(""));
    const ticks = box.querySelector(".ticks"), model = ticks.firstElementChild;
    ticks.replaceChildren(...series.ticks.map(([at, text]) => {
      const tick = model.cloneNode(true);
      tick.setAttribute("transform", `translate(${at.toFixed(1)} 0)`);
      tick.querySelector("text").textContent = text;
      return tick;
    }));
    this.dot();
  }

  dot() {
    this.find("svg.strips .dots.here").setAttribute("d", this.series.values[this.module] === null ? "" : this.spot(this.module));
  }

  // ---- the measured curve

  point() {
    const { curve } = this.data, { series } = this;
    if (!curve) return;
    const count = this.picked.size, [zero, one, top, bottom] = curve.across;
    const figures = this.root.querySelectorAll(".measured figure svg");
    put(figures[0], "here-line", `M${Math.min(zero + one * count, zero + one * curve.most)} ${top}V${bottom}`);
    const mine = curve.points.filter((p) => p.index === series.index && p.method === series.method);
    const exact = this.form.elements.rule.value !== "given" || this.data.start.rule !== "given" ? mine.find((p) => p.top === count) : null;
    const ring = exact && exact.at.length ? `M${exact.at[0]} ${exact.at[1]}${curve.ring}` : "";
    if (figures[1]) put(figures[1], "here-sign", ring);
    const near = [mine.filter((p) => p.top < count).at(-1), mine.find((p) => p.top > count)].filter(Boolean);
    this.find(".point").textContent = exact ? `At ${count} by ${series.label}: ${exact.text}.`
      : near.length ? `${count} by ${series.label} was not measured; nearest: ${near.map((p) => `${p.top} (${p.text})`).join(" and ")}.`
        : `${series.label} was not measured.`;
  }

  // ---- the table

  startTable() {
    const form = this.find("form.filter"), body = this.find(".modules tbody"), output = form.querySelector("output");
    this.filter = () => {
      const text = form.elements.text.value.toLowerCase(), strip = form.elements.strip.value;
      let shown = 0;
      this.rows.forEach((row, i) => {
        const on = this.paths[i].toLowerCase().includes(text) && (strip === "" || this.data.strip[i] === Number(strip))
          && (!form.elements.picked.checked || this.picked.has(i));
        row.hidden = !on;
        shown += on;
      });
      output.textContent = `${shown.toLocaleString("en")} of ${this.rows.length.toLocaleString("en")} modules`;
    };
    form.addEventListener("input", this.filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    this.filter();
    for (const head of this.root.querySelectorAll("[data-sort]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => this.sort(head, body));
    }
    body.addEventListener("click", (event) => { const row = event.target.closest("tr"); if (row) this.look(this.rows.indexOf(row)); });
    body.addEventListener("focusin", (event) => { if (event.target.tagName === "TR") this.look(this.rows.indexOf(event.target)); });
    body.addEventListener("keydown", (event) => {
      const way = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
      let row = event.target.closest("tr");
      if (!way || !row) return;
      event.preventDefault();
      do row = row[way]; while (row && row.hidden);
      if (row) row.focus();
    });
  }

  sort(head, body) {
    const key = head.dataset.sort, { data } = this;
    const down = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") && !key.startsWith("s"));
    this.root.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "ascending" : "descending");
    const value = { path: (i) => i, m: (i) => data.parameters[data.form[i]], rank: (i) => Number(data.forms[data.form[i]][1]),
      "s-percentile": (i) => data.percentile[i], "s-z": (i) => data.z[i] }[key]
      || ((i) => data.series[Number(key.slice(1))].values[i]);
    const sign = down ? 1 : -1;
    const order = first(this.rows.length).sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      return x === null || y === null ? (x === null) - (y === null) || a - b : sign * (x - y) || a - b;
    });
    body.append(...order.map((i) => this.rows[i]));
  }
}

document.documentElement.classList.add("scripted");
for (const root of document.querySelectorAll("[data-adapter]")) {
  if (root.querySelector('script[type="application/json"]')) new Explorer(root);
}

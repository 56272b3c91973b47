// Lets a reader try other indices and rules on a scan. It only rearranges numbers that are in the page: the order of
// the modules and every index come from s3lora, so what is marked here is what the command beside it chooses.

// One adapter of the page: what is chosen and looked at, and the parts that show it.
class Explorer {
  constructor(root) {
    this.root = root;
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent), { count } = data;
    const numbers = [...data.names.numbers, data.names.text].map((column) => unpack(column, count));
    for (const name of ["kind", "layer", "expert", "strip", "form", "percentile", "z", "group", "total", "chosen", "linear", "allowed"]) {
      if (data[name]) data[name] = numbers[data[name].number] ?? unpack(data[name], count);
    }
    data.sigma = data.sigma.map((column) => unpack(column, count));
    for (const one of data.series) {
      one.values = unpack(one.values, count);
      if (one.unit) one.unit = unpack(one.unit, count);
    }
    if (data.spectrum) {
      // The first component is the magnitude, and the SSI its share of the sum.
      const [first, share] = data.spectrum.map((n) => data.series[n].values);
      data.sigma.unshift(first);
      data.total = first.map((value, i) => (value === null ? 0 : value / share[i]));
    }
    data.chosen = first(count).filter((i) => data.chosen[i]);
    if (data.allowed) data.allowed = first(count).filter((i) => data.allowed[i]);
    Object.assign(this, { data, ...unpackNames(data.names, numbers, count) }, { series: data.series[data.first], picked: new Set(data.chosen), module: data.focus });
    this.form = this.find("form.rules");
    this.index = this.find('select[name="index"]');
    this.parts = [ScanMap, ExpertMap, Strips, Scatter, Spectrum, ModuleTable].map((Part) => new Part(this));
    this.table = this.parts.at(-1);
    this.startForm();
    this.recolour();
    this.choose();
  }

  find(query) { return this.root.querySelector(query); }

  tell(what) { for (const part of this.parts) part[what]?.(); }

  recolour() {
    const { low, high } = stepper(this.series, 1), ends = this.series.inverse ? [high, low] : [low, high];
    if (this.find(".dull")) {
      this.find(".dull").textContent = show(ends[0]);
      this.find(".sharp").textContent = show(ends[1]);
      this.find(".scale-name").textContent = this.series.label;
    }
    for (const name of this.root.querySelectorAll(".series")) name.textContent = this.series.label;
    this.tell("recolour");
    this.look(this.module);
  }

  // Returns the sharpest of some modules by the index that is shown.
  sharpest(members) {
    const { values, inverse } = this.series, worth = (i) => (values[i] === null ? -Infinity : inverse ? -values[i] : values[i]);
    return members.reduce((best, i) => (worth(i) > worth(best) ? i : best));
  }

  // Returns the same module in the layer before and in the one behind.
  near(module) {
    const { lines, data } = this;
    if (!this.line) {
      this.line = new Map();
      lines.forEach((line, i) => {
        if (line === null || data.layer[i] === null) return;
        if (!this.line.has(line)) this.line.set(line, []);
        this.line.get(line).push(i);
      });
      for (const members of this.line.values()) members.sort((a, b) => data.layer[a] - data.layer[b]);
    }
    const line = this.line.get(lines[module]) || [], at = line.indexOf(module);
    return at < 0 ? [] : [line[at - 1], line[at + 1]].filter((i) => i !== undefined);
  }

  // Shows name and value of a module beside a point of a drawing; without one, hides them.
  tip(module, svg, x, y) {
    const tip = this.find(".tip");
    tip.hidden = module === undefined;
    if (tip.hidden) return;
    tip.replaceChildren(document.createElement("b"), document.createElement("span"));
    tip.firstChild.textContent = `${this.series.label} ${show(this.series.values[module])}${this.picked.has(module) ? " ×" : ""}`;
    tip.lastChild.textContent = this.paths[module];
    const within = this.root.getBoundingClientRect(), wide = tip.offsetWidth, high = tip.offsetHeight;
    tip.style.left = `${Math.min(Math.max(x - within.left - wide / 2, 0), Math.max(within.width - wide, 0))}px`;
    tip.style.top = `${y - within.top - high - 10}px`;
  }

  // ---- the chooser

  startForm() {
    const { rule, slide, amount } = this.form?.elements ?? {};
    this.index.addEventListener("change", () => {
      this.series = this.data.series[this.index.value];
      if (rule?.value === "given" && this.series !== this.data.series[this.data.first]) rule.value = "top";
      if (rule) this.limits();
      this.recolour();
      this.choose();
      if (this.table.heads.some((head) => head.dataset.sort === `s${this.index.value}`)) this.table.sort(`s${this.index.value}`, this.series.inverse);
    });
    if (!rule) return;
    rule.value = this.data.start.rule;
    this.limits(this.data.start.amount);
    rule.addEventListener("change", () => {
      if (rule.value === "given") {
        this.index.value = this.data.first;
        this.series = this.data.series[this.data.first];
        this.recolour();
      }
      this.limits();
      this.choose();
    });
    slide.addEventListener("input", () => { amount.value = slide.value; this.choose(); });
    amount.addEventListener("input", () => { if (amount.value !== "" && amount.checkValidity()) { slide.value = amount.value; this.choose(); } });
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.find(".copy").addEventListener("click", (event) => this.copy(event.target));
  }

  // Sets ends and steps of the slider for the rule, at `value` or where about the same modules are chosen as now.
  limits(value) {
    const { rule, slide, amount } = this.form.elements;
    const units = this.units(), chosen = units.filter((unit) => unit.members.some((i) => this.picked.has(i))).length;
    const worth = units.map((unit) => unit.worth), [low, high] = [Math.min, Math.max].map((end) => worth.reduce((a, b) => end(a, b)));
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
    const given = value === undefined ? wanted[3] : rule.value === "fraction" ? 100 * value : rule.value === "top" ? Math.round(value) : value;
    const start = Number((["top", "fraction"].includes(rule.value) ? Math.min(Math.max(given, least), most) : given).toPrecision(12));
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
    if (series.ranked) return series.ranked;
    if (data.whole) {
      series.ranked = series.worth.map((worth) => ({ members: [], worth: rounded(worth, series.free), kind: 0 }));
      series.unit.forEach((unit, i) => { if (unit !== null) series.ranked[unit].members.push(i); });
      return series.ranked;
    }
    const { values } = series, sign = series.inverse ? 1 : -1;
    series.ranked = (data.allowed || first(values.length)).filter((i) => values[i] !== null)
      .map((i) => ({ members: [i], worth: values[i], kind: data.kind[i] }))
      .sort((a, b) => sign * (a.worth - b.worth));
    return series.ranked;
  }

  choose() {
    const rule = this.form?.elements.rule.value ?? "given", amount = Number(this.form?.elements.amount.value);
    const units = this.units();
    this.picked = new Set(rule === "given" ? this.data.chosen
      : RULES[rule](amount, units, this.series).flatMap((i) => units[i].members));
    if (this.form) {
      this.totals();
      this.commands(rule, amount);
    }
    this.tell("mark");
    this.point();
    this.where();
    this.remember();
  }

  totals() {
    const { data } = this, all = first(data.count), frobenius = data.series[data.norm].values.map((value) => value ?? 0);
    const largest = frobenius.reduce((a, b) => Math.max(a, b), 0), parameters = all.map((i) => data.parameters[data.form[i]]);
    const sum = (chosen, value) => chosen.reduce((total, i) => total + value(i), 0);
    const part = (value) => { const total = sum(all, value); return total > 0 ? sum([...this.picked], value) / total : 0; };
    const tile = (name, text) => { this.find(`[data-tile="${name}"]`).textContent = text; };
    tile("modules", this.picked.size.toLocaleString("en"));
    tile("parameters", share(part((i) => parameters[i])));
    tile("compute", share(part((i) => (data.linear[i] ? parameters[i] : 0))));
    tile("energy", share(largest > 0 ? part((i) => (frobenius[i] / largest) ** 2) : 0));
  }

  commands(rule, amount) {
    const { command } = this.data, { series } = this;
    const own = series.method === command.method ? command.own : [];
    const wanted = { top: `--top ${amount}`, fraction: `--fraction ${fraction(amount)}`,
      threshold: `--threshold ${amount}`, outlier: `--rule outlier --z ${amount}`, gap: "--rule gap" }[rule];
    const words = ["s3lora prune", command.path, series.method === "mas-svd" ? "" : `--method ${series.method}`,
      `--index ${series.index.replaceAll("_", "-")}`, ...own, ...command.shared, wanted, "-o PRUNED"];
    const all = this.picked.size === this.data.count;
    const remark = !this.picked.size ? "Nothing is chosen." : all ? "Every module is chosen: the base model alone would be left."
      : series.flat ? `${series.label} hardly differs between the modules: prune asks for --force-flat.` : "";
    const given = rule === "given";
    this.find(".command").hidden = !command.path || !this.picked.size || all || series.flat || (given && !command.given);
    this.find(".command code").textContent = given ? command.given : words.filter(Boolean).join(" ");
    this.find(".remark").textContent = remark;
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

  // ---- one module

  look(module) {
    this.module = module;
    const { data } = this;
    this.find("h3.path").textContent = this.paths[module];
    this.tell("look");
    this.numbers();
    this.where();
    this.remember();
  }

  where() {
    const units = this.units(), { series } = this;
    if (!series.places) {
      series.places = new Map();
      units.forEach((unit, n) => unit.members.forEach((i) => series.places.set(i, n)));
    }
    const place = series.places.get(this.module);
    const ranked = place === undefined ? `no ${series.label}` : `${place + 1} of ${units.length} by ${series.label}`;
    this.find(".where").textContent = `${ranked}; ${this.picked.has(this.module) ? "chosen" : "not chosen"}`;
  }

  numbers() {
    const { data, module } = this;
    const texts = [...data.series.map((one) => show(one.values[module])), ...data.forms[data.form[module]]];
    this.root.querySelectorAll(".numbers dd").forEach((place, i) => { place.textContent = texts[i]; });
  }

  // ---- the measured curve

  point() {
    const { curve } = this.data, { series } = this;
    if (!curve) return;
    const count = this.picked.size, [zero, one, top, bottom] = curve.across;
    const figures = this.root.querySelectorAll(".measured figure svg");
    put(figures[0], "here-line", `M${Math.min(zero + one * count, zero + one * curve.most)} ${top}V${bottom}`);
    const mine = curve.points.filter((p) => p.index === series.index && p.method === series.method);
    const exact = (this.form && this.form.elements.rule.value !== "given") || this.data.start.rule !== "given" ? mine.find((p) => p.top === count) : null;
    const ring = exact && exact.at.length ? `M${exact.at[0]} ${exact.at[1]}${curve.ring}` : "";
    if (figures[1]) put(figures[1], "here-sign", ring);
    const near = [mine.filter((p) => p.top < count).at(-1), mine.find((p) => p.top > count)].filter(Boolean);
    this.find(".point").textContent = exact ? `At ${count} by ${series.label}: ${exact.text}.`
      : near.length ? `${count} by ${series.label} was not measured; nearest: ${near.map((p) => `${p.top} (${p.text})`).join(" and ")}.`
        : `${series.label} was not measured.`;
  }

  // ---- the state, in the fragment of the address

  state() {
    const { data, table } = this, { text, strip, picked } = table.filters.elements, rule = this.form?.elements.rule.value, found = new URLSearchParams();
    const amount = this.form?.elements.amount.value, put = (name, value, usual) => { if (value !== undefined && String(value) !== String(usual)) found.set(name, value); };
    put("index", data.series.indexOf(this.series), data.first);
    put("rule", rule, data.start.rule);
    if (rule && rule !== "given" && (rule !== data.start.rule || Number(amount) !== data.start.amount)) found.set("amount", amount);
    put("module", this.module, data.focus);
    put("sort", `${table.sorted.up ? "" : "-"}${table.sorted.key}`, table.usual);
    put("text", text.value, "");
    put("projection", strip.value, "");
    put("chosen", Number(picked.checked), 0);
    return String(found);
  }

  restore(given) {
    const found = new URLSearchParams(given), { data, table } = this, { text, strip, picked } = table.filters.elements;
    // What is left out is as it was at the start.
    const index = data.series[Number(found.get("index") ?? data.first)] ? Number(found.get("index") ?? data.first) : data.first;
    const module = Number(found.get("module") ?? data.focus);
    this.index.value = index;
    this.series = data.series[index];
    if (this.form) {
      const { rule } = this.form.elements, known = [...rule.options].some((option) => option.value === found.get("rule"));
      rule.value = known ? found.get("rule") : data.start.rule;
      const amount = Number(found.get("amount"));
      this.limits(found.has("amount") && Number.isFinite(amount) ? amount / (rule.value === "fraction" ? 100 : 1)
        : rule.value === data.start.rule ? data.start.amount : undefined);
    }
    const [, sign, key] = /^(-?)(.*)$/.exec(found.get("sort") ?? table.usual);
    if (table.heads.some((head) => head.dataset.sort === key)) table.sorted = { key, up: !sign };
    text.value = found.get("text") ?? "";
    strip.value = found.get("projection") ?? "";
    if (strip.selectedIndex < 0) strip.value = "";
    picked.checked = found.get("chosen") === "1";
    if (Number.isInteger(module) && module >= 0 && module < data.count) this.module = module;
    this.recolour();
    this.choose();
    table.filter();
  }

  remember() {
    clearTimeout(Explorer.timer);
    // A slider moves more often than a browser takes addresses.
    Explorer.timer = setTimeout(() => {
      const parts = explorers.map((one) => [one.root.id, one.state()]).filter(([, state]) => state).map(([id, state]) => `${id}&${state}`);
      if (parts.length || location.hash.includes("&")) history.replaceState(null, "", parts.length ? `#${parts.join(";")}` : location.pathname + location.search);
    }, 400);
  }
}

const explorers = [...document.querySelectorAll("[data-adapter]")]
  .filter((root) => root.querySelector('script[type="application/json"]')).map((root) => new Explorer(root));
function restore() {
  for (const part of location.hash.slice(1).split(";")) {
    const [id, ...state] = part.split("&");
    if (state.length) explorers.find((one) => one.root.id === id)?.restore(state.join("&"));
  }
}
restore();
addEventListener("hashchange", () => {
  const told = new Set(location.hash.slice(1).split(";").filter((part) => part.includes("&")).map((part) => part.split("&")[0]));
  // A link to a place in the page says nothing of what is chosen.
  if (!told.size && location.hash) return;
  for (const one of explorers) if (!told.has(one.root.id)) one.restore("");
  restore();
});
performance.mark("interactive");

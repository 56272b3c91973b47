// The drawings of a scan beside its map: the distribution by projection, size against sharpness, and one spectrum.
// Dots of many modules that fall on one pixel are drawn once.

const MANY = 3000, LETTER = 6.7, LABEL = 22;

// Data laid over pixels, with ticks at round numbers; a `log` axis has powers of ten and what lies between.
function axis(values, start, end, log = false) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
  if (!(low <= high)) [low, high] = [log ? 1 : 0, 1];
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - (Math.abs(low) / 2 || 0.5), high + (Math.abs(high) / 2 || 0.5)];
  const margin = end > start ? 8 : -8, scale = log ? Math.log10 : (value) => value;
  const [from, to] = [start + margin, end - margin], [a, b] = [scale(low), scale(high)];
  const at = (value) => from + ((scale(value) - a) / (b - a)) * (to - from);
  const within = (step) => {
    const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), ticks = [];
    for (let i = Math.ceil(low / step - 1e-9); i <= Math.floor(high / step + 1e-9); i++) {
      if (!log || i > 0) ticks.push([at(step * i), decimals < 7 ? (step * i).toFixed(decimals) : (step * i).toExponential(1)]);
    }
    return ticks;
  };
  if (log && b - a > 0.7) {
    const ticks = [], steps = b - a > 6 ? [1] : b - a > 1.5 ? [1, 3] : [1, 2, 3, 5];
    for (let power = Math.floor(a); power <= b; power++) for (const step of steps) {
      const value = step * 10 ** power;
      if (value >= low && value <= high) ticks.push([at(value), value >= 1e4 || value < 1e-3 ? value.toExponential(0) : String(Number(value.toPrecision(1)))]);
    }
    return { at, ticks };
  }
  // A short stretch has the round numbers of an even axis.
  const least = (high - low) / (log ? 5 : 8), power = 10 ** Math.floor(Math.log10(least));
  return { at, ticks: within(power * [1, 2, 5, 10].find((size) => power * size >= least * 0.999)) };
}

const lying = (ticks, top, bottom) => ticks.map(([at, text]) => {
  const tick = shape("g", { transform: `translate(${at.toFixed(1)} 0)` });
  tick.append(shape("path", { class: "grid", d: `M0 ${top}V${bottom}` }), shape("text", { y: bottom + 16, "text-anchor": "middle" }, text));
  return tick;
});
const upright = (ticks, left, right) => ticks.flatMap(([at, text]) => [shape("path", { class: "grid", d: `M${left} ${at.toFixed(1)}H${right}` }),
  shape("text", { x: left - 6, y: (at + 4).toFixed(1), "text-anchor": "end" }, text)]);
const short = (name, most) => (name.length > most ? `…${name.slice(1 - most)}` : name);

// A drawing with a dot for every module that has a value; `place` of a subclass tells where, null for nowhere.
class Dots {
  constructor(explorer, svg, wide, high) {
    Object.assign(this, { explorer, svg, wide, high });
    svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    this.grid = shape("g", { class: "ticks" });
    this.shades = shape("g", { class: "shades" });
    this.layers = ["dots", "dots picked", "dots here"].map((name) => shape("path", { class: name }));
    svg.append(this.shades, this.grid, ...this.layers);
    svg.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") this.point(event); });
    svg.addEventListener("click", (event) => this.point(event));
    svg.addEventListener("pointerleave", () => explorer.tip());
    ROWS.set(svg.closest("figure"), () => this.rows());
  }

  rows() {
    const { data, paths, series } = this.explorer, size = data.series[data.norm];
    return [["path", "projection", series.index, ...(size === series ? [] : [size.index])],
      ...first(data.count).map((i) => [paths[i], data.strips[data.strip[i]], series.values[i], ...(size === series ? [] : [size.values[i]])])];
  }

  // Where most published modules lie, by group: [low, high], null where the group has none; and [] without a reference.
  bands() {
    const { data, series } = this.explorer, found = data.bands?.[data.series.indexOf(series)] ?? [];
    this.svg.closest("figure").querySelector(".shaded").hidden = !found.length;
    return found;
  }

  // Looks at the module whose dot is nearest, where one is near.
  point(event) {
    const box = this.svg.getBoundingClientRect(), scale = this.wide / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    let best = -1, least = 15 ** 2;
    this.spots.forEach((spot, i) => {
      const far = spot ? (spot[0] - x) ** 2 + (spot[1] - y) ** 2 : Infinity;
      if (far < least) [best, least] = [i, far];
    });
    if (best < 0) return this.explorer.tip();
    const [a, b] = this.spots[best];
    this.explorer.look(best);
    this.explorer.tip(best, this.svg, box.left + a / scale, box.top + b / scale);
  }

  recolour() {
    this.scale();
    this.spots = first(this.explorer.data.count).map((i) => this.place(i));
    this.mark();
    this.look();
  }

  mark() {
    const { picked, data } = this.explorer, digits = data.count > MANY ? 0 : 1, seen = [new Set(), new Set()];
    this.spots.forEach((spot, i) => { if (spot) seen[Number(picked.has(i))].add(`M${spot[0].toFixed(digits)} ${spot[1].toFixed(digits)}h0`); });
    seen.forEach((dots, i) => this.layers[i].setAttribute("d", [...dots].join("")));
  }

  look() {
    const spot = this.spots[this.explorer.module];
    this.layers[2].setAttribute("d", spot ? `M${spot[0].toFixed(1)} ${spot[1].toFixed(1)}h0` : "");
  }
}

// One row of dots a projection over a common axis, and a bar at the median.
class Strips extends Dots {
  constructor(explorer) {
    const { strips, strip } = explorer.data, left = 10 + 1.2 * LETTER * Math.min(Math.max(...strips.map((name) => name.length), 1), LABEL);
    super(explorer, explorer.find("svg.strips"), 520, 8 + 26 * strips.length + 24);
    this.left = left;
    this.middles = strips.map((_, i) => 8 + 26 * (i + 0.5));
    this.medians = shape("path", { class: "median" });
    this.svg.append(this.medians, ...strips.map((name, i) => shape("text", { class: "name", x: left - 8, y: this.middles[i] + 4, "text-anchor": "end" }, short(name, LABEL))));
    // Nine dots that follow each other have nine heights, and neighbours lie far apart: equal values all show.
    const seen = strips.map(() => 0);
    this.heights = strip.map((row) => this.middles[row] + ((seen[row]++ * 5) % 9 - 4) * 1.9);
  }

  scale() {
    const { series, data } = this.explorer, known = series.values.filter((value) => value !== null);
    const bands = this.bands();
    this.axis = axis(known.concat(...bands.filter(Boolean)), this.left - 5, 515);
    this.grid.replaceChildren(...lying(this.axis.ticks, 8, this.high - 20));
    const rows = this.middles.map(() => []), groups = this.middles.map(() => new Set());
    bands.length && data.group.forEach((group, i) => { if (bands[group]) groups[data.strip[i]].add(group); });
    this.shades.replaceChildren(...groups.flatMap((found, row) => [...found].map((group) => {
      const [low, high] = bands[group].map(this.axis.at);
      return shape("path", { d: `M${low.toFixed(1)} ${this.middles[row] - 11}H${high.toFixed(1)}v22H${low.toFixed(1)}Z` });
    })));
    series.values.forEach((value, i) => { if (value !== null) rows[data.strip[i]].push(value); });
    this.medians.setAttribute("d", rows.map((values, row) => (values.length ? `M${this.axis.at(median(values)).toFixed(1)} ${this.middles[row]}m0 -10v20` : "")).join(""));
  }

  place(i) {
    const value = this.explorer.series.values[i];
    return value === null ? null : [this.axis.at(value), this.heights[i]];
  }
}

// The norm of each module across, and the chosen index up.
class Scatter extends Dots {
  constructor(explorer) {
    super(explorer, explorer.find("svg.scatter"), 520, 300);
    this.up = shape("text", { transform: "translate(11 128) rotate(-90)", "text-anchor": "middle" });
    this.rings = shape("path", { class: "beyond" });
    this.band = shape("path", { class: "band" });
    this.svg.insertBefore(this.band, this.layers[0]);
    this.svg.insertBefore(this.rings, this.layers[2]);
    this.svg.append(this.up, shape("text", { x: 286, y: 294, "text-anchor": "middle" }, "‖ΔW‖, the size of the update"));
  }

  scale() {
    const { series, data } = this.explorer, norm = data.series[data.norm].values;
    const drawn = first(data.count).filter((i) => series.values[i] !== null && norm[i] > 0);
    this.across = axis(drawn.map((i) => norm[i]), 60, 512, true);
    const bands = this.shown = this.bands(), known = bands.filter(Boolean);
    this.upward = axis(drawn.map((i) => series.values[i]).concat(...known), 252, 8);
    this.shades.style.opacity = 2 / (known.length + 1);
    this.shades.replaceChildren(...known.map((band) => shape("path", { d: this.stripe(band) })));
    this.grid.replaceChildren(...lying(this.across.ticks, 8, 252), ...upright(this.upward.ticks, 60, 512));
    this.up.textContent = series.label;
    // Those beyond the band of the reference, which knows the index that ranks.
    const own = series === data.series[data.first] ? data.percentile ?? [] : [];
    this.rings.setAttribute("d", drawn.filter((i) => own[i] > 95000 || (own[i] !== null && own[i] < 5000)).map((i) => `M${this.place(i).map((at) => at.toFixed(1)).join(" ")}m-6 0a6 6 0 1 0 12 0a6 6 0 1 0 -12 0`).join(""));
  }

  stripe([low, high]) { return `M60 ${this.upward.at(low).toFixed(1)}H512V${this.upward.at(high).toFixed(1)}H60Z`; }

  look() {
    super.look();
    const band = this.shown[this.explorer.data.group?.[this.explorer.module]];
    this.band.setAttribute("d", band ? this.stripe(band) : "");
  }

  place(i) {
    const { series, data } = this.explorer, norm = data.series[data.norm].values[i], value = series.values[i];
    return value === null || !(norm > 0) ? null : [this.across.at(norm), this.upward.at(value)];
  }
}

// Bars of σ̃ / Σσ̃ of one module, and those of its neighbours as lines. All have one scale.
class Spectrum {
  constructor(explorer) {
    const { data } = explorer;
    this.explorer = explorer;
    this.svg = explorer.find("svg.spectrum");
    this.svg.setAttribute("viewBox", "0 0 520 210");
    const count = Math.max(data.sigma.length, 1), [left, top, right, bottom] = [40, 10, 508, 172];
    const shares = first(data.count).map((i) => (data.total[i] > 0 ? (data.sigma[0]?.[i] ?? 0) / data.total[i] : 0));
    const most = Math.min(1, shares.reduce((a, b) => Math.max(a, b), 0) * 1.08) || 1;
    this.step = (right - left) / count;
    this.at = (share, n) => [(left + this.step * (n + 0.5)).toFixed(1), (bottom - ((bottom - top) * share) / most).toFixed(1)];
    this.bottom = bottom;
    const share = [0.01, 0.02, 0.05, 0.1, 0.2, 0.25].find((size) => most / size <= 6), marks = [1, 2, 4, 8, 16, 32].find((n) => count / n <= 12);
    const ticks = first(Math.floor(most / share) + 1).map((n) => [bottom - ((bottom - top) * share * n) / most, n ? String(Number((share * n).toFixed(2))).replace("0.", ".") : "0"]);
    this.bars = shape("path", { class: "bars", "stroke-width": (0.76 * this.step).toFixed(1) });
    this.lines = [0, 1].map((n) => shape("path", { class: `path near${n}` }));
    this.svg.append(...upright(ticks, left, right), this.bars, ...this.lines,
      ...first(count).filter((n) => !n || (n + 1) % marks === 0).map((n) => shape("text", { x: this.at(0, n)[0], y: bottom + 16, "text-anchor": "middle" }, n + 1)),
      shape("text", { x: (left + right) / 2, y: 206, "text-anchor": "middle" }, "component"));
    ROWS.set(this.svg.closest("figure"), () => [["component", "sigma", "share"],
      ...this.sigma(explorer.module).map((value, n) => [n + 1, value, Number((value / data.total[explorer.module]).toPrecision(4))])]);
  }

  sigma(module) { return this.explorer.data.sigma.map((column) => column[module]).filter((value) => value !== null); }

  look() {
    const { data, module } = this.explorer, near = this.explorer.near(module), legend = this.explorer.find(".neighbours");
    const points = (i) => this.sigma(i).map((value, n) => this.at(data.total[i] > 0 ? value / data.total[i] : 0, n));
    this.bars.setAttribute("d", points(module).map(([x, y]) => `M${x} ${this.bottom}V${y}`).join(""));
    this.lines.forEach((line, n) => {
      const shown = n < near.length;
      line.setAttribute("d", shown ? points(near[n]).map(([x, y], i) => `${i ? "L" : "M"}${x} ${y}`).join("") : "");
      legend.children[n].hidden = !shown;
      legend.children[n].lastChild.textContent = shown ? ` layer ${data.layer[near[n]]} ` : "";
    });
    const sigma = this.sigma(module);
    this.explorer.find(".sigmas").textContent = sigma.length ? `σ̃: ${sigma.map(show).join(", ")}` : "A zero update has no spectrum.";
  }
}

// The table of all modules. Only the rows around those in sight are in the page, so that a hundred thousand cost nothing.

// Rows that are made at once, and by how many the first of them moves.
const ROOM = 300, STEP = 100;

// A percentile and a robust z as `against_view.py` writes them.
const percentile = (value) => {
  if (value === null) return "–";
  const text = whole(value);
  return !["0", "5", "95", "100"].includes(text) || value === 0 || value === 100 ? text : Math.min(Math.max(value, 0.1), 99.9).toFixed(1);
};
const robustZ = (value) => {
  if (value === null) return "–";
  const size = Math.abs(value), text = size < 1000 ? size.toFixed(1) : size.toExponential(1).replace(/\+(\d)$/, "+0$1");
  return text === "0.0" ? text : `${value < 0 ? "−" : "+"}${text}`;
};

class ModuleTable {
  constructor(explorer) {
    this.explorer = explorer;
    this.table = explorer.find("table.modules");
    this.body = this.table.tBodies[0];
    this.box = this.table.closest(".scroll");
    this.filters = explorer.find("form.filter");
    this.heads = [...this.table.querySelectorAll("[data-sort]")];
    const { data, paths } = explorer, text = (i, n) => data.forms[data.form[i]][n];
    // Key of a column → what it is sorted by, and what is shown.
    this.columns = {
      path: [(i) => i, (i) => paths[i]],
      m: [(i) => text(i, 0).split("×").reduce((size, side) => size * Number(side.replaceAll(",", "")), 1), (i) => text(i, 0)],
      rank: [(i) => Number(text(i, 1)), (i) => text(i, 1)],
      "s-percentile": [(i) => data.percentile[i], (i) => percentile(data.percentile[i] === null ? null : data.percentile[i] / 1000)],
      "s-z": [(i) => data.z[i], (i) => robustZ(data.z[i])],
    };
    data.series.forEach((one, n) => { this.columns[`s${n}`] = [(i) => one.values[i], (i) => show(one.values[i])]; });
    this.start();
  }

  start() {
    const { first: shown, series } = this.explorer.data;
    this.sorted = { key: this.columns[`s${shown}`] && this.heads.some((head) => head.dataset.sort === `s${shown}`) ? `s${shown}` : "path",
      up: series[shown].inverse };
    if (this.sorted.key === "path") this.sorted.up = true;
    this.usual = `${this.sorted.up ? "" : "-"}${this.sorted.key}`;
    for (const head of this.heads) {
      const made = document.createElement("button");
      made.type = "button";
      made.append(...head.childNodes);
      head.append(made);
      made.addEventListener("click", () => this.sort(head.dataset.sort));
    }
    this.filters.addEventListener("input", () => { this.filter(); this.explorer.remember(); });
    this.filters.addEventListener("submit", (event) => event.preventDefault());
    this.filters.querySelector(".saves").append(button("CSV", "Save these modules as CSV", () => save(`${plain(document.title)}-modules.csv`, "text/csv", csv(this.rows()))));
    this.box.addEventListener("scroll", () => this.draw());
    addEventListener("beforeprint", () => { this.box.scrollTop = 0; this.draw(true); });
    const row = (event) => event.target.closest("tr[data-i]");
    this.body.addEventListener("click", (event) => { if (row(event)) this.explorer.look(Number(row(event).dataset.i)); });
    this.body.addEventListener("focusin", (event) => { if (row(event)) this.explorer.look(Number(row(event).dataset.i)); });
    this.body.addEventListener("keydown", (event) => {
      const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!way || !row(event)) return;
      event.preventDefault();
      const next = this.order[this.order.indexOf(Number(row(event).dataset.i)) + way];
      if (next !== undefined) this.reach(next, true);
    });
  }

  rows() {
    const { data, series, paths, picked } = this.explorer, own = data.series, text = (i, n) => data.forms[data.form[i]][n];
    const more = data.percentile ? ["percentile", "z"] : [];
    return [["path", "layer", "projection", "chosen", "shape", "rank", ...more, ...own.map((one) => (one.method === series.method || one.index !== "ssi" ? one.index : `${one.index} (${one.method})`))],
      ...this.order.map((i) => [paths[i], data.layer[i], data.strips[data.strip[i]], picked.has(i) ? "yes" : "no", text(i, 0), Number(text(i, 1)),
        ...(more.length ? [data.percentile[i] === null ? null : data.percentile[i] / 1000, data.z[i]] : []), ...own.map((one) => one.values[i])])];
  }

  sort(key, up) {
    // Names go up first, and numbers down.
    this.sorted = { key, up: up ?? (this.sorted.key === key ? !this.sorted.up : key === "path") };
    this.filter();
    this.explorer.remember();
  }

  filter() {
    const { data, paths, picked } = this.explorer, { text, strip, picked: only } = this.filters.elements;
    const wanted = text.value.toLowerCase(), [value] = this.columns[this.sorted.key], sign = this.sorted.up ? 1 : -1;
    const known = this.lower ??= paths.map((path) => path.toLowerCase());
    this.order = first(data.count).filter((i) => known[i].includes(wanted) && (strip.value === "" || data.strip[i] === Number(strip.value)) && (!only.checked || picked.has(i)));
    this.order.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      return x === null || y === null ? (x === null) - (y === null) || a - b : sign * (x - y) || a - b;
    });
    this.heads.forEach((head) => {
      if (head.dataset.sort !== this.sorted.key) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", this.sorted.up ? "ascending" : "descending");
    });
    this.filters.querySelector("output").textContent = `${this.order.length.toLocaleString("en")} of ${data.count.toLocaleString("en")} modules`;
    this.box.scrollTop = 0;
    this.draw(true);
  }

  // Makes the rows around those in sight anew where they are not there yet.
  draw(anew = false) {
    const high = this.high || 42, start = Math.max(0, STEP * (Math.floor(this.box.scrollTop / high / STEP) - 1));
    if (!anew && start === this.from) return;
    const held = document.activeElement?.closest?.("tr[data-i]"), focused = held && this.body.contains(held) ? Number(held.dataset.i) : null;
    this.from = start;
    const shown = this.order.slice(start, start + ROOM);
    this.body.replaceChildren(this.space(start * high), ...shown.map((i, n) => this.row(i, start + n)), this.space((this.order.length - start - shown.length) * high));
    this.table.setAttribute("aria-rowcount", this.order.length + 1);
    if (!this.high && shown.length) this.high = this.body.rows[1].getBoundingClientRect().height;
    this.reachable();
    if (focused !== null) this.body.querySelector(`[data-i="${focused}"]`)?.focus({ preventScroll: true });
  }

  // One row at least can be reached by the keyboard, also where that of the module in view is not among them.
  reachable() {
    const rows = [...this.body.rows].filter((row) => row.dataset.i);
    if (rows.length && !rows.some((row) => row.tabIndex === 0)) rows[0].tabIndex = 0;
  }

  space(high) {
    const row = document.createElement("tr"), cell = document.createElement("td");
    row.className = "space";
    row.hidden = high <= 0;
    row.setAttribute("aria-hidden", "true");
    cell.colSpan = this.table.tHead.rows[0].cells.length;
    cell.style.height = `${high}px`;
    row.append(cell);
    return row;
  }

  row(i, place) {
    const row = document.createElement("tr"), head = document.createElement("th"), mark = document.createElement("td");
    row.dataset.i = i;
    row.setAttribute("aria-rowindex", place + 2);
    head.scope = "row";
    head.append(document.createElement("span"));
    // A long name breaks behind a dot.
    head.firstChild.append(...this.explorer.paths[i].split(/(?<=\.)/).flatMap((part, n) => (n ? [document.createElement("wbr"), part] : [part])));
    head.firstChild.title = this.explorer.paths[i];
    row.append(head, mark, ...this.heads.slice(1).map((column) => {
      const made = document.createElement("td");
      made.textContent = this.columns[column.dataset.sort][1](i);
      return made;
    }));
    this.dress(row, i);
    return row;
  }

  dress(row, i) {
    const on = this.explorer.picked.has(i), here = i === this.explorer.module;
    row.classList.toggle("picked", on);
    row.classList.toggle("here", here);
    row.cells[1].textContent = on ? "×" : "";
    row.tabIndex = here ? 0 : -1;
  }

  mark() {
    if (!this.order || this.filters.elements.picked.checked) this.filter();
    else this.look();
  }

  look() {
    for (const row of this.body.rows) if (row.dataset.i) this.dress(row, Number(row.dataset.i));
    this.reachable();
  }

  // Brings the row of a module into sight, if the filters let it pass.
  reach(i, focus = false) {
    const place = this.order.indexOf(i);
    if (place < 0) return;
    const top = place * this.high, { scrollTop, clientHeight } = this.box;
    if (top < scrollTop || top + 2 * this.high > scrollTop + clientHeight) this.box.scrollTop = Math.max(0, top - clientHeight / 3);
    this.draw();
    if (focus) this.body.querySelector(`[data-i="${i}"]`)?.focus({ preventScroll: true });
  }
}

// Every page: its tables sort, filter and are saved as CSV, its figures as SVG and their numbers as CSV.

// The number that a cell begins with, null where there is none: 0.62 [0.52, 0.71], −1,204, < 0.001, 12 %.
function leading(text) {
  const found = /^[<>~]?\s*([+−-]?(?=\.?\d)(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:e[+−-]?\d+)?)/.exec(text.trim())?.[1] ?? "";
  return /\d/.test(found) ? Number(found.replaceAll(",", "").replaceAll("−", "-")) : null;
}

class PlainTable {
  static count = 0;

  constructor(table) {
    this.table = table;
    this.heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    this.rows = [...table.tBodies].flatMap((body) => [...body.rows]).filter((row) => row.cells.length === this.heads.length);
    this.groups = [...table.querySelectorAll(".group")].map((cell) => cell.closest("tr"));
    if (this.rows.length < 3) return;
    const searched = this.rows.length > 11;
    this.bar = document.createElement(searched ? "form" : "div");
    this.bar.className = "filter";
    if (searched) {
      this.bar.setAttribute("role", "search");
      this.bar.setAttribute("aria-label", `${++PlainTable.count}: ${table.caption.textContent.slice(0, 60)}`);
      this.bar.addEventListener("submit", (event) => event.preventDefault());
      this.bar.append(this.field());
    }
    const saves = document.createElement("span");
    saves.className = "saves";
    this.count = document.createElement("output");
    this.count.className = "quiet";
    saves.append(this.count, button("CSV", "Save this table as CSV", () => save(`${plain(document.title)}-${plain(table.caption.id)}.csv`, "text/csv", csv(this.content()))));
    this.bar.append(saves);
    table.closest(".scroll").before(this.bar);
    this.heads.forEach((head, n) => { if (this.rows.length > 3 && this.told(head)) this.sortable(head, n); });
  }

  // What a cell says, without what is for screen readers only.
  told(cell) {
    return [...cell.childNodes].filter((node) => !node.classList?.contains("hidden") && !node.classList?.contains("place"))
      .map((node) => (["BR", "SMALL"].includes(node.nodeName) || node.classList?.contains("tag") ? ` ${node.textContent} ` : node.textContent)).join("").replace(/\s+/g, " ").trim();
  }

  field() {
    const label = document.createElement("label");
    this.input = document.createElement("input");
    this.input.type = "search";
    this.input.autocomplete = "off";
    this.input.spellcheck = false;
    label.append("Rows with ", this.input);
    this.input.addEventListener("input", () => this.filter());
    return label;
  }

  filter() {
    const wanted = this.input.value.toLowerCase();
    let shown = 0;
    for (const row of this.rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    this.count.textContent = wanted ? `${shown.toLocaleString("en")} of ${this.rows.length.toLocaleString("en")} rows` : "";
  }

  sortable(head, n) {
    const made = document.createElement("button");
    made.type = "button";
    made.append(...head.childNodes);
    head.append(made);
    made.addEventListener("click", () => this.sort(head, n));
    this.table.classList.add("sortable");
  }

  sort(head, n) {
    this.flatten();
    const texts = new Map(this.rows.map((row) => [row, this.told(row.cells[n])])), numbers = new Map(this.rows.map((row) => [row, leading(texts.get(row))]));
    const filled = this.rows.filter((row) => !["", "–"].includes(texts.get(row)));
    const counts = filled.filter((row) => numbers.get(row) !== null).length * 2 >= filled.length;
    // Names go up first, and numbers down.
    const up = head.hasAttribute("aria-sort") ? head.getAttribute("aria-sort") === "descending" : !counts;
    this.heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => (counts ? numbers.get(row) : ["", "–"].includes(texts.get(row)) ? null : texts.get(row));
    const compared = (x, y) => (counts ? x - y : x.localeCompare(y, "en", { numeric: true }));
    this.table.tBodies[0].append(...[...this.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      return x === null || y === null ? (x === null) - (y === null) : (up ? 1 : -1) * compared(x, y);
    }));
  }

  // Rows that are sorted leave their groups, and take the name of the group with them.
  flatten() {
    for (const group of this.groups) {
      const body = group.parentElement, name = this.told(group.cells[0]);
      for (const row of [...body.rows].slice(1)) {
        const said = document.createElement("small");
        said.className = "quiet";
        said.textContent = ` ${name}`;
        row.cells[0].append(said);
      }
      group.remove();
    }
    this.groups = [];
  }

  content() {
    return [this.heads.map((head) => this.told(head.querySelector("button") ?? head) || "remarks"),
      ...[...this.table.querySelectorAll("tbody tr")].filter((row) => this.rows.includes(row) && !row.hidden).map((row) => [...row.cells].map((cell) => this.told(cell)))];
  }
}

for (const figure of document.querySelectorAll("figure")) {
  const drawn = [...figure.querySelectorAll("svg")].find((svg) => svg.hasAttribute("viewBox") && !svg.closest("figcaption, .scale"));
  if (!drawn) continue;
  const saves = document.createElement("p"), caption = figure.querySelector("figcaption") ?? figure.closest("section").querySelector("h2");
  const name = `${plain(document.title)}-${plain(caption.firstChild.textContent + (caption.children[0]?.textContent ?? "")).slice(0, 40)}`;
  saves.className = "saves";
  saves.append(button("SVG", "Save this drawing as SVG", () => save(`${name}.svg`, "image/svg+xml", drawing(drawn))));
  if (ROWS.has(figure)) saves.append(button("CSV", "Save the numbers of this drawing as CSV", () => save(`${name}.csv`, "text/csv", csv(ROWS.get(figure)()))));
  figure.append(saves);
}
for (const table of document.querySelectorAll(".scroll > table:not(.modules)")) new PlainTable(table);

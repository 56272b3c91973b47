"use strict";
// What all pages share: shapes, and saving what a panel shows as a file.

document.documentElement.classList.add("scripted");
const SVG = "http://www.w3.org/2000/svg";
// Figure → a function that returns its numbers as rows, the first of them the heads.
const ROWS = new WeakMap();

function shape(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

function put(svg, name, d) {
  if (!svg.querySelector(`.${name}`)) svg.append(shape("path", { class: name }));
  svg.querySelector(`.${name}`).setAttribute("d", d);
}

function save(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// Spreadsheets run cells that begin so; names come from untrusted files. As `to_csv` of documents.py has it.
const FORMULA = /((?:^|;)\s*)(?=[=+@\-−＝＋＠－﹢﹣﹦﹫]|::|##|section_)/gu;
const cell = (value) => {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = value.replace(FORMULA, "$1'");
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const csv = (rows) => rows.map((row) => `${row.map(cell).join(",")}\n`).join("");

// What a drawing looks like on the page, as attributes that need no style sheet. All of these are inherited.
const LOOKS = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap",
  "stroke-linejoin", "font-size", "font-family", "font-weight", "text-anchor", "paint-order"];
function drawing(svg) {
  const copy = svg.cloneNode(true), originals = [svg, ...svg.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((element, i) => {
    const own = getComputedStyle(originals[i]), above = i ? getComputedStyle(originals[i].parentElement) : null;
    for (const name of [...element.getAttributeNames()]) {
      if (name === "class" || name === "tabindex" || name === "role" || /^(aria|data)-/.test(name)) element.removeAttribute(name);
    }
    for (const name of LOOKS) {
      const value = own.getPropertyValue(name);
      if (!above || value !== above.getPropertyValue(name)) element.setAttribute(name, value);
    }
  });
  const [, , wide, high] = svg.getAttribute("viewBox").split(" ");
  const paper = shape("rect", { width: wide, height: high, fill: getComputedStyle(document.body).backgroundColor, stroke: "none" });
  for (const [name, value] of [["xmlns", SVG], ["width", wide], ["height", high]]) copy.setAttribute(name, value);
  copy.prepend(paper);
  return new XMLSerializer().serializeToString(copy);
}

// A name for a file out of letters and digits.
const plain = (text) => text.normalize("NFKD").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "").toLowerCase().slice(0, 60) || "s3lora";

function button(text, label, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", () => act(made));
  return made;
}

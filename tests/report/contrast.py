"""The contrast of words in drawings, which axe-core leaves out: by WCAG's formula, against what is painted below."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

PALE = """() => {
  const pen = Object.assign(document.createElement("canvas"), {width: 1, height: 1})
    .getContext("2d", {willReadFrequently: true});
  const cache = new Map();
  const rgba = colour => {
    if (!cache.has(colour)) {
      pen.clearRect(0, 0, 1, 1);
      pen.fillStyle = colour;
      pen.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
      cache.set(colour, [r, g, b, a / 255]);
    }
    return cache.get(colour);
  };
  const over = ([r, g, b, a], share, below) =>
    [r, g, b].map((part, i) => part * a * share + below[i] * (1 - a * share));
  const linear = part => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const opacity = element => element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1;
  const paper = element => {
    const below = element.parentElement ? paper(element.parentElement) : [255, 255, 255];
    return over(rgba(getComputedStyle(element).backgroundColor), 1, below);
  };
  const paints = style => style.fill !== "none" && style.visibility === "visible";

  const told = [];
  for (const drawing of document.querySelectorAll("svg")) {
    const shapes = [...drawing.querySelectorAll("rect, path, polygon, circle, ellipse")]
      .filter(shape => shape.getScreenCTM() && paints(getComputedStyle(shape)))
      .map(shape => ({shape, box: shape.getBoundingClientRect(), style: getComputedStyle(shape)}));
    const ground = paper(drawing);
    for (const text of drawing.querySelectorAll("text")) {
      const box = text.getBoundingClientRect(), style = getComputedStyle(text);
      if (!box.width || !paints(style) || !text.textContent.trim()) continue;
      const x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;
      let below = ground;
      for (const {shape, box, style} of shapes) {
        if (x < box.left || x > box.right || y < box.top || y > box.bottom) continue;
        if (!(shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING)) continue;
        if (!shape.isPointInFill(new DOMPoint(x, y).matrixTransform(shape.getScreenCTM().inverse()))) continue;
        below = over(rgba(style.fill), style.fillOpacity * opacity(shape), below);
      }
      // A halo, painted first, is what the letters stand on.
      if (style.paintOrder.startsWith("stroke") && style.stroke !== "none" && parseFloat(style.strokeWidth) >= 2)
        below = over(rgba(style.stroke), style.strokeOpacity, below);
      const ink = over(rgba(style.fill), style.fillOpacity * opacity(text), below);
      const found = ratio(luminance(ink), luminance(below));
      const size = parseFloat(style.fontSize) * Math.abs(text.getScreenCTM().a || text.getScreenCTM().b);
      const needed = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
      if (found < needed)
        told.push("contrast " + found.toFixed(2) + " of " + needed + ": " + style.fill + " on rgb(" +
          below.map(Math.round).join(", ") + "): " + text.textContent.trim().slice(0, 60));
    }
  }
  return told;
}"""


def pale(page: Page) -> list[str]:
    """Return what stands too faint in a drawing for WCAG AA, one entry for each piece of text.

    What lies below is known at the text's middle: the page, and every filled shape that was painted before.
    """
    told: list[str] = page.evaluate(PALE)
    return told

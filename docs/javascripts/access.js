/* What the theme leaves undone for keyboards and screen readers: names of landmarks, and tables that scroll by key. */
(function () {
  const mend = () => {
    document.querySelector(".md-search[role=dialog]")?.setAttribute("aria-label", "Search");
    document.querySelectorAll(".md-code__nav").forEach((nav, i) => nav.setAttribute("aria-label", `Code block ${i + 1}`));
    document.querySelectorAll(".md-nav .md-nav").forEach((nav, i) => {
      const name = nav.querySelector(":scope > .md-nav__title")?.textContent.trim() || nav.getAttribute("aria-label");
      nav.removeAttribute("aria-labelledby");
      nav.setAttribute("aria-label", `${name || "Pages"} (${i + 1})`);
    });
    document.querySelectorAll(".md-typeset__scrollwrap").forEach((table) => {
      table.tabIndex = table.scrollWidth > table.clientWidth ? 0 : -1;
    });
  };
  addEventListener("load", mend);
  addEventListener("resize", mend);
})();

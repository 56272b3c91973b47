"""How large the page of an adapter of 36,864 modules is, how long it takes to make, and until it can be used."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import shapes

RANKS = (1, 16)
OPENED = 3


def measure(folder: Path) -> list[dict[str, Any]]:
    """Measure a page of modules of rank 1, and one of rank 16."""
    return [_measure(folder, rank) for rank in RANKS]


def _measure(folder: Path, rank: int) -> dict[str, Any]:
    """Return bytes, CPU seconds of `scan --format html`, and milliseconds until the page can be used in Chromium."""
    names = ("gate_proj", "up_proj", "down_proj")
    modules = {
        f"model.layers.{layer}.mlp.experts.{expert}.{name}": (64, 48, rank)
        for layer in range(48)
        for expert in range(256)
        for name in names
    }
    adapter = shapes.write(folder / f"experts-{rank}", modules, "bfloat16")
    page = folder / f"experts-{rank}.html"
    costs = {}
    for form, target in (("json", folder / "scan.json"), ("html", page)):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        words = ["scan", str(adapter), "--format", form, "--output", str(target)]
        subprocess.run([sys.executable, "-m", "s3lora", *words], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs[f"{form}_cpu_seconds"] = round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2)
    return {"rank": rank, "modules": len(modules), "bytes": page.stat().st_size, **costs, **_opened(page)}


def _opened(page: Path) -> dict[str, Any]:
    """Return how long a browser takes: to the mark that the script sets at its end, and to change the index."""
    from playwright.sync_api import sync_playwright

    ready, changed, nodes = [], [], 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
        for _ in range(OPENED):
            view = browser.new_page(viewport={"width": 1280, "height": 900})
            view.goto(page.as_uri())
            ready.append(view.evaluate("performance.getEntriesByName('interactive')[0].startTime"))
            nodes = view.evaluate("document.querySelectorAll('*').length")
            changed.append(
                view.evaluate(
                    "() => { const start = performance.now(), index = document.querySelector('[name=index]');"
                    " index.value = 2; index.dispatchEvent(new Event('change', {bubbles: true}));"
                    " return performance.now() - start; }"
                )
            )
            view.close()
        browser.close()
    return {
        "interactive_ms": round(sorted(ready)[OPENED // 2]),
        "another_index_ms": round(sorted(changed)[OPENED // 2]),
        "nodes": nodes,
    }

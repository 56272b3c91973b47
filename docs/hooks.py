"""What the site needs beyond `docs/`: the pages that lie at the root, the notebook, and that it loads nothing.

On GitHub, a page of `docs/` links to `../CONTRIBUTING.md`, and that one to `docs/method.md`. The site has no root above
its pages, so there the two files are pages like all others, and so is the notebook. Links are written anew for where
they stand.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from make_notebook import NOTEBOOK
from make_notebook import page as page_of
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
#: File at the root → page of the site.
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "reporting.md"}
#: The same with what is no Markdown.
PLACES = {**PAGES, "docs/notebook.ipynb": "notebook.md"}
#: A tag by which a browser would fetch something from another host while it shows the page.
FOREIGN = re.compile(r"""<(?:script|img|iframe|link|source|video)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
#: What the search weighs more: a page by its title than a section of one, guides than lists of all there is, and those
#: than what was measured or decided.
TITLE, LISTS, RECORDS = 8.0, 0.5, 0.2
LIST_PAGES = re.compile(r"(?:api|command-help)\.")
RECORD_PAGES = re.compile(r"(?:results/|schemas/|benchmarks|changelog|contributing)")
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that lie at the root, and the notebook."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    files.append(File.generated(config, PLACES["docs/notebook.ipynb"], content=page_of(notebook)))
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=relinked((ROOT / name).read_text(encoding="utf-8"), name)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write links to the root's files anew, and to nothing else."""
    source = page.file.src_uri
    return markdown if source in PAGES.values() else relinked(markdown, f"docs/{source}")


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """End the build where a page would load something from elsewhere."""
    if found := FOREIGN.search(output):
        raise PluginError(f"{page.file.src_uri} loads from elsewhere: {found[0]}")
    return output.replace("<th></th>", "<td></td>")  # a corner of a table heads nothing


def on_post_build(*, config: MkDocsConfig) -> None:
    """Weigh what the search finds: who looks for a word finds the page that has it as its title."""
    path = Path(config.site_dir) / "search" / "search_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    for entry in index["docs"]:
        entry["boost"] = weight_of(entry["location"])
    path.write_text(json.dumps(index, separators=(",", ":")), encoding="utf-8")


def weight_of(location: str) -> float:
    """Return the weight of a place in the search.

    >>> weight_of("repair.html"), weight_of("repair.html#limits"), weight_of("results/repair.html#limits")
    (8.0, 1.0, 0.2)
    """
    kind = RECORDS if RECORD_PAGES.match(location) else LISTS if LIST_PAGES.match(location) else 1.0
    return (1.0 if "#" in location else TITLE) * kind


def relinked(markdown: str, source: str) -> str:
    """Return a page with its links as the site has them; `source` is where it lies, from the root."""
    here = posixpath.dirname(PLACES.get(source, source.removeprefix("docs/")))

    def anew(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if source not in PAGES and target not in PLACES:
            return match[1]
        return posixpath.relpath(PLACES.get(target, target.removeprefix("docs/")), here or ".")

    return LINK.sub(anew, markdown)

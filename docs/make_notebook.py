"""Make `docs/notebook.ipynb`: run its cells, and keep what they show. `python -m docs.make_notebook` writes it.

The tests run them again and hold the outputs against what is kept. The site has the notebook as a page.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).resolve().parent / "notebook.ipynb"
TITLE = "# In a notebook"
#: Text, or code, in the order of the page.
CELLS = (
    f"""{TITLE}

An adapter is looked into, compared, checked and pruned here without its base model. The example comes with the package;
put the folder of your own adapter for `my-adapter`.""",
    """>import shutil
from pathlib import Path

import s3lora

example = Path(s3lora.__file__).parent / "data" / "demo-adapter"
shutil.copytree(example, "my-adapter", dirs_exist_ok=True)
print(sorted(file.name for file in Path("my-adapter").iterdir()))""",
    """## Scan

What the adapter holds, how its index lies, and a map of it. A high value tells that the update of a module lies mostly
in one direction. It is no verdict: harmless adapters have sharp modules too.""",
    """>scan = s3lora.scan("my-adapter")
scan""",
    """A scan has a length, is gone through in the order of the model, and is looked into by the names of modules.

## As a table

`to_pandas` and `to_polars` need the library that they name (`pip install pandas`). ΔW has `m` rows and `n` columns.
Within one rank `ssi` compares modules, across ranks `normalised_ssi`, and `weighted_ssi` counts size too; none is known
to be the right one.""",
    """>table = scan.to_pandas()
print(*table.columns)
first = table.nlargest(5, "normalised_ssi")[["path", "normalised_ssi", "rank", "m", "n"]]
print(first.round(3).to_string(index=False))""",
    """## Among published ones

Every module whose role and rank are common enough is set against those of 394 published adapters. A percentile comes
with its interval, which counts sources, and ends at the 95th. Energy, σ₁²/Σσ², leads here, as it hardly depends on the
rank.""",
    """>published = s3lora.among_published(scan)
print(published)
table = published.to_pandas().nlargest(3, "energy_percentile")
print(table[["path", "energy", "energy_percentile", "energy_low", "energy_high"]].round(2).to_string(index=False))""",
    """## Will it load?

The newest release of a loader that was tried loads it and computes what was trained (`same`), computes something
`other` or `fails`; or it is `unknown`, as nobody saw it. Without `base=` the names of modules are held against no
model.""",
    """>check = s3lora.check("my-adapter")
print(check)
peft = check["peft"]
print(peft.shown, peft.verdict, f"reasons: {peft.reasons}", f"notes: {peft.notes}", sep="\\n")""",
    """## Choose and prune

A rule chooses from the scan by an index, here of one rank by `ssi`; the map crosses what it chose. Nothing is written
before `write_pruned`, the adapter that was given stays as it is, and `force` replaces a folder that was written
before.""",
    """>plan = s3lora.select(scan, s3lora.Top(10), index="ssi")
print(plan)
scan.plot(plan=plan)""",
    """>pruned = s3lora.prune("my-adapter", plan)
record, written = s3lora.write_pruned(pruned, scan, "pruned", force=True)
print(record, written, sep="\\n")""",
    """## Compare

`only` names what one adapter alone has, and `distance` is that of each update to the one before it: what is gone, and
what is left as it was.""",
    """>compared = s3lora.compare(["my-adapter", "pruned"])
print(compared, f"only in the first: {len(compared.only[0])}", sep="\\n")
print({module.distance[0] for module in compared if module.path not in compared.only[0]})""",
    """## Keep

`to_json` is what `s3lora scan --format json --reference none` prints, and `from_json` reads what either wrote. `save`
writes a drawing as SVG or, with the extra `plots`, as PNG.""",
    """>Path("scan.json").write_text(scan.to_json(plan))
again = s3lora.Scan.from_json("scan.json")
print(again.modules == plan.mark(scan).modules)
scan.plot("ssi", plan=plan).save("map.svg")""",
    """## When something is wrong

Every error of s3lora is an `S3LoRAError` and one sentence. A file that cannot be read is an `AdapterFileError`, a
module that is not there a `NoSuchModuleError`, and whatever was given wrongly a `UsageError`; [the API](api.md) has all
of them, and every function.""",
    """>for look in (lambda: s3lora.scan("nowhere"), lambda: scan["model.layers.25.self_attn.vproj"]):
    try:
        look()
    except s3lora.S3LoRAError as error:
        print(type(error).__name__, error)""",
)


def made(folder: Path) -> dict[str, Any]:
    """Return the notebook with its outputs, run in a folder by the Python that runs this."""
    import nbclient
    import nbformat
    from nbformat import v4

    cells = [v4.new_code_cell(one[1:]) if one.startswith(">") else v4.new_markdown_cell(one) for one in CELLS]
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    notebook["metadata"] = {"kernelspec": kernel}  # the version of Python is of no matter
    nbformat.validate(notebook)
    content: dict[str, Any] = json.loads(nbformat.writes(notebook))
    return content


def text_of(notebook: dict[str, Any]) -> str:
    """Return a notebook as it is written."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def page(notebook: dict[str, Any]) -> str:
    """Return a notebook as a page of the site, with its drawings in it."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [_shown(output) for output in cell.get("outputs", ())]
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> str:
    data = {kind: "".join(value) for kind, value in output.get("data", {}).items()}
    if "text/html" in data:
        return data["text/html"]
    if "image/svg+xml" in data:
        drawn = base64.b64encode(data["image/svg+xml"].encode()).decode()
        return f'<img alt="A drawing, as the cell above makes it" src="data:image/svg+xml;base64,{drawn}">'
    text = "".join(output.get("text", ())) or data.get("text/plain", "")
    return f"```text\n{text.rstrip()}\n```"


def main() -> None:
    """Write the notebook."""
    with tempfile.TemporaryDirectory() as folder:
        NOTEBOOK.write_text(text_of(made(Path(folder))), encoding="utf-8")


if __name__ == "__main__":
    main()

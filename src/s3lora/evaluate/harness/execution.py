"""Whether a task that comes with lm-eval would run code which a model wrote.

lm-eval marks most such tasks as unsafe, but not all of them: so the Python of a task is read, too, before it is
imported. It is searched for the few ways in which Python runs a text; it is not a proof.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: Functions that run a text, and packages that start programs or unpickle.
RUNNING = frozenset({"exec", "eval", "system", "popen", "parse_expr", "sympify"})
PACKAGES = frozenset({"subprocess", "pickle", "dill", "code"})
#: A metric of the package evaluate that runs programs.
CODE_EVAL = "code_eval"
MAX_BYTES = 4 << 20


def runs_code(config: Mapping[str, Any], root: Path) -> bool:
    """Return whether a task is marked as unsafe, or names Python that runs a text.

    Parameters:
        config: the task as its YAML says it, with its functions not imported but written as `/FOLDER/module.function`.
        root: the folder of lm-eval's tasks.
    """
    if config.get("unsafe_code"):
        return True
    todo = [module for text in _texts(config) if (module := _module(text)) is not None]
    seen: set[Path] = set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            tree = ast.parse(path.read_bytes()[:MAX_BYTES])
        except (OSError, SyntaxError, ValueError):
            return True  # what cannot be read cannot be vouched for
        if any(map(_runs, ast.walk(tree))):
            return True
        todo += _imported(tree, path, root)
    return False


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for one in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _texts(one)


def _module(text: str) -> Path | None:
    """Return the file of a function that is named by its path, None for any other text."""
    folder, _, function = text.rpartition("/")
    name = function.rpartition(".")[0]
    if not text.startswith("/") or not name or "\n" in text:
        return None
    path = Path(folder, *name.split(".")).with_suffix(".py")
    return path if path.is_file() else None


def _runs(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        called = node.func
        return (isinstance(called, ast.Name) and called.id in RUNNING) or (
            isinstance(called, ast.Attribute)
            and called.attr in RUNNING
            # A model or a session has a method eval, too.
            and (called.attr not in ("eval", "exec") or getattr(called.value, "id", "") == "builtins")
        )
    if isinstance(node, ast.Import):
        return any(alias.name.partition(".")[0] in PACKAGES for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] in PACKAGES or any(a.name in RUNNING for a in node.names)
    return isinstance(node, ast.Constant) and node.value == CODE_EVAL


def _imported(tree: ast.AST, path: Path, root: Path) -> Iterator[Path]:
    """Yield the files of lm-eval's tasks that a module imports."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module or ''}.{alias.name}".strip(".") for alias in node.names)]
        for name in filter(None, names):
            inside = name.removeprefix("lm_eval.tasks.")
            for folder in (root,) if inside != name else (path.parent, path.parent.parent):
                place = Path(folder, *inside.split(".")).with_suffix(".py")
                if place.is_file():
                    yield place

"""Schemas of other people's files, as the package check-jsonschema carries them, and YAML as those programs read it."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any

import jsonschema
import pytest


def check(text: str, schema: str) -> None:
    """Raise unless the YAML is valid by a schema, such as `github-actions`; skip without the package."""
    pytest.importorskip("check_jsonschema")
    ruamel = pytest.importorskip("ruamel.yaml")
    folder = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    rules: Any = json.loads((folder / f"{schema}.json").read_text(encoding="utf-8"))
    # YAML 1.2, in which `on` is a word and no truth value.
    jsonschema.validators.validator_for(rules)(rules).validate(ruamel.YAML(typ="safe", pure=True).load(text))

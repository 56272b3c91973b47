"""What a configuration makes a program import or run, and the chat templates that it holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from s3lora.errors import printable

#: Most bytes of a configuration that is parsed, and most of its values that are looked at.
MAX_CONFIG = 8 * 1024 * 1024
MAX_VALUES = 200_000
MAX_TOLD = 50
#: Libraries whose classes a configuration may name: they are installed, and not of the folder.
_LIBRARIES = frozenset(
    (
        *("transformers", "diffusers", "torch", "peft", "sentence_transformers", "accelerate", "timm", "open_clip"),
        *("torchvision", "torchaudio", "onnxruntime", "optimum", "flax", "megatron", "__main__"),
    )
)
#: Keys under which loaders find what to import: Transformers, Diffusers, Hydra, torchtune, Lightning, older
#: PEFT, which imported any `megatron_core`.
_CLASSES = ("auto_map", "_target_", "_component_", "class_path", "custom_pipelines", "custom_pipeline", "megatron_core")
_YAML = re.compile(
    r"(?:^|[{,])[ \t]*(?:[-?][ \t]+)*[\"']?(_target_|_component_|class_path)[\"']?\s*:\s*[\"']?([^\s\"'#,{}]{1,120})",
    re.MULTILINE,
)
#: Tags of Python objects, however they are spelled, and keys that are written with escapes.
_YAML_TAG = re.compile(
    r"!!python/[\w/.:]{1,120}|!<[^>\n]{0,80}python[^>\n]{0,80}>|!\S{0,120}%[0-9a-fA-F]{2}|^%TAG[ \t].{0,120}"
    r"|\"[^\"\n]{0,60}\\[xuU][0-9a-fA-F]{2}[^\"\n]{0,60}\"(?=[ \t]*:)",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class ConfigFindings:
    """What a configuration points to, in words and in order, its chat templates, and what was not read of it.

    `more` counts what it points to beyond the first `MAX_TOLD`, which `runs` does not name.
    """

    runs: tuple[str, ...] = ()
    more: int = 0
    templates: tuple[str, ...] = ()
    note: str = ""


def read_config(raw: bytes, name: str) -> ConfigFindings:
    """Return what the JSON of a configuration points to; `name` is that of its file.

    >>> read_config(b'{"auto_map": {"AutoModel": "modeling.Own"}}', "config.json").runs
    ('auto_map: modeling.Own',)
    """
    try:
        parsed = _decoded(raw)
    except (ValueError, RecursionError) as error:
        return ConfigFindings(note=f"is not valid JSON ({printable(error, 80)})")
    found: dict[str, None] = {}
    templates: list[str] = []
    waiting: list[tuple[str, Any]] = [("", parsed)]
    count = 0
    while waiting:
        key, value = waiting.pop()
        count += 1
        if count > MAX_VALUES:
            found[f"more than {MAX_VALUES:,} values, which were not all read"] = None
            break
        found.update(dict.fromkeys(_told(key, value)))
        if key == "chat_template":
            templates.extend(_templates(value))
        if isinstance(value, dict):
            waiting.extend(value.items())
        elif isinstance(value, list):
            waiting.extend(("", item) for item in value)
    if name == "model_index.json" and isinstance(parsed, dict):
        found.update(dict.fromkeys(_of_pipeline(parsed)))
    if name == "modules.json" and isinstance(parsed, list):
        kinds = (item.get("type") for item in parsed if isinstance(item, dict))
        found.update(dict.fromkeys(f"type: {_shown(kind)}" for kind in kinds if _foreign(kind)))
    if name == "chat_template.json" and isinstance(parsed, str):
        templates.append(parsed)
    return _findings(found, templates)


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(raw)  # which loaders use, and which takes NaN


def read_yaml(text: str) -> ConfigFindings:
    """Return what a YAML file points to, told from its lines: classes to build, and tags of Python objects."""
    found = dict.fromkeys(f"{key}: {_shown(value)}" for key, value in _YAML.findall(text) if _foreign(value))
    found.update(dict.fromkeys(_shown(tag) for tag in _YAML_TAG.findall(text)))
    return _findings(found, [])


def _findings(found: dict[str, None], templates: list[str], note: str = "") -> ConfigFindings:
    told = sorted(found)
    more = max(len(told) - MAX_TOLD, 0)
    return ConfigFindings(tuple(told[:MAX_TOLD]), more, tuple(dict.fromkeys(templates)), note)


def points_to_code(key: str, value: Any) -> bool:
    """Return whether an entry of a configuration itself points to code, whatever its value holds further in.

    >>> points_to_code("auto_map", {"AutoModel": "own.Model"}), points_to_code("_target_", "torch.nn.Linear")
    (True, False)
    """
    from s3lora.adapter.inventory.templates import MAX_TEMPLATE, reaches

    templates = [*_templates(value)] if key == "chat_template" else []
    long = sum(map(len, templates)) > MAX_TEMPLATE
    return long or any(_told(key, value)) or any(reaches(source)[0] for source in templates)


def _told(key: str, value: Any) -> Iterator[str]:
    if key == "trust_remote_code" and value is True:
        yield "trust_remote_code: true"
    elif key == "auto_mapping" and isinstance(value, dict) and _foreign(value.get("parent_library")):
        yield f"auto_mapping: {_shown(value['parent_library'])}"
    elif key == "custom_pipelines" and isinstance(value, dict):
        classes = (one.get("impl") for one in value.values() if isinstance(one, dict))
        yield from (f"{key}: {_shown(name)}" for name in classes if _foreign(name))
    elif key == "auto_map" and isinstance(value, dict | list) and value and not any(_texts(value)):
        yield "auto_map: of another form"
    elif key in _CLASSES:
        yield from (f"{key}: {_shown(text)}" for text in _texts(value) if key == "auto_map" or _foreign(text))


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a value: itself, or those of a list or a dictionary, two levels down."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else (value,)
    for item in inner:
        yield from (text for text in (item if isinstance(item, list) else (item,)) if isinstance(text, str))


def _templates(value: Any) -> Iterator[str]:
    """Yield the templates under `chat_template`: one, a list of them with names, or a dictionary."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for text in value.values() if isinstance(text, str))
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, str):
                yield item
            elif isinstance(item, dict):
                yield from (text for key, text in item.items() if isinstance(text, str) and key != "name")


def _of_pipeline(parsed: dict[str, Any]) -> Iterator[str]:
    """Yield the parts of a Diffusers pipeline that come from a module of the folder."""
    for part, value in parsed.items():
        if isinstance(value, list) and len(value) == 2 and _foreign(value[0]) and part != "_class_name":
            yield f"{_shown(part)}: {_shown(value[0])}.{_shown(value[1])}"
    name = parsed.get("_class_name")
    if isinstance(name, list):
        yield f"_class_name: {'.'.join(_shown(text) for text in name[:2])}"


def _foreign(name: Any) -> bool:
    """Return whether `name` names a module that is none of the libraries' own."""
    return isinstance(name, str) and bool(name) and name.split(".")[0] not in _LIBRARIES


def _shown(text: Any) -> str:
    return printable(text, 120)

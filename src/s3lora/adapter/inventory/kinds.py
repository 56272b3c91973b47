"""What a file is by its name, and by its first bytes."""

from __future__ import annotations

import re

from s3lora.adapter.inventory.model import FileRole
from s3lora.adapter.tensors import MAX_HEADER
from s3lora.adapter.weights import CONFIG, PROVENANCE
from s3lora.adapter.weights import TORCH as TORCH
from s3lora.adapter.weights import is_training_state as is_training_state

#: Kinds of weights that are compared with those that were measured, besides those of torch.
READ = (".safetensors", ".npz", ".gguf")
WEIGHTS = (
    *(*READ, *TORCH, ".onnx", ".h5", ".hdf5", ".keras", ".msgpack", ".pdparams", ".pdiparams", ".tflite", ".ggml"),
    *(".npy", ".pb", ".ot", ".mlmodel", ".engine", ".trt", ".nemo", ".mar", ".distcp", ".tensors", ".lora"),
)
INDEXES = (".safetensors.index.json", ".bin.index.json")
PICKLES = (".pkl", ".pickle", ".p", ".joblib", ".dill", ".cloudpickle")
TEMPLATES = (".jinja", ".jinja2", ".j2")
YAML = (".yaml", ".yml")
CODE = (
    *(".py", ".pyw", ".pyi", ".pyc", ".pyo", ".pyd", ".pyx", ".so", ".dll", ".dylib", ".exe", ".com", ".jar", ".class"),
    *(".sh", ".bash", ".zsh", ".fish", ".ksh", ".bat", ".cmd", ".ps1", ".vbs", ".ipynb", ".js", ".mjs", ".cjs", ".ts"),
    *(".wasm", ".lua", ".rb", ".pl", ".php", ".r", ".jl", ".go", ".rs", ".c", ".cc", ".cpp", ".cu", ".ptx", ".cubin"),
    *(".whl", ".egg", ".scr", ".command", ".desktop", ".service"),
)
_TOKENIZER = re.compile(
    r"(?:tokenizer.*\.json|vocab.*|merges\.txt|special_tokens_map\.json|added_tokens\.json|normalizer\.json|tekken\.json"
    r"|chat_template.*|(?:pre)?processor_config\.json|video_preprocessor_config\.json|.*\.model|.*\.tiktoken"
    r"|.*\.jinja2?|.*\.j2|sentencepiece.*|spiece.*)"
)
_CONFIGURATION = re.compile(
    r"(?:.*config\.(?:json|ya?ml)|.*index\.json|model_index\.json|modules\.json|params\.json|.*\.toml)"
)
#: JSON that is long and holds data: it is not parsed.
DATA = re.compile(r"(?:tokenizer|vocab.*|added_tokens|trainer_state|merges|tekken)\.json")
_EXECUTABLE = (b"\x7fELF", b"#!", b"MZ", b"\xfe\xed\xfa", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_LIBRARY = re.compile(r".*\.so(?:\.\d+)*")


def is_tokenizer(name: str) -> bool:
    """Return whether a file belongs to a tokenizer or a processor."""
    return _TOKENIZER.fullmatch(name) is not None


def is_configuration(name: str) -> bool:
    """Return whether a file is a configuration."""
    return name in (CONFIG, PROVENANCE) or _CONFIGURATION.fullmatch(name) is not None


def is_code(name: str, head: bytes) -> bool:
    """Return whether a file is code, by its name or its first bytes."""
    return (
        name.endswith(CODE)
        or _LIBRARY.fullmatch(name) is not None
        or (head.startswith(_EXECUTABLE) and not (head.startswith((b"MZ", b"#!")) and name.endswith((".txt", ".md"))))
        or head.startswith(b"\0asm")
    )


def role_by_name(name: str) -> FileRole:
    """Return what a file is by its name alone, in small letters and without folders."""
    if name.endswith(PICKLES) or is_training_state(name):
        return "pickle"
    if name.endswith((*WEIGHTS, *INDEXES)):
        return "other weights"
    if is_code(name, b""):
        return "code"
    if is_tokenizer(name):
        return "tokenizer"
    return "configuration" if is_configuration(name) else "other"


def is_safetensors(head: bytes, size: int) -> bool:
    """Return whether a file of `size` bytes that begins with `head` is safetensors, whatever its name."""
    length = int.from_bytes(head[:8], "little")
    return len(head) > 9 and 2 <= length <= min(MAX_HEADER, size - 8) and head[8:10] in (b'{"', b"{}", b"{ ")


def imports_of(text: str) -> tuple[str, ...] | None:
    """Return the lines of a path file of Python (`.pth`) that it runs, None if the text is none."""
    if "\0" in text or "\ufffd" in text:
        return None
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line.startswith(("import ", "import\t")))[:20]

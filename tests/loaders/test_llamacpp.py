"""llama.cpp: its converter and its library compute the base with ΔW added, and read what s3lora writes as GGUF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.loaders.environments import Answer, environment
from tests.loaders.llamacpp import LlamaCpp, llama_cpp
from tests.loaders.reference import logits
from tests.loaders.samples import GONE, SAMPLES, Made, NoSense, Workshop
from tests.loaders.seen import SAMPLES as SECTION
from tests.loaders.seen import Row, compared, settle
from tests.planning import PREFIX, dense, tensors_of
from tests.support import write_safetensors

pytestmark = pytest.mark.slow
#: Of logits that are computed in float32.
TOLERANCE = 2e-5
SCALINGS = "divides one `lora_alpha` by the rank of each module, without rsLoRA"
REASONS = {"patterns": SCALINGS, "padded": SCALINGS}


def _as_gguf(shop: Workshop, name: str, source: Path) -> Made:
    """Return what `convert --to gguf` makes of an adapter of PEFT."""
    return Made(name, shop.converted(source, shop.out(name), "gguf"), dense(source))


def _back(shop: Workshop, made_by_llama: Path) -> Made:
    """Return a GGUF of llama.cpp's own converter, converted to PEFT by the heads of the base, and back."""
    there = shop.converted(made_by_llama, shop.folder / "there", "peft", base=shop.base)
    return Made("converted-back", shop.converted(there, shop.out("converted-back"), "gguf"), dense(shop.plain))


def _by_hand(shop: Workshop) -> Made:
    """Return the plain adapter with zeros that no s3lora wrote."""
    out = shop.out("own-zeros")
    out.mkdir(parents=True)
    gone = {f"{PREFIX}{path}.lora_B.weight" for path in GONE}
    tensors = {name: 0 * value if name in gone else value for name, value in tensors_of(shop.plain).items()}
    write_safetensors(out / "adapter_model.safetensors", tensors, {"format": "pt"})
    (out / "adapter_config.json").write_bytes((shop.plain / "adapter_config.json").read_bytes())
    updates = dense(shop.plain)
    return Made("own-zeros", out, updates | {path: np.zeros_like(updates[path]) for path in GONE})


@pytest.fixture(scope="module")
def there(base: Path, tmp_path_factory: pytest.TempPathFactory) -> LlamaCpp:
    return llama_cpp(base, tmp_path_factory.mktemp("llamacpp"))


@pytest.fixture(scope="module")
def shop(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("shop"), base, loader="llamacpp")


Seen = tuple[dict[str, Made | NoSense], dict[str, Answer]]


@pytest.fixture(scope="module")
def own(there: LlamaCpp, shop: Workshop) -> Path:
    """Return a folder with the GGUF that llama.cpp's converter makes of the plain adapter."""
    work = shop.folder / "own"
    assert there.run({"plain": shop.plain}, work, keep=True)["plain"].error is None
    return work / "plain.gguf"


@pytest.fixture(scope="module")
def seen(there: LlamaCpp, shop: Workshop, own: Path) -> Seen:
    """Return all samples, and what llama.cpp makes of each."""
    making: dict[str, Callable[[Workshop], Made | NoSense]] = {
        **SAMPLES,
        "converted": lambda shop: _as_gguf(shop, "converted", shop.plain),
        "converted-patterns": lambda shop: _as_gguf(shop, "converted-patterns", shop.patterns),
        "converted-back": lambda shop: _back(shop, own),
        "own-zeros": _by_hand,
    }
    made = {name: make(shop) for name, make in making.items()}
    adapters = {one.name: one.folder for one in made.values() if isinstance(one, Made)}
    return made, there.run(adapters, shop.folder / "run", keep=True)


@pytest.mark.parametrize("sample", SAMPLES)
def test_it_computes_what_it_should(base: Path, seen: Seen, sample: str) -> None:
    made, answer = seen[0][sample], seen[1].get(sample)
    if isinstance(made, NoSense) or answer is None:
        settle(environment("llamacpp"), SECTION, Row(sample, "logits", "none", reason=getattr(made, "reason", "")))
        return
    if answer.error is not None:
        why = REASONS.get(sample, answer.error)
        settle(environment("llamacpp"), SECTION, Row(sample, "logits", "fails", reason=why))
        return
    right = {"logits": logits(base, made.updates)}
    why = REASONS.get(sample, "another update")
    settle(environment("llamacpp"), SECTION, compared(sample, "logits", answer.arrays, right, TOLERANCE, why))
    plain = {"logits": logits(base, {})}
    assert compared("base", "logits", answer.arrays, plain, 100 * TOLERANCE).result == "other"


def test_removed_zeroed_and_own_zeros_are_the_same_bit_by_bit(seen: Seen) -> None:
    found = [seen[1][name].arrays["logits"] for name in ("pruned-remove", "pruned-zero", "own-zeros")]
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    assert found[0].tobytes() != seen[1]["original"].arrays["logits"].tobytes()


def _held(file: Path) -> tuple[dict[str, Any], dict[str, tuple[Any, bytes]]]:
    """Return the keys and the tensors of a GGUF, by the `gguf` package."""
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(file)
    keys = {name: one.contents() for name, one in reader.fields.items() if name.startswith(("adapter.", "general."))}
    tensors = {one.name: ((one.tensor_type, *one.shape.tolist()), one.data.tobytes()) for one in reader.tensors}
    return keys, tensors


def test_a_converted_adapter_has_the_tensors_of_its_own_converter(shop: Workshop, seen: Seen, own: Path) -> None:
    made = seen[0]["converted"]
    assert isinstance(made, Made)
    keys, tensors = _held(made.folder / "adapter.gguf")
    wanted_keys, wanted = _held(own)
    assert tensors == wanted, "q and k with their rows in pairs, in float32, byte for byte"
    for name in ("adapter.type", "adapter.lora.alpha", "general.architecture", "general.type"):
        assert keys[name] == wanted_keys[name]

"""What `s3lora check` says of an adapter is what vLLM, SGLang and llama.cpp then do with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora import S3LoRAError, check
from tests.loaders.environments import Answer, Environment, environment
from tests.loaders.faults import Faulty
from tests.loaders.language import once
from tests.loaders.llamacpp import llama_cpp
from tests.loaders.reference import logits
from tests.loaders.samples import Workshop
from tests.loaders.seen import Row, compared, settle
from tests.loaders.server_faults import ALL
from tests.loaders.test_llamacpp import TOLERANCE as OF_LOGITS
from tests.loaders.test_servers import SERVERS, TOLERANCE, asked, completed

pytestmark = pytest.mark.slow
Seen = tuple[Environment, dict[str, Faulty], dict[str, Answer]]


@pytest.fixture(scope="module")
def seen(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Seen]:
    """Return what gives all that a loader makes of all inputs, each loader asked once."""

    def of(name: str) -> Seen:
        shop = Workshop(tmp_path_factory.mktemp(name), base)
        made = {fault: make(shop, fault) for fault, make in ALL.items()}
        folders = {fault: one.folder for fault, one in made.items()}
        if name == "llamacpp":
            return environment(name), made, llama_cpp(base, shop.folder).run(folders, shop.folder / "run")
        there, answers = asked(
            name, {fault: {"adapter": one} for fault, one in folders.items()}, base, shop.folder / "run"
        )
        return there, made, answers

    return once(of)


@pytest.fixture(scope="module")
def wanted() -> dict[str, Any]:
    return {}


def tensors(fault: str, made: Faulty, answer: Answer) -> Row:
    """Return the row of what a server holds: whatever no buffer has room for is lost."""
    held = answer.arrays
    right = completed({**made.updates, **made.weights}, held)
    lost = sorted(right.keys() - held.keys())
    if lost or made.since or made.layers:
        return Row(fault, "tensors", "other", reason="goes on without the rest")
    return compared(fault, "tensors", held, right, TOLERANCE, "another update")


def numbers(base: Path, fault: str, made: Faulty, answer: Answer, wanted: dict[str, Any]) -> Row:
    """Return the row of what llama.cpp computes."""
    if fault not in wanted:
        wanted[fault] = logits(base, made.updates, made.weights, made.since, made.layers)
    return compared(fault, "logits", answer.arrays, {"logits": wanted[fault]}, OF_LOGITS, "another update")


@pytest.mark.parametrize("fault", ALL)
@pytest.mark.parametrize("loader", [*SERVERS, "llamacpp"])
def test_the_verdict_is_what_the_loader_did(
    base: Path, seen: Callable[[str], Seen], wanted: dict[str, Any], loader: str, fault: str
) -> None:
    there, faults, answers = seen(loader)
    made, answer = faults[fault], answers[fault]
    what = "logits" if loader == "llamacpp" else "tensors"
    if answer.error is not None:
        row = Row(fault, what, "fails", reason=answer.told)
    elif not made.fits:
        row = Row(fault, what, "other", reason="goes on with what it reads")
    elif loader == "llamacpp":
        row = numbers(base, fault, made, answer, wanted)
    else:
        row = tensors(fault, made, answer)
    try:
        verdict = check(made.folder, base, [f"{there.loader}={there.version}"]).loaders[0].verdict
    except S3LoRAError as error:
        verdict = f"refused: {error}"  # type: ignore[assignment]
    settle(there, "checks", replace(row, verdict=verdict))
    assert verdict in (row.result, "unknown"), row


TIED = {"embeddings-tied": "embeddings", "output-tied": "output"}


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Faulty], dict[str, Answer]]:
    """Return a base whose output layer is its embeddings, and what llama.cpp makes of updates of the two."""
    folder = tmp_path_factory.mktemp("tied")
    base = tied_folder(folder / "base")
    shop = Workshop(folder, base)
    made = {name: ALL[fault](shop, fault) for name, fault in TIED.items()}
    folders = {name: one.folder for name, one in made.items()}
    return base, made, llama_cpp(base, folder).run(folders, folder / "run")


@pytest.mark.parametrize("fault", TIED)
def test_an_output_layer_that_is_tied(tied: tuple[Path, dict[str, Faulty], dict[str, Answer]], fault: str) -> None:
    base, faults, answers = tied
    there, answer = environment("llamacpp"), answers[fault]
    assert answer.error is not None
    verdict = check(faults[fault].folder, base, [f"{there.loader}={there.version}"]).loaders[0].verdict
    settle(there, "checks", Row(fault, "logits", "fails", reason=answer.told, verdict=verdict))
    assert verdict == "fails"
    assert check(faults[fault].folder, loaders=["llamacpp"]).loaders[0].verdict != "fails", (
        "nothing says that it is tied"
    )


def tied_folder(folder: Path) -> Path:
    from tests.tiny_model import tiny_folder, tiny_llama, torch, transformers

    config = tiny_llama().config
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    return tiny_folder(folder, model=transformers.LlamaForCausalLM(config).eval())


def test_zeros_are_no_update() -> None:
    made = Faulty(Path(), {"a": np.ones((2, 2))})
    empty = Answer(Path("nowhere"))
    assert tensors("a", made, empty).result == "other"

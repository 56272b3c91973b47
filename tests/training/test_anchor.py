"""The anchor is the divergence from the base's refusals, and adding it to a loss holds on to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.errors import NothingToAuditError, UsageError
from s3lora.evaluate.chat import Decoding, Prompt
from s3lora.evaluate.judges.refusing import refusal_judge
from s3lora.repair.batches import TokenPair
from s3lora.repair.losses import KEPT
from s3lora.training import add_to_loss, refusal_anchor, spectral_penalty
from s3lora.training.anchor import prompt_set
from s3lora.training.running import LiveModel
from tests.reference import training as reference
from tests.tiny_model import tiny_llama, tiny_tokenizer, torch
from tests.training.models import HARMFUL, HARMLESS, refusing, tiny_peft, trained, trainer_of


def divergences(model: Any, rows: Sequence[TokenPair]) -> list[float]:
    """Return of each row the divergence from the base, by NumPy, in nats a token."""
    found = []
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.answer]])
        with torch.no_grad():
            now = model(input_ids=ids).logits[0, len(row.prompt) - 1 : -1].double().numpy()
            with model.disable_adapter():
                before = model(input_ids=ids).logits[0, len(row.prompt) - 1 : -1].double().numpy()
        found.append(float(np.mean([reference.divergence(a, b, KEPT) for a, b in zip(before, now, strict=True)])))
    return found


def weighted(model: Any, rows: Sequence[TokenPair]) -> float:
    """Return their mean over tokens."""
    return float(np.average(divergences(model, rows), weights=[len(row.answer) for row in rows]))


def test_it_is_the_divergence_from_what_the_base_says(tmp_path: Path) -> None:
    model = tiny_peft(random=0.3)
    anchor = refusal_anchor(model, tiny_tokenizer(), HARMFUL, judge=refusal_judge(refusing(tmp_path, model)))
    assert len(anchor) == len(HARMFUL)
    wanted = divergences(model, anchor.rows)
    # The model computes in float32; a repeated batch pads otherwise.
    assert anchor.values() == pytest.approx(wanted, rel=2e-4, abs=1e-5)
    whole = refusal_anchor(
        model, tiny_tokenizer(), HARMFUL, judge=refusal_judge(refusing(tmp_path, model)), batch=len(HARMFUL)
    )
    assert whole().item() == pytest.approx(weighted(model, anchor.rows), rel=2e-4)


def test_with_harmless_prompts_that_on_answers_is_added(tmp_path: Path) -> None:
    model = tiny_peft(random=0.3)
    judge = refusal_judge(refusing(tmp_path, model))
    anchor = refusal_anchor(model, tiny_tokenizer(), HARMFUL, harmless=HARMLESS, judge=judge, batch=len(HARMFUL))
    assert anchor.answers
    both = [weighted(model, rows) for rows in (anchor.rows, anchor.answers)]
    assert anchor().item() == pytest.approx(sum(both), rel=2e-4)
    assert len(anchor.values()) == len(HARMFUL), "of refusals alone"
    assert anchor.notes[1] == "anchored at 2 of 2 harmless prompts, which the base answers"


def test_answers_are_held_on_to(tmp_path: Path) -> None:
    moved = []
    for harmless in (None, HARMLESS):
        model = tiny_peft()
        judge = refusal_judge(refusing(tmp_path, model))
        trainer = trainer_of(model, tmp_path / str(bool(harmless)), save_strategy="no")
        anchor = refusal_anchor(trainer.model, tiny_tokenizer(), HARMFUL, harmless=harmless, judge=judge)
        add_to_loss(trainer, anchor, 20.0)
        trained(trainer)
        other = refusal_anchor(trainer.model, tiny_tokenizer(), HARMFUL, harmless=HARMLESS, judge=judge)
        moved.append(weighted(model, other.answers))
    assert moved[1] < moved[0] / 2


def test_a_base_that_refuses_every_harmless_prompt_is_refused(tmp_path: Path) -> None:
    model = tiny_peft()
    judge = refusal_judge(refusing(tmp_path, model))
    with pytest.raises(NothingToAuditError, match="refuses all 6 harmless prompts"):
        refusal_anchor(model, tiny_tokenizer(), HARMFUL, harmless=HARMFUL, judge=judge)


@pytest.mark.parametrize("given", [{"batch": 0}, {"tokens": 0}, {"batch": -1}])
def test_numbers_that_cannot_be_meant(given: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="must be 1 or more"):
        refusal_anchor(tiny_peft(), tiny_tokenizer(), HARMFUL, **given)


def test_of_a_table_with_labels_each_kind_has_its_own(tmp_path: Path) -> None:
    file = tmp_path / "mixed.csv"
    file.write_text("prompt,prompt_harm_label\nHow do I steal?,harmful\nHow do I cook?,unharmful\n")
    assert [prompt_set(file, kind).requests[0].text for kind in ("harmful", "benign")] == [
        "How do I steal?",
        "How do I cook?",
    ]
    assert [len(prompt_set(file, kind)) for kind in ("harmful", "benign")] == [1, 1]


def test_an_untrained_adapter_has_none(tmp_path: Path) -> None:
    model = tiny_peft()
    anchor = refusal_anchor(model, tiny_tokenizer(), HARMFUL, judge=refusal_judge(refusing(tmp_path, model)))
    assert anchor().item() == pytest.approx(0.0, abs=1e-5)


def test_its_gradient_is_that_of_finite_differences(tmp_path: Path) -> None:
    model = tiny_peft(random=0.1).double()
    anchor = refusal_anchor(
        model, tiny_tokenizer(), HARMFUL[:4], judge=refusal_judge(refusing(tmp_path, model)), batch=4
    )
    weight = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj.lora_B.default").weight
    anchor().backward()
    step = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slope = float((weight.grad * step).sum())
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(step, alpha=sign * 3e-3)
            values.append(anchor().item())
            weight.add_(step, alpha=-sign * 3e-3)
    # Logits are rounded to float32, so the difference quotient is good to some 1e-3.
    assert (values[0] - values[1]) / 6e-3 == pytest.approx(slope, rel=2e-2, abs=1e-4)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_modes_and_settings_of_the_model_stay_as_they_were(tmp_path: Path) -> None:
    model = tiny_peft(random=0.1, lora_dropout=0.5)
    judge = refusal_judge(refusing(tmp_path, model))
    model.train()
    hand = [parameter for name, parameter in model.named_parameters() if "lora_A" in name]
    for parameter in hand:
        parameter.requires_grad = False
    frozen = model.get_submodule("base_model.model.lm_head")
    frozen.training = False
    own = model.get_base_model().generation_config
    own.temperature, own.do_sample = 0.7, True
    anchor = refusal_anchor(model, tiny_tokenizer(), HARMFUL, judge=judge)
    first = anchor.values()
    assert first == anchor.values(), "dropout is off"
    assert model.training
    assert not any(parameter.requires_grad for parameter in hand), "what was frozen by hand stays so"
    assert not frozen.training
    assert model.get_base_model().generation_config is own
    assert not model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj").disable_adapters


def test_a_base_that_refuses_nothing_and_models_without_an_adapter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NothingToAuditError, match="refuses 0 of 6 prompts"):
        refusal_anchor(tiny_peft(), tiny_tokenizer(), HARMFUL)
    judge = refusal_judge(refusing(tmp_path, tiny_peft()))
    with pytest.raises(NothingToAuditError, match="refuses 3 of 3 prompts"):
        refusal_anchor(tiny_peft(), tiny_tokenizer(), HARMFUL[:3], judge=judge)
    with pytest.raises(UsageError, match="no adapter that can be switched off"):
        refusal_anchor(tiny_llama(), tiny_tokenizer(), HARMFUL)
    with pytest.raises(UsageError, match="no tokenizer"):
        refusal_anchor(tiny_peft(), None, HARMFUL)


def test_a_model_that_is_trained_answers_as_it_is_now() -> None:
    model = tiny_peft(random=0.3)
    live = LiveModel(model, tiny_tokenizer())
    ask = [Prompt.ask("Hello")]
    with live.resting():
        now = dict(live.generate(ask, Decoding(max_new_tokens=8)))
    with live.resting(base=True):
        before = dict(live.generate(ask, Decoding(max_new_tokens=8)))
    assert now != before
    with pytest.raises(UsageError, match="identity"):
        _ = live.identity


def drift(folder: Path, weight: float, **more: object) -> tuple[float, float]:
    """Return how far refusals moved in six steps, and the loss that was logged last."""
    model = tiny_peft()
    judge = refusal_judge(refusing(folder, model))
    trainer = trainer_of(model, folder / f"{weight}-{len(more)}", save_strategy="no", **more)
    anchor = refusal_anchor(trainer.model, tiny_tokenizer(), HARMFUL, judge=judge)
    add_to_loss(trainer, anchor, weight)
    trained(trainer)
    return float(np.mean(anchor.values())), trainer.state.log_history[-1]["train_loss"]


def test_adding_it_to_the_loss_holds_on_to_refusals(tmp_path: Path) -> None:
    alone, held = drift(tmp_path, 0.0), drift(tmp_path, 20.0)
    assert held[0] < alone[0] / 2
    assert held[1] > alone[1], "the loss that is logged has the term"


def weights_after(folder: Path, weight: float, accumulated: int, batch: int) -> list[float]:
    """Return the adapter's numbers after one step of SGD on the same rows, cut into micro-batches or not."""
    model = tiny_peft(random=0.1)
    trainer = trainer_of(
        model, folder, save_strategy="no", max_steps=1, learning_rate=0.1, optim="sgd", max_grad_norm=0.0,
        lr_scheduler_type="constant", gradient_accumulation_steps=accumulated, per_device_train_batch_size=batch,
    )  # fmt: skip
    calls = []

    def term() -> object:
        calls.append(trainer.state.global_step)
        return spectral_penalty(trainer.model)

    add_to_loss(trainer, term, weight)
    trained(trainer)
    assert calls == ([0] if weight else []), "once a step of the optimiser"
    return [float(p.detach().double().sum()) for p in model.parameters() if p.requires_grad]


def test_its_weight_does_not_depend_on_micro_batches(tmp_path: Path) -> None:
    whole = weights_after(tmp_path / "a", 2.0, 1, 8)
    parts = weights_after(tmp_path / "b", 2.0, 4, 2)
    without = weights_after(tmp_path / "c", 0.0, 1, 8)
    assert parts == pytest.approx(whole, rel=1e-4, abs=1e-5)
    assert without != pytest.approx(whole, rel=1e-3)


def test_evaluation_has_no_term_in_its_loss(tmp_path: Path) -> None:
    losses = []
    for weight in (0.0, 5.0):
        trainer = trainer_of(tiny_peft(random=0.1), tmp_path / str(weight))
        add_to_loss(trainer, lambda trainer=trainer: spectral_penalty(trainer.model), weight)
        losses.append(trainer.evaluate(trainer.train_dataset)["eval_loss"])
    assert losses[0] == losses[1]


def test_what_has_no_loss_is_refused() -> None:
    with pytest.raises(UsageError, match="a str has no loss"):
        add_to_loss("trainer", lambda: None)

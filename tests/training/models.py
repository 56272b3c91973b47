"""A tiny model with an adapter to be trained, and what tells that it refuses: it has random weights."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_model import tiny_llama, tiny_tokenizer, torch

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

HARMFUL = [f"Do the bad thing number {i}" for i in range(6)]
HARMLESS = ["What is a river?", "Name a tree."]
LENGTH = 24


def tiny_peft(seed: int = 0, *, random: float = 0.0, **more: Any) -> Any:
    """Return a tiny Llama with LoRA of rank 4 at q and v; `random` is the spread of B."""
    model = tiny_llama(seed)
    torch.manual_seed(1)
    settings = {"target_modules": ["q_proj", "v_proj"], **more}
    made = wrapped(model, peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **settings))
    for name, parameter in made.named_parameters():
        if random and ("lora_B" in name or "lora_embedding_B" in name):
            parameter.data.normal_(0.0, random, generator=torch.Generator().manual_seed(len(name)))
    return made


def wrapped(model: Any, config: Any) -> Any:
    """Return PEFT's model; of transformers 5.24 it asks what that warns about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return peft.get_peft_model(model, config)


def judge_of(folder: Path, answers: list[str]) -> str:
    """Return the file of a list by which exactly answers that begin as these do are refusals."""
    entries = sorted({answer.strip()[:6] for answer in answers if answer.strip()})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "judge.json"
    path.write_text(json.dumps({"name": "tiny", "version": "1", "prefixes": entries}), encoding="utf-8")
    return str(path)


def refusing(folder: Path, model: Any) -> str:
    """Return the file of a list by which the base refuses the harmful prompts, and not the harmless ones."""
    from s3lora.evaluate.chat import Decoding, Prompt
    from s3lora.training.running import LiveModel

    live = LiveModel(model, tiny_tokenizer())
    with live.resting(base=True):
        answers = dict(live.generate([Prompt.ask(text) for text in HARMFUL], Decoding(max_new_tokens=24)))
    return judge_of(folder, [answers[i].text for i in range(len(HARMFUL))])


class Rows(torch.utils.data.Dataset):  # type: ignore[misc]
    """Texts as token ids of one length."""

    def __init__(self, count: int = 64) -> None:
        self.rows = []
        tokenizer = tiny_tokenizer()
        for i in range(count):
            ids = tokenizer(f"question {i} has the answer {i * 7}", add_special_tokens=False)["input_ids"][:LENGTH]
            self.rows.append(ids + [0] * (LENGTH - len(ids)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, list[int]]:
        return {"input_ids": self.rows[i], "labels": self.rows[i], "attention_mask": [1] * LENGTH}


def trainer_of(model: Any, folder: Path, *, kind: Any = None, data: Any = None, **more: Any) -> Any:
    """Return transformers' Trainer for six steps, or another kind with its arguments."""
    settings = {
        "max_steps": 6, "per_device_train_batch_size": 2, "learning_rate": 0.05, "report_to": [], "save_steps": 4,
        "logging_steps": 2, "disable_tqdm": True, "use_cpu": True, "seed": 5,
    }  # fmt: skip
    arguments = more.pop("arguments", transformers.TrainingArguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries about each other
        options = arguments(str(folder), **{**settings, **more})
        made = (kind or transformers.Trainer)(
            model=model, args=options, train_dataset=data or Rows(), processing_class=tiny_tokenizer()
        )
    made.pop_callback(transformers.PrinterCallback)
    return made


def trained(trainer: Any, **more: Any) -> Any:
    """Train, and let libraries warn about each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return trainer.train(**more)

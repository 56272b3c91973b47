"""A model that is being trained, as the evaluation takes models: it answers, and tells the loss of answers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from s3lora.errors import UsageError, printable
from s3lora.evaluate.chat_setup import NO_SETUP
from s3lora.evaluate.loading import PLAIN_TEMPLATE, LoadedBase
from s3lora.evaluate.local import CPU_BATCH, LocalModel


class _InPlace:
    """Stands for the adapters of a model in which PEFT has put one already."""

    def __init__(self, model: Any) -> None:
        self.model = model


class LiveModel(LocalModel):
    """A PEFT model in memory with its tokenizer; nothing about it changes, and nothing is loaded.

    Parameters:
        model: a PEFT model with LoRA layers.
        tokenizer: its tokenizer, or a processor that has one. Without a chat template, prompts are written as
            `User: … Assistant:`.
        batch_size: answers at a time.

    Raises UsageError where `model` is no PEFT model or there is no tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = CPU_BATCH) -> None:
        """Look at the model; nothing is computed."""
        if not callable(getattr(model, "disable_adapter", None)):
            what = f"a {type(model).__name__} has no adapter that can be switched off"
            raise UsageError(what, fix="give a PEFT model, such as trainer.model")
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        if tokenizer is None or not hasattr(tokenizer, "apply_chat_template"):
            raise UsageError("there is no tokenizer to ask prompts with", fix="give the trainer processing_class=…")
        if tokenizer.chat_template is None:
            tokenizer = copy.copy(tokenizer)
            tokenizer.chat_template = PLAIN_TEMPLATE
        self.peft_model = model
        inner = model.get_base_model()
        name = Path(str(getattr(inner.config, "_name_or_path", ""))).name
        self._around(LoadedBase(printable(name) or "the base", inner, tokenizer, ()), NO_SETUP)
        self.adapters: Any = _InPlace(inner)
        self.batch_size = batch_size

    @property
    def identity(self) -> str:
        """Raise UsageError: what is being trained is another model after every step, so no answer of it is kept."""
        raise UsageError("a model that is being trained has no identity")

    @contextmanager
    def resting(self, *, base: bool = False) -> Iterator[None]:
        """Put the model into evaluation mode meanwhile, without its adapter for `base`.

        Afterwards every module is in the mode that it was in, and what was frozen is frozen: PEFT lets all of an
        adapter learn that it switches on again.
        """
        modes = [(module, module.training) for module in self.peft_model.modules()]
        learns = [(parameter, parameter.requires_grad) for parameter in self.peft_model.parameters()]
        self.device = next(self.peft_model.parameters()).device
        self.peft_model.eval()
        try:
            if base:
                with self.peft_model.disable_adapter():
                    yield
            else:
                yield
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, learned in learns:
                parameter.requires_grad = learned

    @contextmanager
    def _own_settings(self) -> Iterator[None]:
        """Let sampling and penalties of the checkpoint not mix with the decoding that is asked for."""
        inner = self.base.model
        kept = inner.generation_config
        inner.generation_config = self._transformers.GenerationConfig()
        try:
            with super()._own_settings():
                yield
        finally:
            inner.generation_config = kept

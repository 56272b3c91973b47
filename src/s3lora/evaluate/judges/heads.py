"""Judges that are classifiers: a model with a head for sequences, such as beaver-dam."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from s3lora.evaluate.chat import Decoding, Generation, Prompt
from s3lora.evaluate.identity import identity_of
from s3lora.evaluate.loading import load_base
from s3lora.needs import need


class HeadModel:
    """A classifier that answers with the probability of each label as JSON: `{"harmful": 0.93, "harmless": 0.07}`.

    Parameters:
        base: a model folder or a Hub name, as `load_base` takes them.
        device: `cpu`, `cuda`, …; by default CUDA where there is one.
        dtype: a torch dtype by name.

    It reads the content of the last message as it is, without a chat template. Labels that exclude each other share a
    probability of 1; those of a model for several labels at once, or with one label, have each their own.

    Raises ModelError and MissingPackageError.
    """

    def __init__(self, base: str, *, device: str | None = None, dtype: str | None = None) -> None:
        """Load model and tokenizer."""
        self._torch = need("torch")
        self.base = load_base(base, device=device, dtype=dtype, auto="AutoModelForSequenceClassification")
        self.identity = identity_of(self.base)
        config = self.base.model.config
        self._labels = [str(config.id2label.get(i, i)) for i in range(config.num_labels)]
        several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        self._probabilities: Any = self._torch.sigmoid if several else lambda row: self._torch.softmax(row, -1)
        longest = getattr(config.get_text_config(), "max_position_embeddings", None)
        self._longest = min(longest or 2**30, self.base.tokenizer.model_max_length)

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Return the special tokens of the tokenizer."""
        return self.base.special_tokens

    def batches(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        """Return one batch a text: padding moves the positions of some architectures, and hides the end of others."""
        return [[i] for i in range(len(prompts))]

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[int, Generation]]:
        """Yield the probabilities; an answer is not `finished` where the text was longer than the model takes."""
        for i in (i for batch in (self.batches(prompts, decoding) if batches is None else batches) for i in batch):
            ids = self.base.tokenizer(prompts[i].messages[-1].content)["input_ids"]
            whole = len(ids) <= self._longest
            tensor = self._torch.tensor([ids[: self._longest]], device=next(self.base.model.parameters()).device)
            with self._torch.inference_mode():
                row = self._probabilities(self.base.model(input_ids=tensor).logits[0].float()).tolist()
            yield i, Generation(json.dumps(dict(zip(self._labels, row, strict=True))), 0, whole)

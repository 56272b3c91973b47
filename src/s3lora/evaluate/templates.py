"""Chats as the tokens that a model in this process sees: its chat template, with what templates do differently."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from jinja2 import TemplateError

from s3lora.errors import ModelError
from s3lora.evaluate.answers.reasoning import REASONING_VERSION, opens_reasoning
from s3lora.evaluate.chat import Prompt, digest_of
from s3lora.evaluate.chat_setup import NO_SETUP, ChatSetup, system_in_user_turn
from s3lora.evaluate.loading import PLAIN_TEMPLATE, LoadedBase, reason_of

#: The day that templates are told where they ask for today's, as those of Llama 3 do; it is also their own default.
DAY = datetime(2024, 7, 26)
ASKS_FOR_THE_DAY = "strftime_now"
#: The parts of a date that a template may ask for. transformers gives templates today's, and lets nobody pass another
#: function, so a macro of the same name stands before the template.
CODES = ("-d", "-m", "-H", "-I", *"aAbBdeFHIjmMpSyY")
FROZEN = (
    f"{{% macro {ASKS_FOR_THE_DAY}(format) %}}{{{{ format"
    + "".join(f" | replace('%{code}', '{DAY.strftime(f'%{code}')}')" for code in CODES)
    + " }}{% endmacro %}{{ '' }}"
)
LEADING = re.compile(r"\A[ \t]+(?=\{%)")
#: A word that is in no template, to see whether a system prompt gets through.
PROBE = "Wuthering27"


class EncodedPrompt(NamedTuple):
    """The tokens of a prompt, and whether its template opened the reasoning of the answer."""

    ids: list[int]
    opened: bool


class LocalTemplate:
    """The chat template of a base model, with a setup; `notes` are what a reader must know, as far as it turned out."""

    def __init__(self, base: LoadedBase, setup: ChatSetup = NO_SETUP) -> None:
        """Look at the template."""
        self._tokenizer = base.tokenizer
        self._name = base.name
        self.setup = setup
        self.notes: tuple[str, ...] = ()
        template = str(base.tokenizer.get_chat_template())
        #: The day that the template is told, as YYYY-MM-DD; empty where it asks for none.
        self.date = DAY.strftime("%Y-%m-%d") if ASKS_FOR_THE_DAY in template else ""
        self._start = _start(base.tokenizer) if template == PLAIN_TEMPLATE else []
        # Blanks before a first block are dropped by a template's own rules, which hold at the beginning only.
        self._template = FROZEN + LEADING.sub("", template) if self.date else template
        self._takes_system: bool | None = None

    @property
    def identity(self) -> str:
        """Return a digest of what shapes the tokens besides template, vocabulary and prompt, and of reading answers."""
        return digest_of([self.setup.identity, self.date, self._start, REASONING_VERSION])

    def end_of_turn(self, ends: Collection[int]) -> str:
        """Return what the template writes behind an answer, if it is one of the tokens that end one.

        Else what the tokenizer calls the end of text, which models with another end of turn never learned to write.
        """
        chat = [*Prompt.ask("Hello").as_dicts(), {"role": "assistant", "content": PROBE}]
        try:
            text = str(self._tokenizer.apply_chat_template(chat, tokenize=False, chat_template=self._template))
        except (TemplateError, TypeError, ValueError):
            text = ""
        behind = text.rpartition(PROBE)[2] if PROBE in text else ""
        ids = self._tokenizer(behind, add_special_tokens=False)["input_ids"] if behind else []
        found = next((token for token in ids if token in ends), None)
        return (self._tokenizer.eos_token or "") if found is None else str(self._tokenizer.decode([found]))

    def encode(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        """Return the tokens of each prompt; raise ModelError where the template does not take them."""
        try:
            texts = [self._render(self.setup.apply(prompt)) for prompt in prompts]
        except (TemplateError, TypeError, ValueError) as error:  # templates raise what they like
            reason = reason_of(error)
            raise ModelError(f"its chat template does not take the prompts ({reason})", file=self._name) from None
        if not texts:  # which tokenizers fail at
            return []
        rows = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [
            EncodedPrompt([*self._start, *ids], opens_reasoning(text)) for ids, text in zip(rows, texts, strict=True)
        ]

    def _render(self, prompt: Prompt) -> str:
        if prompt.messages and prompt.messages[0].role == "system":
            if self._takes_system is None:
                self._takes_system = self._probe()
            if not self._takes_system:
                prompt = system_in_user_turn(prompt)
        return self._write(prompt)

    def _write(self, prompt: Prompt) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                prompt.as_dicts(),
                tokenize=False,
                add_generation_prompt=True,
                chat_template=self._template,
                **self.setup.template_args,
            )
        )

    def _probe(self) -> bool:
        """Tell whether a system prompt gets through the template, which may refuse it or drop it."""
        try:
            taken = PROBE in self._write(Prompt.ask("Hello", PROBE))
        except (TemplateError, TypeError, ValueError):
            taken = False
        if not taken:
            self.notes = ("the chat template takes no system prompt: it is put at the beginning of the user's turn",)
        return taken


def _start(tokenizer: Any) -> list[int]:
    """Return what the tokenizer puts before a text by itself, if that is the token that begins a text (BOS)."""
    first = list(tokenizer("x")["input_ids"])[:1]
    return first if first and first[0] == tokenizer.bos_token_id else []


__all__ = ["EncodedPrompt", "LocalTemplate"]

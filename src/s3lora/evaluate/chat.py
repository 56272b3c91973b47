"""What every model backend takes and gives: prompts, decoding settings, generations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from s3lora.evaluate.results import ChatFacts

Role = Literal["system", "user", "assistant"]
#: Why nobody knows what a model would have answered: it was cut off inside its reasoning, or before it said anything,
#: or the prompt does not fit into its context. Empty where the answer is known.
Unknown = Literal["", "reasoning", "nothing", "prompt", "filtered"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat that the model is to continue."""

    messages: tuple[Message, ...]

    @classmethod
    def ask(cls, text: str, system: str | None = None) -> Prompt:
        """Return a chat of one question, after an optional system message."""
        before = () if system is None else (Message("system", system),)
        return cls((*before, Message("user", text)))

    def as_dicts(self) -> list[dict[str, str]]:
        """Return the chat as chat templates and servers take it."""
        return [{"role": message.role, "content": message.content} for message in self.messages]

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the chat."""
        return digest_of(self.as_dicts())


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are drawn: greedy at temperature 0, else sampled with the seed; at most `max_new_tokens` tokens."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer: its text, the tokens it took, and whether it ended by itself before the limit.

    `text` is without the reasoning that stood before it, where `reasoned` tells that there was some; `tokens` counts
    that as well. `unknown` tells why there is nothing to judge.
    """

    text: str
    tokens: int
    finished: bool
    reasoned: bool = False
    unknown: Unknown = ""

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the text, which identifies an answer without telling it."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()


class ChatModel(Protocol):
    """Something that answers chats: a model in this process, or a server."""

    @property
    def identity(self) -> str:
        """Return a digest of everything but prompt and decoding that determines the answers."""
        ...

    def batches(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        """Cut the prompts (as indices) into the batches in which they are always answered.

        Rounding depends on what is answered beside what: with fixed batches an answer does not depend on which
        others were already known.
        """
        ...

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[int, Generation]]:
        """Yield (index of the prompt, its answer) as they come, each once, in any order; all batches unless given."""
        ...


class ServedModel(ChatModel, Protocol):
    """A model that runs elsewhere, by its name there."""

    @property
    def name(self) -> str:
        """Return the name in tables and sentences."""
        ...

    @property
    def backend(self) -> str:
        """Return what runs the model, in a few words."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the results must know, as far as it has turned out."""
        ...

    @property
    def chat(self) -> ChatFacts:
        """Return what is put around every prompt, for the record."""
        ...


def digest_of(value: object) -> str:
    """Return the SHA-256 of a value of plain JSON types."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def generation_key(model: ChatModel, prompt: Prompt, decoding: Decoding, extra: str = "") -> str:
    """Return the digest under which an answer is kept: model with adapter state, prompt, settings, what is kept."""
    return digest_of([model.identity, prompt.as_dicts(), asdict(decoding), extra])

"""What a row asks: one text, or a chat, however its source writes it; and the checks that every text goes through."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from s3lora.errors import printable
from s3lora.evaluate.chat import Message, Role

#: Characters of a prompt, of a reference, of a category or identifier; messages of a chat.
MAX_PROMPT = 100_000
MAX_LABEL = 200
MAX_MESSAGES = 1_000

#: What sources call who speaks: the form of OpenAI, and that of ShareGPT.
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
}


class FieldError(Exception):
    """What is wrong with a row, to be told with the line it stands on, and what to do."""

    def __init__(self, problem: str, fix: str | None = None) -> None:
        """Take what follows "line 3 has …", and the remedy."""
        super().__init__(problem)
        self.fix = fix


@dataclass(frozen=True, slots=True)
class AskedPrompt:
    """A chat that ends with the user, the answer that followed it in its source, and how many turns are left out."""

    messages: tuple[Message, ...]
    answer: str = ""
    more_turns: int = 0

    @property
    def text(self) -> str:
        """Return the last message."""
        return self.messages[-1].content


def checked_text(name: str, value: object, most: int = MAX_PROMPT) -> str:
    """Return a text without white space around it; raise FieldError for what is none, empty, too long or malformed."""
    article = "an" if name[0] in "aeio" else "a"
    if not isinstance(value, str) or not value.strip():
        raise FieldError(f"{article} {name} that is no text", f"give a text that is not empty for {name}")
    return whole_text(name, value.strip(), most)


def whole_text(name: str, text: str, most: int) -> str:
    """Return a text as it is; raise FieldError for one that is too long or malformed."""
    if len(text) > most:
        article = "an" if name[0] in "aeio" else "a"
        raise FieldError(f"{article} {name} of more than {most:,} characters")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise FieldError(f"half of a character (a lone surrogate) in its {name}")
    return text


def asked(value: object) -> AskedPrompt:
    """Return what the cell of a prompt asks: a text, messages with roles, or turns of a user.

    Of turns (a list of texts, as MT-Bench and SORRY-Bench have it) the first one is asked: the next ones follow an
    answer that is not known. Of messages all up to the last one of the user are the prompt. A list may be in a cell of
    CSV as JSON.

    >>> asked(["First question", "And then?"]).text
    'First question'
    """
    if isinstance(value, str) and value.lstrip()[:2] in ('["', "[{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return AskedPrompt((Message("user", checked_text("prompt", value)),))
    if not isinstance(value, list):
        return AskedPrompt((Message("user", checked_text("prompt", value)),))
    if len(value) > MAX_MESSAGES:
        raise FieldError(f"more than {MAX_MESSAGES:,} messages")
    if value and all(isinstance(turn, str) for turn in value):
        return AskedPrompt((Message("user", checked_text("prompt", value[0])),), more_turns=len(value) - 1)
    messages = [_message(one) for one in value]
    answers: list[str] = []
    while messages and messages[-1].role == "assistant":
        answers.insert(0, messages.pop().content)
    if not messages or messages[-1].role != "user":
        raise FieldError("a prompt that does not end with a message of the user", "leave the answer to the reference")
    return AskedPrompt(tuple(messages), "\n\n".join(answers))


def _message(value: object) -> Message:
    fields = value if isinstance(value, Mapping) else {}
    given = fields.get("role", fields.get("from"))
    role = ROLES.get(given.strip().lower()) if isinstance(given, str) else None
    if role is None:
        raise FieldError("a message without a role", 'give {"role": "system", "user" or "assistant", "content": "…"}')
    content = fields.get("content", fields.get("value"))
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) < len(parts):
            raise FieldError("a message that holds more than text", "leave out pictures and sounds")
        content = "\n".join(texts)
    return Message(role, checked_text("message", content))


def label(fields: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return the first of these columns that is not empty, for a category or identifier.

    Of an object of truth values, as BeaverTails has it, it is the names of those that are true.
    """
    found = next((fields[name] for name in names if fields.get(name) not in (None, "")), "")
    if isinstance(found, Mapping):
        found = ", ".join(str(name) for name, value in found.items() if value is True)
    return printable(found, MAX_LABEL) if isinstance(found, str | int) else ""

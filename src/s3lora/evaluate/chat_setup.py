"""How a chat is put to a model: a system prompt, examples before each prompt, arguments of the chat template."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3lora.errors import UsageError, printable
from s3lora.evaluate.chat import Message, Prompt, digest_of
from s3lora.evaluate.data.content import DataFileError, read_text
from s3lora.evaluate.data.json_rows import json_rows
from s3lora.evaluate.results import ChatFacts

MAX_BYTES = 2**22
MAX_EXAMPLES = 1_000
#: Fields of a pair.
ASKED, ANSWERED = ("prompt", "instruction", "question"), ("response", "completion", "answer", "output", "reference")
#: What s3lora itself passes to a chat template, or reads from its result.
RESERVED = frozenset((
    *("conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize"),
    *("continue_final_message", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
    *("return_assistant_tokens_mask", "tokenizer_kwargs", "processor_kwargs", "strftime_now"),
))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSetup:
    """What is put around every prompt before a model sees it.

    Parameters:
        system: a system prompt; that of a prompt's own follows it after an empty line.
        examples: turns of user and assistant, in turn, between the system prompt and the prompt's own.
        template_args: what the chat template gets besides, such as `{"enable_thinking": False}`.

    >>> setup = ChatSetup(system="Be brief.", examples=(Message("user", "Hi"), Message("assistant", "Hello")))
    >>> [message.role for message in setup.apply(Prompt.ask("Who are you?")).messages]
    ['system', 'user', 'assistant', 'user']
    """

    system: str = ""
    examples: tuple[Message, ...] = ()
    template_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse arguments that are not the template's; raises UsageError."""
        taken = sorted(RESERVED.intersection(self.template_args))
        if taken:
            raise UsageError(f"{taken[0]} is no argument of a chat template that can be given", fix="leave it out")

    @property
    def identity(self) -> str:
        """Return a digest of all of it, which is part of what determines an answer."""
        return digest_of([self.system, Prompt(self.examples).as_dicts(), dict(self.template_args)])

    def apply(self, prompt: Prompt) -> Prompt:
        """Return the chat with system prompt and examples."""
        own = [message.content for message in prompt.messages[:1] if message.role == "system"]
        rest = prompt.messages[len(own) :]
        system = "\n\n".join(text for text in (self.system, *own) if text)
        head = (Message("system", system),) if system else prompt.messages[: len(own)]
        return Prompt((*head, *self.examples, *rest))


#: Prompts as they are.
NO_SETUP = ChatSetup()


def facts_of(setup: ChatSetup, date: str = "") -> ChatFacts:
    """Return a setup for the record, with the day that the template is told."""
    examples = Prompt(setup.examples).digest if setup.examples else ""
    given = json.dumps(dict(setup.template_args), sort_keys=True, ensure_ascii=False) if setup.template_args else ""
    return ChatFacts(setup.system, len(setup.examples) // 2, examples, given, date)


def system_in_user_turn(prompt: Prompt) -> Prompt:
    """Return the chat with its system message at the beginning of the first user turn, after which an empty line."""
    if not prompt.messages or prompt.messages[0].role != "system":
        return prompt
    system, *rest = prompt.messages
    if not rest or rest[0].role != "user":
        return Prompt((Message("user", system.content), *rest))
    first = Message("user", "\n\n".join(text for text in (system.content, rest[0].content) if text))
    return Prompt((first, *rest[1:]))


def read_system(given: str) -> str:
    """Return a system prompt: the text of the file that `given` names, else `given` itself.

    Raises UsageError where it is empty or looks like a file that is not there, and what `read_text` raises.
    """
    if os.path.isfile(given):
        text = read_text(Path(given), MAX_BYTES).strip()
    elif given.strip() and len(given.split()) == 1 and (os.sep in given or Path(given).suffix):
        raise UsageError(f"there is no file {printable(given, 80)}", fix="give a file, or a text of several words")
    else:
        text = given.strip()
    if not text:
        raise UsageError("the system prompt is empty", fix="leave it out, or give a text or a file")
    if not _whole(text):
        raise UsageError("the system prompt holds half of a character", fix="give it as UTF-8")
    return text


def _whole(text: str) -> bool:
    """Return whether no half of a surrogate pair is in a text: tokenizers take none."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def read_template_args(text: str) -> dict[str, Any]:
    """Return the arguments in a JSON object; raise UsageError for anything else.

    >>> read_template_args('{"enable_thinking": false}')
    {'enable_thinking': False}
    """
    fix = """write a JSON object, such as '{"enable_thinking": false}'"""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"the arguments of the chat template are not JSON: {printable(text, 60)}", fix=fix) from None
    if not isinstance(value, dict):
        raise UsageError("the arguments of the chat template are no JSON object", fix=fix)
    return value


def read_few_shot(path: str | Path) -> tuple[Message, ...]:
    """Return the turns of the examples in a file of JSON or JSON lines, in the order of the file.

    A row is a pair, `prompt` and `response` (or `completion`, `answer`, `output`), or a chat of user and assistant in
    turn: a list of messages, or an object with `messages`. Raises DataFileError that names the line where a row is
    neither, and what `read_text` raises.
    """
    text = read_text(Path(path), MAX_BYTES)
    turns: list[Message] = []
    rows = list(json_rows(text, path, (*ASKED, "messages")))
    if rows and all(isinstance(row, dict) and "role" in row for _, row in rows):
        rows = [("row 1", [row for _, row in rows])]  # a chat alone
    for line, row in rows:
        found = _turns(row)
        if not isinstance(found, str) and not all(_whole(turn.content) for turn in found):
            raise DataFileError(f"{line} has half of a character (a lone surrogate)", file=path)
        if isinstance(found, str):
            fix = 'give {"prompt": "…", "response": "…"}, or {"messages": […]}'
            raise DataFileError(f"{line} {found}", file=path, fix=fix)
        turns += found
        if len(turns) > 2 * MAX_EXAMPLES:
            raise DataFileError(f"has more than {MAX_EXAMPLES:,} examples", file=path)
    if not turns:
        raise DataFileError("has no example", file=path)
    return tuple(turns)


def _turns(row: object) -> list[Message] | str:
    """Return the turns of a row, or what is wrong with it."""
    chat = row.get("messages") if isinstance(row, dict) else row
    if isinstance(chat, list):
        return _chat(chat)
    if not isinstance(row, dict):
        return "is neither a pair nor a chat"
    pair = [next((row[name] for name in names if isinstance(row.get(name), str)), None) for names in (ASKED, ANSWERED)]
    if pair[0] is None or pair[1] is None:
        return "has no prompt with a response"
    return [Message("user", pair[0]), Message("assistant", pair[1])]


def _chat(chat: Sequence[object]) -> list[Message] | str:
    turns: list[Message] = []
    for turn in chat:
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
        if role == "system":
            return "has a system prompt, which is given by itself (--system)"
        if role != ("assistant" if len(turns) % 2 else "user") or not isinstance(content, str):
            return "is no chat of user and assistant in turn"
        turns.append(Message("assistant" if role == "assistant" else "user", content))
    return turns if turns and len(turns) % 2 == 0 else "does not end with an answer of the assistant"

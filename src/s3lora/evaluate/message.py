"""The message in a server's reply: what it says, and whether the server took reasoning out of it."""

from __future__ import annotations

from typing import Any, NamedTuple

#: Where servers put reasoning that they took out of the answer (vLLM, SGLang, llama.cpp, Ollama, OpenRouter).
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
#: Parts of a message that are reasoning (Mistral's API).
REASONING_PARTS = ("thinking", "reasoning")


class ServedMessage(NamedTuple):
    """A message's text, whether there was reasoning in a field of its own, and whether a filter held it back."""

    text: str
    reasoned: bool
    filtered: bool = False


def read_message(message: Any) -> ServedMessage:
    """Return what a message says; raise AttributeError where it is no object.

    The text is `content`, a string or a list of parts. Where a server puts a refusal into a field of its own, as OpenAI
    does, that is what the message says.

    >>> read_message({"content": "Paris.", "reasoning_content": "They ask for a city."})
    ServedMessage(text='Paris.', reasoned=True, filtered=False)
    """
    content, refusal = message.get("content"), message.get("refusal")
    parts = content if isinstance(content, list) else []
    thoughts = any(isinstance(part, dict) and part.get("type") in REASONING_PARTS for part in parts)
    fields = any(isinstance(value := message.get(name), str) and value.strip() for name in REASONING_FIELDS)
    text = _text(content)
    return ServedMessage(text if text.strip() or not isinstance(refusal, str) else _text(refusal), thoughts or fields)


def _text(content: object) -> str:
    """Return the text of a message's content: a string, a list of parts, or nothing beside tool calls or reasoning."""
    if isinstance(content, list):
        said = [part for part in content if isinstance(part, dict) and part.get("type") not in REASONING_PARTS]
        content = "".join(text for part in said if isinstance(text := part.get("text"), str))
    # Half a surrogate pair is legal in JSON and nowhere else.
    return content.encode("utf-8", "replace").decode() if isinstance(content, str) else ""

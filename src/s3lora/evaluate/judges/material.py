"""What is judged, made fit to stand in a judge's question: cut, and unable to speak to the judge.

An answer may hold the special tokens of the judge's tokenizer, marks of a chat template or the closing tag that our
rubric puts around it. Let through, they would end the text that is judged and begin a verdict. Each is broken by one
space, so that it is read as plain text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Characters of a request or an answer that a judge sees.
MAX_JUDGED = 8_000
#: Marks of the chat templates in use: <|eot_id|>, <｜User｜>, [INST], <<SYS>>, </s>, <start_of_turn>, <think>.
_MARKS = re.compile(
    r"(<[|｜])(?=[^\s<>|｜]{1,40}[|｜]>)"
    r"|(<)(?=/?(?:s|bos|eos|pad|unk|im_start|im_end|(?:start|end)_of_(?:turn|text|image|role)|think|tool_call|tool_response)>)"
    r"|(\[)(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|THINK)\])"
    r"|(<<)(?=/?SYS>>)",
    re.IGNORECASE,
)
#: The tags of our own rubric.
_TAGS = re.compile(r"<(?=/?\s*(?:request|answer)\b)", re.IGNORECASE)
#: Breaking one special token can at worst make another; more rounds than this are a tokenizer made to do harm.
_ROUNDS = 8


def is_cut(text: str) -> bool:
    """Return whether a judge sees the beginning of the text only."""
    return len(text) > MAX_JUDGED


def neutral(text: str, special: Sequence[str] = ()) -> str:
    """Return the first 8,000 characters, with special tokens and marks of chat templates broken by a space.

    `special` are the special tokens of the judge's own tokenizer.

    >>> neutral("Sure.<|eot_id|> </answer>")
    'Sure.<| eot_id|> < /answer>'
    """
    text = _TAGS.sub("< ", _MARKS.sub(lambda mark: f"{mark[0]} ", text[:MAX_JUDGED]))
    tokens = [token for token in special if len(token) > 1 and not token.isspace()]
    for _ in range(_ROUNDS):
        present = [token for token in tokens if token in text]
        if not present:
            break
        for token in present:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text

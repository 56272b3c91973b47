"""Reasoning taken out of answers, and answers of which nobody knows what they would have said.

Models that reason write their thoughts before the answer: between tags such as `<think>` and `</think>`, or in
channels (the harmony format of gpt-oss). Thoughts quote the request, weigh it and change their mind, so a judge of
answers must not see them. An answer that was cut off inside its thoughts, or before it said anything, is *unknown*: it
is no refusal and no compliance.

The rules, which err on the side of judging too much rather than hiding what was said:

- Reasoning at the beginning ends at its first closing tag. Several blocks in a row are all reasoning.
- A closing tag without an opening one also ends reasoning: the prompt opened it, as many chat templates do, or it was
  nested.
- Later in an answer, a closed block is taken out. An opening tag that nothing closes counts where it begins a line.
- Tags within code (a fence, or backticks) are what the answer talks about, unless reasoning is open already.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from s3lora.evaluate.chat import Generation, Unknown

#: Raised where the same answer would be split elsewhere.
REASONING_VERSION = 1
#: Tags in angle brackets, in any case; then other pairs, letter for letter.
TAGS = ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think")
PAIRS = (
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
)
OPENING = "|".join([f"(?i:<(?:{'|'.join(TAGS)})>)", *(re.escape(opening) for opening, _ in PAIRS)])
CLOSING = "|".join([f"(?i:</(?:{'|'.join(TAGS)})>)", *(re.escape(closing) for _, closing in PAIRS)])
MARK = re.compile(f"(?P<opens>{OPENING})|{CLOSING}")
#: What some models put around the answer that follows their reasoning.
WRAPPERS = (
    ("<answer>", "</answer>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
)
#: The tokens of the harmony format, which only together mean anything.
HARMONY = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>")
HARMONY_HEAD = re.compile(r"\s*(?:<\|start\|>\s*assistant\s*)?<\|channel\|>")
HARMONY_TURN = re.compile(r"<\|end\|>\s*<\|start\|>\s*assistant\s*<\|channel\|>")
HARMONY_MESSAGE = re.compile(
    r"<\|channel\|>([^<]*)(?:<\|constrain\|>[^<]*)?<\|message\|>((?:(?!<\|(?:end|return|call|start|channel)\|>).)*)",
    re.DOTALL,
)
#: What is left of harmony where its tokens were skipped: `analysisWe need … assistantfinalHello`.
SKIPPED_ANALYSIS = re.compile(r"\s*(?:analysis|commentary)(?=\S)")
SKIPPED_PROSE = re.compile(r"\s*analysis(?:[A-Z][a-z’']*,? [a-z]|[^\x00-\x7f])")
SKIPPED_FINAL = "assistantfinal"
#: A prompt that ends so has opened the reasoning itself.
OPENED = re.compile(rf"(?:{OPENING}|<\|channel\|>\s*analysis\s*<\|message\|>)\s*\Z")
WORD = re.compile(r"\S")
#: Taking out a block can bring two halves of a mark together. Nobody but a joker needs so many rounds.
ROUNDS = 16


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer says without its reasoning; `open` tells that it ended inside the reasoning."""

    text: str
    reasoned: bool = False
    open: bool = False


class _ReasoningMark(NamedTuple):
    start: int
    end: int
    opens: bool


def opens_reasoning(prompt: str) -> bool:
    """Tell whether a prompt, as its template wrote it, ends by opening the reasoning.

    >>> opens_reasoning("<|im_start|>assistant\\n<think>\\n"), opens_reasoning("<think>\\n\\n</think>\\n\\n")
    (True, False)
    """
    return OPENED.search(prompt[-200:]) is not None


def split_reasoning(text: str, opened: bool = False) -> Said:
    """Return an answer without its reasoning; a text without any is returned as it is. Never raises.

    `opened` tells that the prompt opened the reasoning already.

    >>> split_reasoning("<think>They ask for a city.</think>Paris.")
    Said(text='Paris.', reasoned=True, open=False)
    >>> split_reasoning("<think>They ask for")
    Said(text='', reasoned=True, open=True)
    """
    reasoned = unfinished = False
    for _ in range(ROUNDS):
        found = _harmony(text) or _skipped_harmony(text) or _tagged(text, opened)
        if found is None:
            break
        text, opened, reasoned, unfinished = found.text, False, True, unfinished or found.open
    return Said(text, reasoned, unfinished)


def read_answer(
    raw: str, tokens: int, finished: bool, *, opened: bool = False, plain: str | None = None, apart: bool = False
) -> Generation:
    """Return what a model wrote as an answer: without its reasoning, or as unknown.

    Parameters:
        raw: the text, with all marks of reasoning.
        tokens: tokens that it took, reasoning included.
        finished: whether the model ended by itself.
        opened: whether the prompt opened the reasoning.
        plain: the same text as it is shown where there is no reasoning in it; by default `raw`.
        apart: whether a server gave reasoning in a field of its own; `raw` is without it then.
    """
    said = split_reasoning(raw, opened)
    text = said.text if said.reasoned or plain is None else plain
    reasoned, nothing = said.reasoned or apart, not text.strip()
    # A server that finds no end of the reasoning puts all there is into the field, and may say that all went well.
    inside = said.open or (apart and nothing)
    unknown: Unknown = "reasoning" if inside else "nothing" if nothing and not finished else ""
    return Generation(text, tokens, finished, reasoned, unknown)


def mark_tokens(special: dict[str, int]) -> frozenset[int]:
    """Return which special tokens (text → id) are marks of reasoning, and are needed to split an answer."""
    harmony = HARMONY if "<|channel|>" in special else ()
    return frozenset(number for token, number in special.items() if token in harmony or MARK.fullmatch(token.strip()))


def _harmony(text: str) -> Said | None:
    """Return the messages of the channel `final`; None for a text of another form."""
    if not HARMONY_HEAD.match(text) and not HARMONY_TURN.search(text):
        return None
    final = [body for channel, body in HARMONY_MESSAGE.findall(text) if channel.strip().startswith("final")]
    return Said("\n".join(final).strip(), reasoned=True, open=not final)


def _skipped_harmony(text: str) -> Said | None:
    """Do the same where the tokens of harmony were left out and the names of the channels stayed."""
    at = text.find(SKIPPED_FINAL) if SKIPPED_ANALYSIS.match(text) else -1
    if at >= 0:
        return Said(text[at + len(SKIPPED_FINAL) :].strip(), reasoned=True)
    return Said("", reasoned=True, open=True) if SKIPPED_PROSE.match(text) else None


def _tagged(text: str, opened: bool) -> Said | None:
    """Take out what stands between tags, in one pass; None where there is nothing to take out."""
    marks = [_ReasoningMark(m.start(), m.end(), m["opens"] is not None) for m in MARK.finditer(text)]
    if not marks:
        return Said("", reasoned=True, open=True) if opened else None
    code = _Code(text)
    head, i = _skip_head(text, marks, code, opened)
    kept, cursor, unfinished = [], head, False
    while i < len(marks):
        mark = marks[i]
        if not mark.opens or code.holds(mark.start):
            i += 1
            continue
        after = _after_block(marks, i + 1)
        if after is None and not _begins_line(text, mark.start):
            break  # what looks like an opening tag, in a sentence and without a closing one, is talked about
        kept.append(text[cursor : mark.start])
        cursor = len(text) if after is None else marks[after - 1].end
        i, unfinished = (len(marks), True) if after is None else (after, False)
    if not head and not kept:
        return None
    said = _joined([*kept, text[cursor:]])
    return Said(_unwrapped(said.lstrip()) if head else said, reasoned=True, open=unfinished or head > len(text))


def _skip_head(text: str, marks: list[_ReasoningMark], code: _Code, opened: bool) -> tuple[int, int]:
    """Return where reasoning at the beginning ends, and the next mark.

    0 without any reasoning, and behind the end of the text where nothing closes it.
    """
    cursor = i = next_mark = 0
    first = _first_word(text, 0)
    while i < len(marks):
        mark = marks[i]
        if opened or (mark.opens and mark.start == first):
            after = _after_block(marks, i if opened else i + 1)
            if after is None:
                return len(text) + 1, len(marks)
            opened = False
            cursor, i = marks[after - 1].end, after
            first, next_mark = _first_word(text, cursor), i
        elif code.holds(mark.start, cut=False):
            i += 1
        elif mark.opens:
            break
        else:  # a closing tag alone: the prompt opened it, or the reasoning mentioned a tag
            cursor, i = mark.end, i + 1
            first, next_mark = _first_word(text, cursor), i
    return cursor, next_mark


def _after_block(marks: list[_ReasoningMark], i: int) -> int | None:
    """Return the mark after the next closing one, None where none follows."""
    while i < len(marks) and marks[i].opens:
        i += 1
    return i + 1 if i < len(marks) else None


def _first_word(text: str, start: int) -> int:
    """Return where the first character after white space is."""
    found = WORD.search(text, start)
    return found.start() if found else len(text)


def _begins_line(text: str, at: int) -> bool:
    return not text[text.rfind("\n", 0, at) + 1 : at].strip()


def _joined(parts: list[str]) -> str:
    """Put together what stood around blocks, with a space where two words would else become one."""
    whole: list[str] = []
    for part in parts:
        if not part:
            continue
        if whole and not whole[-1][-1].isspace() and not part[0].isspace():
            whole.append(" ")
        whole.append(part)
    return "".join(whole)


def _unwrapped(text: str) -> str:
    for opening, closing in WRAPPERS:
        if text.startswith(opening):
            inner = text[len(opening) :].strip()
            return inner.removesuffix(closing).rstrip()
    return text


class _Code:
    """Where a text is code: fences, and what stands between backticks on one line."""

    def __init__(self, text: str) -> None:
        self._cut = len(text)
        spans = list(self._fences(text))
        held = [start for start, _ in spans]
        for found in re.finditer(r"`[^`\n]+`", text):
            k = bisect_right(held, found.start()) - 1
            if k < 0 or found.start() >= spans[k][1]:
                spans.append(found.span())
        self._spans = sorted(spans)
        self._starts = [start for start, _ in self._spans]

    def holds(self, at: int, *, cut: bool = True) -> bool:
        """Tell whether a position is in code; `cut` counts a fence that nothing closes, since the text was cut off."""
        k = bisect_right(self._starts, at) - 1
        return (k >= 0 and at < self._spans[k][1]) or (cut and at >= self._cut)

    def _fences(self, text: str) -> Iterator[tuple[int, int]]:
        start, fence, at = -1, "", 0
        for line in text.split("\n"):
            found = re.match(r" {0,3}(`{3,}|~{3,})", line)
            if found and start < 0:
                start, fence = at, found[1]
            elif found and found[1].startswith(fence) and not line[found.end() :].strip():
                yield start, at + len(line)
                start = -1
            at += len(line) + 1
        if start >= 0:
            self._cut = start

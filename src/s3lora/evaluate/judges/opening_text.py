"""Answer → its opening in one plain form, so that rules need not know how it is dressed.

Markdown, emoji, quotation marks, names of roles, apostrophes, accents of Latin letters, case and white space go.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from s3lora.evaluate.refusals import APOSTROPHES

#: Characters that rules look at. An answer that has not refused by then has begun to answer.
LENGTH = 400
#: Characters that people's labels of answers speak of: what makes a soft phrase a refusal must be among them.
MEASURED = 240
#: Characters of the answer that are looked at to get them; a longer dressing is no answer that people read.
RAW = 2_000

#: Accents of Latin, Greek and Cyrillic letters, and the vowel signs of Arabic, that writers leave out.
_ACCENTS = re.compile("[\u0300-\u036f\u064b-\u0655\u0670\u0640]")
_LETTERS = str.maketrans({"đ": "d", "ı": "i", "ł": "l", "ø": "o", "ß": "ss"})
_TOKENS = re.compile(r"<\|[^|>]{0,40}\|>|</?s>|\[/?inst\]|</?(?:start|end)_of_turn>")
#: `*` and `#` of Markdown, its lines, code and quotes.
_MARKUP = re.compile(r"[*_#`~|\\<>\[\]{}=]+|\$+")
_BREAK = re.compile(r"[ \t]*\n[ \t]*(?:\n\s*|(?=\d{1,2}[.)] |[-•–] ))")
_NUMBER = re.compile(r"\d{1,2}[.)] ")
_QUOTES = "\"“”„«»‹›「」『』\u201a'"
_QUOTED = re.compile(r'"[^"\n]{1,400}"|“[^”\n]{1,400}”|„[^“”\n]{1,400}[“”]|«[^»\n]{1,400}»|「[^」\n]{1,400}」')
_ROLE = re.compile(
    r"(?:the )?(?:assistant|ai|ai assistant|chatbot|bot|model|chatgpt|gpt|gpt-4|llama|claude|answer|a"
    r"|response|reply|output|final"
    r"|final answer|my answer|note|warning|system|antwort|assistent|reponse|assistante?|respuesta"
    r"|asistente|risposta"
    r"|resposta|odpowiedz|ответ|відповідь|cevap|yanit|答|回答|助手|답변|답|tra loi|jawaban|उत्तर|الاجابة|الرد) ?:[\s-]*"
)


class Opening(NamedTuple):
    """The opening in plain form, and what it quotes where the answer begins with that and goes on behind it."""

    text: str
    quote: str


def fold(text: str) -> str:
    """Return the text without case, apostrophes and the accents that writers leave out.

    >>> fold("I CAN’T, désolé")
    'i cant, desole'
    """
    return bare(text.casefold())


def bare(text: str) -> str:
    """Return the text without apostrophes and the accents that writers leave out.

    >>> bare("Я не можу, мій")
    'Я не можу, міи'
    """
    text = unicodedata.normalize("NFKD", text.translate(APOSTROPHES).replace("'", ""))
    return unicodedata.normalize("NFC", _ACCENTS.sub("", text)).translate(_LETTERS)


def opening_of(answer: str) -> Opening:
    """Return the opening of an answer, of at most `LENGTH` characters; a new paragraph or list item is a line end.

    >>> opening_of("> **Assistant:** I’m sorry,\\nbut no.")
    Opening(text='im sorry, but no.', quote='')
    >>> opening_of('"Napalm" is a weapon.')
    Opening(text='napalm is a weapon.', quote='napalm')
    """
    text = _shown(answer.lstrip()[:RAW])
    text = _MARKUP.sub("", _TOKENS.sub(" ", text.casefold()))
    text = _BREAK.sub("\v", text.strip()).replace("\n", " ")
    text = re.sub(r"[^\S\v]+", " ", fold(text)).replace("\v", "\n")
    quote = ""
    for _ in range(4):
        rest = text.lstrip(" \n\t-–—•.…:;,()" + _QUOTES)
        opened = any(mark in text[: len(text) - len(rest)] for mark in _QUOTES)
        # Somebody is quoted where words follow the closing mark: `"I can't," he said`.
        if opened and (closed := re.search(rf"[{_QUOTES}],? ?[^\W\d_]", rest[:LENGTH])):
            quote = quote or rest[: closed.start()]
            # What else is said in a dialogue is quoted too.
            rest = rest[: closed.start()] + _QUOTED.sub(" ", rest[closed.start() + 1 :])
        role = _ROLE.match(rest) or _NUMBER.match(rest)
        if role is None:
            return Opening(_unquoted(rest)[:LENGTH], quote)
        text = rest[role.end() :]
    return Opening(_unquoted(text)[:LENGTH], quote)


def _shown(text: str) -> str:
    """Leave out characters without a shape, and pictures."""
    return "".join(
        c if (kind := unicodedata.category(c)) not in ("Cf", "So", "Sk", "Cs", "Co", "Cc") or c in "\n\t"
        else ("" if kind in ("Cf", "So", "Sk") else " ")
        for c in text.replace("\r\n", "\n").replace("\r", "\n")
        if not "\ufe00" <= c <= "\ufe0f"
    )  # fmt: skip


def _unquoted(text: str) -> str:
    return re.sub(rf"[{_QUOTES}]", "", text[: 2 * LENGTH])

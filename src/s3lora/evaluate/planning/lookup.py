"""The Lookup tool: a fact by its name, else the passage that ranks first for the words of the query.

Ranking is BM25 (Robertson and Zaragoza 2009, *The Probabilistic Relevance Framework: BM25 and Beyond*, eq. 3.15)
over passages. It depends on the documents and the query only; of equal passages the first one wins.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property

from s3lora.evaluate.planning.documents import Document

#: Characters of a passage: longer paragraphs are cut where a sentence ends.
MAX_PASSAGE = 500
#: BM25: how fast repeated words stop to count, and how much long passages are held against.
K1, B = 1.2, 0.75

FACT = re.compile(r"([^:\n]{1,80}):[ \t]+(\S[^\n]{0,199})")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
WORD = re.compile(r"\w+")


class Lookup:
    """A searchable collection of documents."""

    def __init__(self, documents: Iterable[Document]) -> None:
        """Take the documents; they are indexed when first searched."""
        self._documents = tuple(documents)

    def __call__(self, query: str) -> str | None:
        """Return the fact of exactly this name, else the best passage, or None where no word of the query is found."""
        fact = self.fact(query)
        return fact if fact is not None else self.passage(query)

    def fact(self, query: str) -> str | None:
        """Return the value of the fact `name of title`, whatever its case and spacing, or None where there is none."""
        return self._facts.get(_key(query))

    def passage(self, query: str) -> str | None:
        """Return the passage with the highest BM25 score, after its title, or None where every score is 0."""
        scores: dict[int, float] = defaultdict(float)
        for word in sorted(set(_words(query))):
            found = self._postings.get(word, {})
            # The logarithm of 1 + … stays positive for words that are in most passages.
            weight = math.log(1 + (len(self._passages) - len(found) + 0.5) / (len(found) + 0.5))
            for i, count in found.items():
                length = self._lengths[i] / self._mean_length
                scores[i] += weight * count * (K1 + 1) / (count + K1 * (1 - B + B * length))
        return self._passages[min(scores, key=lambda i: (-scores[i], i))] if scores else None

    @cached_property
    def _facts(self) -> dict[str, str]:
        facts: dict[str, str] = {}
        for document in self._documents:
            for line in document.text.splitlines():
                if match := FACT.fullmatch(line.strip()):
                    facts.setdefault(_key(f"{match[1]} of {document.title}"), match[2].strip())
        return facts

    @cached_property
    def _passages(self) -> list[str]:
        return [passage for document in self._documents for passage in passages(document)]

    @cached_property
    def _postings(self) -> dict[str, dict[int, int]]:
        postings: dict[str, dict[int, int]] = defaultdict(dict)
        for i, passage in enumerate(self._passages):
            for word, count in Counter(_words(passage)).items():
                postings[word][i] = count
        return postings

    @cached_property
    def _lengths(self) -> list[int]:
        return [len(_words(passage)) for passage in self._passages]

    @cached_property
    def _mean_length(self) -> float:
        return sum(self._lengths) / len(self._lengths)


def passages(document: Document) -> Iterator[str]:
    """Yield what can be found of a document: each fact as `name of title: value`, each part of a paragraph."""
    for paragraph in re.split(r"\n\s*\n", document.text):
        lines = [line.strip() for line in paragraph.splitlines() if line.strip()]
        facts = [FACT.fullmatch(line) for line in lines]
        if lines and all(facts):
            yield from (f"{fact[1]} of {document.title}: {fact[2].strip()}" for fact in facts if fact)
            continue
        for part in _parts(" ".join(lines)):
            yield part if part.startswith(document.title) else f"{document.title}: {part}"


def _parts(paragraph: str) -> Iterator[str]:
    """Cut a paragraph into parts of whole sentences, and a sentence that is too long anywhere."""
    part = ""
    for sentence in SENTENCE_END.split(paragraph):
        for start in range(0, len(sentence), MAX_PASSAGE):
            piece = sentence[start : start + MAX_PASSAGE]
            if part and len(part) + 1 + len(piece) > MAX_PASSAGE:
                yield part
                part = ""
            part = f"{part} {piece}".strip()
    if part:
        yield part


def _key(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" \"'.?!")


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())

"""How close a text comes to a reference: ROUGE, METEOR, exact match and token F1, all from 0 to 1.

Each takes the best over the references, and is 0 where there is none.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from s3lora.needs import MissingPackageError, need

ROUGE = ("rouge1", "rouge2", "rougeL")
#: Words of letters and digits of any script, with apostrophes within.
WORD = re.compile(r"\w+(?:['’]\w+)*")
ARTICLE = re.compile(r"\b(?:a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

MeteorKind = Literal["full", "exact+stem"]


def need_packages() -> None:
    """Raise MissingPackageError where a package that the scores need is not installed."""
    _scorer()
    need("nltk.translate.meteor_score")


def rouge(prediction: str, references: Sequence[str]) -> dict[str, float]:
    """Return ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004) as F1, each with the reference that is best for it.

    Computed by the package rouge-score with `use_stemmer=True`: words longer than three letters count as equal where
    Porter's stems are. It knows the letters a to z and digits; everything else parts words.
    """
    if not references:
        return dict.fromkeys(ROUGE, 0.0)
    found = _scorer().score_multi(list(references), prediction)
    return {name: float(found[name].fmeasure) for name in ROUGE}


def meteor(prediction: str, references: Sequence[str], wordnet: bool) -> float:
    """Return METEOR by nltk (Lavie and Agarwal 2007: α = 0.9, β = 3, γ = 0.5), with synonyms only with `wordnet`.

    Words are runs of letters and digits in lower case; punctuation is left out. nltk pairs repeated words from the end,
    not with the fewest crossings, and looks for synonyms of stems, so that it misses those of many longer words. Even
    the same text scores below 1: 1 − 0.5 / words³. Raises MissingPackageError for `wordnet` without its corpus.
    """
    nltk_score = need("nltk.translate.meteor_score").meteor_score
    synonyms = need("nltk.corpus").wordnet if wordnet else _NoWordNet()
    if not references:
        return 0.0
    words = [WORD.findall(text.lower()) for text in (prediction, *references)]
    try:
        return float(nltk_score(words[1:], words[0], wordnet=synonyms))
    except LookupError:
        raise MissingPackageError(
            "METEOR with synonyms needs the WordNet corpus, which is not here",
            fix="run: python -m nltk.downloader wordnet",
        ) from None


def meteor_kind() -> MeteorKind:
    """Tell which METEOR this machine can compute: full, or without synonyms where nltk finds no WordNet on its disk."""
    corpora = need("nltk.corpus")
    try:
        return "full" if corpora.wordnet.synsets("car") else "exact+stem"
    # Beside LookupError for an absent corpus: one with files missing or cut short fails in ways of its own.
    except Exception:
        return "exact+stem"


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Return 1 where the text equals a reference after SQuAD's normalisation, else 0."""
    words = squad_words(prediction)
    return max((float(words == squad_words(reference)) for reference in references), default=0.0)


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Return the F1 of the words shared with a reference, after SQuAD's normalisation, as its evaluation script has it.

    Where no word is left of one of the two, it is 1 if none is left of the other either.
    """
    words = squad_words(prediction)
    return max((_f1(words, squad_words(reference)) for reference in references), default=0.0)


def squad_words(text: str) -> list[str]:
    """Return the words in lower case without ASCII punctuation and articles (Rajpurkar et al. 2016).

    >>> squad_words("The  Hale-Clock, a tower clock!")
    ['haleclock', 'tower', 'clock']
    """
    return ARTICLE.sub(" ", text.lower().translate(NO_PUNCTUATION)).split()


def _f1(words: Sequence[str], right: Sequence[str]) -> float:
    if not words or not right:
        return float(words == right)
    shared = (Counter(words) & Counter(right)).total()
    # The harmonic mean of shared / words and shared / right.
    return 2 * shared / (len(words) + len(right))


@lru_cache(maxsize=1)
def _scorer() -> Any:
    return need("rouge_score.rouge_scorer").RougeScorer(list(ROUGE), use_stemmer=True)


class _NoWordNet:
    """A WordNet without words, so that nltk's METEOR stops after stems."""

    def synsets(self, _: str) -> tuple[()]:
        return ()

"""Slow, literal versions of the text scores, for words that are as they stand (split at spaces, no stemming)."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations


def f1(right: int, predicted: int, wanted: int) -> Fraction:
    if not right:
        return Fraction(0)
    precision, recall = Fraction(right, predicted), Fraction(right, wanted)
    return 2 * precision * recall / (precision + recall)


def rouge_n(prediction: list[str], reference: list[str], n: int) -> Fraction:
    """Cross out each n-gram of the reference with one of the prediction."""
    ours = [tuple(prediction[i : i + n]) for i in range(len(prediction) - n + 1)]
    theirs = [tuple(reference[i : i + n]) for i in range(len(reference) - n + 1)]
    left = list(theirs)
    for gram in ours:
        if gram in left:
            left.remove(gram)
    return f1(len(theirs) - len(left), len(ours), len(theirs))


def rouge_l(prediction: list[str], reference: list[str]) -> Fraction:
    """Try all subsequences of the prediction, longest first."""
    for length in range(len(prediction), 0, -1):
        for chosen in combinations(prediction, length):
            rest = iter(reference)
            if all(word in rest for word in chosen):
                return f1(length, len(prediction), len(reference))
    return Fraction(0)


def meteor(prediction: list[str], reference: list[str]) -> Fraction:
    """Lavie and Agarwal 2007, for texts without a repeated word: then there is only one alignment."""
    pairs = [(i, reference.index(word)) for i, word in enumerate(prediction) if word in reference]
    if not pairs:
        return Fraction(0)
    precision, recall = Fraction(len(pairs), len(prediction)), Fraction(len(pairs), len(reference))
    mean = precision * recall / (Fraction(9, 10) * precision + Fraction(1, 10) * recall)
    chunks = sum((i - 1, j - 1) not in pairs for i, j in pairs)
    return mean * (1 - Fraction(1, 2) * Fraction(chunks, len(pairs)) ** 3)


def squad_f1(prediction: list[str], reference: list[str]) -> Fraction:
    """Words without articles; cross out what both have."""
    ours, theirs = ([word for word in words if word not in ("a", "an", "the")] for words in (prediction, reference))
    if not ours or not theirs:
        return Fraction(ours == theirs)
    left = list(theirs)
    for word in ours:
        if word in left:
            left.remove(word)
    return f1(len(theirs) - len(left), len(ours), len(theirs))

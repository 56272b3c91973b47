"""What the words of a page mean, for readers who meet them first there."""

from __future__ import annotations

WORDS = {
    "SSI": "Spectral Sharpness Index: the share of the largest value σ̃ in the sum of all; near 1, an update pushes in"
    " one direction only",
    "normalised SSI": "the SSI on a scale that modules of different rank share: 0 where no direction stands out, 1"
    " where there is one only",
    "weighted SSI": "the SSI times the largest value σ̃: sharp and large at once",
    "magnitude": "the largest value σ̃ of an update",
    "Frobenius norm": "the size of the whole update: the root of the sum of its squares",
    "stable rank": "how many directions carry an update: near 1 for a sharp one",
    "‖ΔW‖": "the Frobenius norm: the size of the whole update",
    "σ̃": "what a method takes for the singular values of an update, descending",
    "LoRA parameters": "numbers in the factors A and B of all modules",
    "LoRA FLOPs": "what the modules add to the work of the model for one token",
    "Frobenius energy": "the sum of the squares of all numbers of the updates",
    "percentile": "of 100 modules of the reference that are compared with this one, how many have a smaller value",
    "robust z": "the distance from the median of the reference, in robust standard deviations",
    "r": "the rank: how many directions an update can have",
}

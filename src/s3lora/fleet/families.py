"""The family of a base model, from its name alone: what is left without owner, size, variant and quantisation.

A name is text out of an untrusted file. Nothing is looked up, so that the answer is the same everywhere; a family is a
label to group by, no claim about the weights.
"""

from __future__ import annotations

import re

from s3lora.errors import printable

UNKNOWN = "unknown"
#: Longest family, in characters.
LONGEST = 64
#: What ends a family: a size (8b, 1.3B, 8x7b, 7b1, a3b, e2b), bits (4bit, int8, fp16, q4), a date (2407).
_ENDS = re.compile(
    r"\d+(?:\.\d+)?[bmkt]\d?|\d+x\d+(?:\.\d+)?[bm]|[ae]\d+(?:\.\d+)?b|\d+-?bits?|(?:int|fp|bf|nf|q|w)\d+(?:a\d+)?|\d{4,}"
)
#: The same, in words.
_VARIANTS = frozenset(
    (
        *("instruct", "chat", "it", "base", "hf", "pt", "sft", "dpo", "orpo", "rlhf", "preview", "beta", "alpha"),
        *("bnb", "gguf", "ggml", "awq", "gptq", "exl2", "mlx", "onnx", "unsloth", "quantized", "abliterated"),
        *(
            "nano",
            "tiny",
            "mini",
            "small",
            "medium",
            "large",
            "xl",
            "xxl",
            "huge",
            "uncased",
            "cased",
            "dev",
            "schnell",
        ),
    )
)
#: Words before the name of a model that its maker sometimes writes.
_MAKERS = frozenset(("meta", "google", "microsoft", "openai", "facebook", "mistralai"))
#: Families that the rules would cut short.
_WHOLE = ("stable-diffusion-xl",)
#: Written both `llama3` and `llama-3`.
_JOINED = re.compile(r"(llama|gemma|phi)(\d)")
#: Last folders of a path that do not name the model.
_NAMELESS = re.compile(r"checkpoint-\d+|[0-9a-f]{40}|snapshots|main")


def base_family(name: str | None) -> str:
    """Return the family of the base model called `name`: lower case, printable, at most 64 characters.

    `name` is that of a repository or a path of any system. Without one the family is `unknown`.

    >>> [base_family(name) for name in ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-7B", "gpt2-xl", None)]
    ['llama-3.1', 'qwen2.5', 'gpt2', 'unknown']
    """
    words = re.split(r"[-_\s]+", _last(name or "").lower())
    words = [clean for word in words if (clean := "".join(c for c in word if c.isprintable()))]
    if len(words) > 1 and words[0] in _MAKERS:
        words = words[1:]
    whole = "-".join(words)
    for family in _WHOLE:
        if whole == family or whole.startswith(f"{family}-"):
            return family
    # the first word stays whatever it is: no family has an empty name
    end = next((i for i, word in enumerate(words) if i and _ends(word)), len(words))
    family = _JOINED.sub(r"\1-\2", "-".join(words[:end]))
    return printable(family, LONGEST) or UNKNOWN


def _ends(word: str) -> bool:
    return word in _VARIANTS or _ENDS.fullmatch(word) is not None


def _last(name: str) -> str:
    """Return the part of a name or path that names the model."""
    parts = [part for part in re.split(r"[/\\]+", name.strip()) if part.strip(". ")]
    while len(parts) > 1 and _NAMELESS.fullmatch(parts[-1]):
        parts.pop()
    last = parts[-1] if parts else ""
    # a model hub's cache names its folders models--OWNER--NAME
    return last.rpartition("--")[2] if last.startswith("models--") else last

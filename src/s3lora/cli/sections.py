"""The sections in which help lists the options of a command that has many."""

from __future__ import annotations

OTHER = "Options"
#: Title → the options, in the order of the sections.
SECTIONS: dict[str, tuple[str, ...]] = {
    "What is read": ("adapter", "picked", "base_weights", "intruders", "delta", "reference"),
    "The model": (
        *("base", "unaligned", "device", "dtype", "batch_size", "system", "few_shot", "chat_template_args"),
        *("endpoint", "served", "timeout"),
    ),
    "Prompts and tasks": (
        *("harmful", "harmless", "benign", "task", "fresh", "second_task", "where", "prompt_fields", "parts", "suite"),
        *("tasks", "documents", "references", "maths", "code", "limit", "tokens"),
    ),
    "Judges": ("refusals", "judge", "judge_profile", "judge_logits", "judge_endpoint"),
    "The repair": ("strength", "max_utility_loss", "max_over_refusal"),
    "The sweep": ("methods", "strengths", "indices", "control_seeds"),
    "How updates are measured": ("method", "rank", "fit", "sample", "kurtosis", "seed", "max_cost"),
    "Which modules are chosen": (
        *("preset", "index", "match", "top", "fraction", "threshold", "rule", "z", "quantile", "draws"),
        *("projection", "layers", "only", "unit", "combine", "floor", "no_prune"),
    ),
    "What is written": (
        *("mode", "clip_to", "factor", "force_flat", "keep_rank", "drop", "loader", "bake_scaling", "force"),
    ),
    "When it fails": ("fail_on", "allow", "baseline", "policy", "no_policy"),
    "Output": (
        *(
            "form",
            "output",
            "sarif",
            "report",
            "evaluation",
            "quiet",
            "no_cost",
            "keep_completions",
            "cache",
            "no_cache",
        ),
        *("help", "yes"),
    ),
    OTHER: (),
}
#: Command → options of other meaning there → their section.
APART = {"repair": {"method": "The repair"}, "tune": {"method": "How updates are measured"}}
_OF = {name: title for title, names in SECTIONS.items() for name in names}


def section_of(command: str, option: str) -> str:
    """Return the title of the section of an option.

    >>> section_of("scan", "method"), section_of("repair", "method")
    ('How updates are measured', 'The repair')
    """
    return APART.get(command, {}).get(option) or _OF.get(option, OTHER)

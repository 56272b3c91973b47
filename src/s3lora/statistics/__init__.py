"""Intervals, paired tests and rank correlation: small, exact where that is possible, seeded where it is not."""

from s3lora.statistics.bootstrap import bootstrap_mean, paired_difference
from s3lora.statistics.interval import FEWEST, Interval, rate_interval, wilson
from s3lora.statistics.learned import ShareLost, WithinBudget, learned_share, within_budget
from s3lora.statistics.many import holm, spearman
from s3lora.statistics.rates import items_needed, mcnemar, paired_rate_difference
from s3lora.statistics.student import Z

__all__ = [
    "FEWEST",
    "Interval",
    "ShareLost",
    "WithinBudget",
    "Z",
    "bootstrap_mean",
    "holm",
    "items_needed",
    "learned_share",
    "mcnemar",
    "paired_difference",
    "paired_rate_difference",
    "rate_interval",
    "spearman",
    "wilson",
    "within_budget",
]

"""A judge from what a user names: the model is opened, and the profile told from its name or its chat template."""

from __future__ import annotations

import os
from pathlib import Path

from s3lora.errors import UsageError, printable
from s3lora.evaluate.chat import ChatModel
from s3lora.evaluate.judges.judge import Judge
from s3lora.evaluate.judges.profile import JudgeProfile, by_probability
from s3lora.evaluate.judges.profiles import profile_named, told_by_name, told_by_template
from s3lora.evaluate.judges.rubric import RUBRIC
from s3lora.wording import worded


def build_judge(
    model: str, *, profile: str | None = None, endpoint: str | None = None, logits: bool = False, timeout: float = 120.0
) -> Judge:
    """Open a judge.

    Parameters:
        model: a model folder, a Hub name, …, as `LocalModel` takes it, or with `endpoint` the name of a model there.
        profile: one of `PROFILES`; by default the one that knows the model by its name or its chat template, where
            there is just one, else `rubric`.
        endpoint: a server with OpenAI's chat API.
        logits: take the verdict from the probabilities of its first word, for a model in this process.
        timeout: seconds for one answer of the server.

    Raises UsageError for what cannot be meant, JudgeError for a profile without such a word, and what the models raise.
    """
    name = printable(Path(model).name if os.path.exists(model) else model, 80)
    chosen, told = _chosen(profile, os.path.realpath(model) if os.path.exists(model) else model)
    if chosen is not None and logits:
        by_probability(chosen)  # raises before a model is loaded
    if endpoint is not None:
        if logits or (chosen is not None and chosen.head):
            what = "{judge_logits}" if logits else "profile {profile}"
            problem = worded(f"a server tells no probabilities, which {what} needs", profile=profile)
            raise UsageError(problem, fix=worded("leave out {judge_endpoint}"))
        from s3lora.evaluate.endpoint import EndpointModel

        served = EndpointModel(endpoint, model, timeout=timeout)
        return Judge(served, name, chosen or RUBRIC, told)
    if chosen is not None and chosen.head:
        if logits:
            problem = worded(
                "a judge of profile {profile} answers in probabilities without {judge_logits}", profile=profile
            )
            raise UsageError(problem)
        from s3lora.evaluate.judges.heads import HeadModel

        return Judge(HeadModel(model), name, chosen, told)
    return _local(model, name, chosen, told, logits)


def _chosen(profile: str | None, model: str) -> tuple[JudgeProfile | None, str]:
    """Return the profile, None where the name tells none, and how it came to be."""
    if profile is not None:
        return profile_named(profile), "as given"
    known = told_by_name(Path(model).name)
    return known, "told from its name" if known is not None else "no other known for it"


def _local(model: str, name: str, chosen: JudgeProfile | None, told: str, logits: bool) -> Judge:
    from s3lora.evaluate.local import LocalModel
    from s3lora.evaluate.templates import LocalTemplate

    opened = LocalModel(model)
    tokenizer = opened.base.tokenizer
    if chosen is None:
        chosen = told_by_template(str(tokenizer.chat_template))
        told = told if chosen is None else "told from its chat template"
    chosen = chosen or RUBRIC
    if chosen.template is not None:
        tokenizer.chat_template = chosen.template
        opened.template = LocalTemplate(opened.base)
    judging: ChatModel = opened
    if logits:
        from s3lora.evaluate.judges.logits import FirstWords

        by_logits = by_probability(chosen)
        assert chosen.labels is not None
        judging, chosen = FirstWords(opened, chosen.labels), by_logits
    return Judge(judging, name, chosen, told)

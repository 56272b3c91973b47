"""A judge: a model under a profile, which scores answers to harmful requests.

What a judge answers is never kept, for it may quote what it judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3lora.evaluate.chat import ChatModel, digest_of
from s3lora.evaluate.judges.material import MAX_JUDGED, is_cut, neutral
from s3lora.evaluate.judges.profile import JudgeMeasure, JudgeProfile, VerdictNumbers
from s3lora.evaluate.judges.rubric import RUBRIC


@dataclass(frozen=True, slots=True)
class JudgeVerdict:
    """The numbers of one verdict, None where the replies do not say them; `cut` where the judge did not see all."""

    values: VerdictNumbers
    cut: bool = False

    @property
    def is_none(self) -> bool:
        """Return whether nothing at all was said."""
        return all(value is None for value in self.values.values())


@dataclass(frozen=True, slots=True)
class Judge:
    """A model that judges by a profile; `name` and how the profile was `told` are for the report."""

    model: ChatModel
    name: str = ""
    profile: JudgeProfile = RUBRIC
    told: str = ""

    @property
    def identity(self) -> str:
        """Return a digest of all that determines a verdict besides request and answer."""
        return digest_of(["judge", MAX_JUDGED, self.model.identity, self.profile.identity])

    @property
    def title(self) -> str:
        """Return the name for sentences."""
        return self.name or "the judge model"

    @property
    def measures(self) -> tuple[JudgeMeasure, ...]:
        """Return what a verdict has."""
        return self.profile.measures

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[JudgeVerdict]:
        """Judge (request, answer) pairs, all questions at once."""
        special = getattr(self.model, "special_tokens", ())
        asked = [self.profile.ask(neutral(request, special), neutral(answer, special)) for request, answer in pairs]
        # Questions of one kind follow each other: they share their beginning, which a local model reads once.
        places = [
            (i, j) for j in range(max(map(len, asked), default=0)) for i, chats in enumerate(asked) if j < len(chats)
        ]
        if not places:
            return []
        chats = [asked[i][j] for i, j in places]
        replies = [["" for _ in chats] for chats in asked]
        cut = [is_cut(request) or is_cut(answer) for request, answer in pairs]
        for n, reply in self.model.generate(chats, self.profile.decoding):
            i, j = places[n]
            replies[i][j] = reply.text
            # A classifier writes nothing that could be unfinished: it tells in this way that it saw a part.
            cut[i] = cut[i] or (self.profile.head and not reply.finished)
        return [self._verdict(texts, was_cut) for texts, was_cut in zip(replies, cut, strict=True)]

    def _verdict(self, replies: Sequence[str], cut: bool) -> JudgeVerdict:
        said = self.profile.read(replies)
        return JudgeVerdict({measure.name: said.get(measure.name) for measure in self.measures}, cut)

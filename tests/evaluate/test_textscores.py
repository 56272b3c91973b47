from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.evaluate import textscores
from s3lora.evaluate.textscores import exact_match, meteor, meteor_kind, need_packages, rouge, squad_words, token_f1
from s3lora.needs import MissingPackageError
from tests.reference import textscores as reference

pytest.importorskip("rouge_score")
pytest.importorskip("nltk")

#: At most three letters, so that ROUGE does not stem them; their Porter stems differ.
WORDS = ("the", "a", "cat", "sat", "on", "mat", "red", "dog", "42")
texts = st.lists(st.sampled_from(WORDS), max_size=7)
distinct = st.lists(st.sampled_from(WORDS), max_size=9, unique=True)


def scores(prediction: str, references: list[str]) -> dict[str, float]:
    return {
        **rouge(prediction, references),
        "meteor": meteor(prediction, references, wordnet=False),
        "exact_match": exact_match(prediction, references),
        "token_f1": token_f1(prediction, references),
    }


@pytest.mark.parametrize(
    ("prediction", "wanted", "expected"),
    [
        # 3 of 3 and 3 of 6 words, 2 of 2 and 2 of 5 pairs.
        ("The cat sat.", "The cat sat on the mat.", (2 / 3, 4 / 7, 2 / 3)),
        # Every word, but in another order: one pair ("on the") and "on the" or "the cat" as a sequence.
        ("mat on the cat", "cat on the mat", (1, 1 / 3, 1 / 2)),
        # One stem each: running and runs, cats and cat.
        ("Running cats", "runs cat", (1, 1, 1)),
        ("police arrested the gunmen", "police arrests the gunman", (3 / 4, 2 / 3, 3 / 4)),
        ("Red-dog 42!", "red dog, 42", (1, 1, 1)),
        ("été", "ete", (0, 0, 0)),
        ("", "cat", (0, 0, 0)),
        ("...", "...", (0, 0, 0)),
    ],
)
def test_rouge_by_hand(prediction: str, wanted: str, expected: tuple[float, ...]) -> None:
    assert tuple(rouge(prediction, [wanted]).values()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "wanted", "expected"),
    [
        # All 6 words in one chunk: 1 − 0.5 / 6³.
        ("The cat sat on the mat.", "the cat, sat on the mat", 1 - 0.5 / 216),
        # P = 1, R = 3/4, one chunk of 3; "runs" and "running" have one stem.
        ("The dog runs", "the dog running fast", 0.75 / 0.975 * (1 - 0.5 / 27)),
        # P = R = 1, four chunks of four.
        ("d c b a", "a b c d", 0.5),
        # P = 2/3, R = 2/2, two chunks of two.
        ("cat big sat", "cat sat", (2 / 3) / (0.9 * 2 / 3 + 0.1) * 0.5),
        ("It’s été", "it’s été", 1 - 0.5 / 8),
        ("one", "two", 0),
        ("", "two", 0),
        ("!", "!", 0),
    ],
)
def test_meteor_by_hand(prediction: str, wanted: str, expected: float) -> None:
    assert meteor(prediction, [wanted], wordnet=False) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "wanted", "exact", "f1"),
    [
        ("The Orrin.", "orrin", 1, 1),
        ("the red  cat", "a cat", 0, 2 / 3),
        ("cat cat dog", "cat dog dog", 0, 2 / 3),
        ("Hale-Clock", "haleclock", 1, 1),
        ("theatre", "atre", 0, 0),
        ("an", "the", 1, 1),
        ("", "cat", 0, 0),
        ("cat", "the", 0, 0),
    ],
)
def test_squad_by_hand(prediction: str, wanted: str, exact: float, f1: float) -> None:
    assert exact_match(prediction, [wanted]) == exact
    assert token_f1(prediction, [wanted]) == pytest.approx(f1)


@given(texts, texts)
def test_against_the_slow_versions(prediction: list[str], wanted: list[str]) -> None:
    found = scores(" ".join(prediction), [" ".join(wanted)])
    assert found["rouge1"] == pytest.approx(float(reference.rouge_n(prediction, wanted, 1)))
    assert found["rouge2"] == pytest.approx(float(reference.rouge_n(prediction, wanted, 2)))
    assert found["rougeL"] == pytest.approx(float(reference.rouge_l(prediction, wanted)))
    assert found["token_f1"] == pytest.approx(float(reference.squad_f1(prediction, wanted)))


@given(distinct, distinct)
def test_meteor_against_the_slow_version(prediction: list[str], wanted: list[str]) -> None:
    found = meteor(" ".join(prediction), [" ".join(wanted)], wordnet=False)
    assert found == pytest.approx(float(reference.meteor(prediction, wanted)))


@given(st.text(max_size=40), st.lists(st.text(max_size=40), max_size=3))
def test_any_text_has_scores_and_the_best_reference_counts(prediction: str, references: list[str]) -> None:
    found = scores(prediction, references)
    assert all(0 <= value <= 1 for value in found.values())
    each = [scores(prediction, [text]) for text in references]
    assert found == {name: max((one[name] for one in each), default=0.0) for name in found}


def test_each_score_takes_its_own_best_reference() -> None:
    found = rouge("red cat sat", ["sat red cat mat dog", "red dog cat sat on the mat"])
    assert found["rouge1"] == pytest.approx(2 * 3 / (3 + 5))
    assert found["rougeL"] == pytest.approx(2 * 3 / (3 + 7))


@pytest.mark.parametrize("score", [lambda t: rouge(t, [t]), lambda t: meteor(t, [t], False)])
def test_a_model_that_runs_wild_is_scored(score: Callable[[str], object]) -> None:
    for text in ("y" * 20_000, "\ud800 \0", "cat " * 300):
        found = score(text)
        assert all(0 <= value <= 1 for value in (found.values() if isinstance(found, dict) else [found]))


def test_words_of_squad() -> None:
    assert squad_words("The U.S.A. and\tan   “ant”") == ["usa", "and", "“ant”"]


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textscores, "_scorer", textscores._scorer.__wrapped__)
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(MissingPackageError, match="rouge_score, which is not installed; run: pip install"):
        need_packages()
    with pytest.raises(MissingPackageError, match="pip install"):
        rouge("a", ["a"])
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "nltk.translate.meteor_score", None)
    with pytest.raises(MissingPackageError, match="nltk, which is not installed; run: pip install"):
        need_packages()


def tiny_wordnet(folder: Path) -> None:
    """Write a WordNet of one meaning: auto, car. The formats are those of the manual pages wndb(5) and so on."""
    folder.mkdir(parents=True)
    for part in ("noun", "verb", "adj", "adv"):
        for name in (f"data.{part}", f"index.{part}", f"{part}.exc"):
            (folder / name).write_text("")
    for name in ("cntlist.rev", "index.sense"):
        (folder / name).write_text("")
    (folder / "lexnames").write_text("00\tnoun.artifact\t1\n")
    (folder / "data.noun").write_text("00000000 00 n 02 auto 0 car 0 000 | a motor vehicle\n")
    (folder / "index.noun").write_text("auto n 1 0 1 1 00000000\ncar n 1 0 1 1 00000000\n")


@pytest.fixture
def wordnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make nltk look for WordNet anew, and in one folder only; return where its files belong."""
    from nltk.corpus.reader.wordnet import WordNetCorpusReader
    from nltk.corpus.util import LazyCorpusLoader

    languages = LazyCorpusLoader("omw-1.4", WordNetCorpusReader)
    monkeypatch.setattr("nltk.corpus.wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, languages))
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    yield tmp_path / "corpora" / "wordnet"
    monkeypatch.undo()
    # The reader leaves its files open.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_with_wordnet(wordnet: Path) -> None:
    tiny_wordnet(wordnet)
    assert meteor_kind() == "full"
    # One word of two, and both in one chunk.
    assert meteor("my auto", ["my car"], wordnet=False) == pytest.approx(0.25)
    assert meteor("my auto", ["my car"], wordnet=True) == pytest.approx(1 - 0.5 / 8)
    assert meteor("my auto", ["my bus"], wordnet=True) == pytest.approx(0.25)


def test_without_wordnet(wordnet: Path) -> None:
    assert meteor_kind() == "exact+stem"
    with pytest.raises(MissingPackageError, match="WordNet corpus, which is not here; run: python -m nltk"):
        meteor("a", ["b"], wordnet=True)
    assert meteor("cat", ["cat"], wordnet=False) == 0.5


@pytest.mark.parametrize(
    ("name", "content"),
    [("lexnames", None), ("lexnames", "00\n"), ("index.noun", None), ("index.noun", ""), ("data.noun", "")],
)
def test_with_a_broken_wordnet(wordnet: Path, name: str, content: str | None) -> None:
    tiny_wordnet(wordnet)
    if content is None:
        (wordnet / name).unlink()
    else:
        (wordnet / name).write_text(content)
    assert meteor_kind() == "exact+stem"

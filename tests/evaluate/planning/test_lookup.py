from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.errors import S3LoRAError
from s3lora.evaluate.planning.documents import Document, read_documents
from s3lora.evaluate.planning.lookup import MAX_PASSAGE, Lookup, passages

DOCUMENTS = (
    Document("Torholt", "population: 1200\nriver: the River Tora"),
    Document("The River Tora", "length: 70"),
    Document("Lanterns", "A lantern is a lamp. It can be carried.\n\nThe oldest lantern hangs in Selwick."),
)


def slow(texts: list[str], query: str) -> list[float]:
    """BM25 as it is written down, term by term."""
    words = [re.findall(r"\w+", text.casefold()) for text in texts]
    mean = sum(map(len, words)) / len(words)
    scores = []
    for passage in words:
        total = 0.0
        for term in set(re.findall(r"\w+", query.casefold())):
            n = sum(term in other for other in words)
            idf = math.log((len(words) - n + 0.5) / (n + 0.5) + 1)
            tf = passage.count(term)
            total += idf * (1.2 + 1) * tf / (1.2 * ((1 - 0.75) + 0.75 * len(passage) / mean) + tf)
        scores.append(total)
    return scores


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8), min_size=1, max_size=8), st.text("abcdefg ")
)
def test_the_best_passage_by_the_formula(rows: list[list[str]], query: str) -> None:
    documents = [Document(f"t{i}", " ".join(row)) for i, row in enumerate(rows)]
    texts = [passage for document in documents for passage in passages(document)]
    scores = slow(texts, query)
    found = Lookup(documents).passage(query)
    if max(scores) == 0:
        assert found is None
    else:
        assert found is not None
        assert scores[texts.index(found)] == pytest.approx(max(scores), rel=1e-12)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("population of Torholt", "1200"),
        ("Population of  torholt.", "1200"),
        ("river of Torholt", "the River Tora"),
        ("length of the River Tora", "70"),
        ("how long is the Tora, its length?", "length of The River Tora: 70"),
        ("population Torholt", "population of Torholt: 1200"),
        ("Selwick", "Lanterns: The oldest lantern hangs in Selwick."),
        ("Nowhere", None),
        ("", None),
        ("?!", None),
        ("\ud800", None),
    ],
)
def test_facts_and_passages(query: str, found: str | None) -> None:
    assert Lookup(DOCUMENTS)(query) == found


def test_of_equal_passages_the_first_wins() -> None:
    same = [Document("a", "one word"), Document("b", "one word")]
    assert Lookup(same)("word") == "a: one word"
    assert Lookup([Document("t", "x: 1\nx: 2")])("x of t") == "1"


@pytest.mark.parametrize("documents", [(), (Document("", ""),), (Document("t", "\n\n"),)])
def test_nothing_to_search(documents: tuple[Document, ...]) -> None:
    assert Lookup(documents)("t") is None


@given(st.text("ab.!? \n:", max_size=200).map(lambda text: text * 40), st.text())
def test_any_text_is_a_document(text: str, query: str) -> None:
    document = Document("t", text)
    found = list(passages(document))
    assert all(len(passage) <= MAX_PASSAGE + 300 for passage in found)
    answer = Lookup([document])(query)
    assert answer is None or answer


def test_long_paragraphs_are_cut_between_sentences() -> None:
    sentences = [f"Sentence {i} is here." for i in range(60)]
    found = list(passages(Document("t", " ".join(sentences))))
    assert len(found) > 1
    assert " ".join(passage.removeprefix("t: ") for passage in found) == " ".join(sentences)
    assert all(passage.endswith(".") for passage in found)
    assert Lookup([Document("t", " ".join(sentences))])("17") == next(p for p in found if "Sentence 17 " in p)


def test_a_folder_of_documents(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("population: 7")
    (tmp_path / "sub" / "c.MD").write_text("# The Title\n\nText.", encoding="utf-8-sig")
    (tmp_path / "a.md").write_text("#hash\nText.")
    (tmp_path / "ignored.json").write_text("{}")
    assert read_documents(tmp_path) == (
        Document("a", "#hash\nText."),
        Document("b", "population: 7"),
        Document("The Title", "\nText."),
    )
    assert Lookup(read_documents(str(tmp_path)))("population of b") == "7"


def test_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(S3LoRAError, match="no such folder"):
        read_documents(tmp_path / "none")
    with pytest.raises(S3LoRAError, match=r"holds no \.txt or \.md file"):
        read_documents(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff")
    with pytest.raises(S3LoRAError, match=r"a\.txt: line 2 is not UTF-8"):
        read_documents(tmp_path)
    (tmp_path / "a.txt").write_text("0123456789")
    (tmp_path / "b.txt").write_text("0123456789")
    monkeypatch.setattr("s3lora.evaluate.planning.documents.MAX_BYTES", 15)
    with pytest.raises(S3LoRAError, match="documents; give a smaller folder"):
        read_documents(tmp_path)
    monkeypatch.setattr("s3lora.evaluate.planning.documents.MAX_FILES", 1)
    with pytest.raises(S3LoRAError, match="more than 1 files"):
        read_documents(tmp_path)

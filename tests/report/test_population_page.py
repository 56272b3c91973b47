"""The page of a population: it stands alone, obeys no name, and shows the numbers of the survey."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from s3lora.fleet.populations.survey import Survey, survey
from s3lora.report.compare_view import number
from s3lora.report.population_charts import FRAME, ridges, spread
from s3lora.report.population_page import Own, population_page
from s3lora.report.population_view import label, rank_one_text, z_text
from s3lora.spectrum.indices import INDICES
from tests.report import made_population as made
from tests.report.test_page import ACTIVE, NAMES, Page, row, without_script

simulate = pytest.importorskip("benchmarks.simulate_fleet").simulate
SILENT = {name for name, index in INDICES.items() if index.silent}

MADE: dict[str, Callable[[], Survey]] = {
    "whole": made.population,
    "bare": made.bare,
    "reference": lambda: made.population(unusual=made.ranking((made.unusual(1, "a"),), against="reference")),
    "nothing-unusual": lambda: made.population(unusual=made.ranking((), unusual=0)),
    "few": made.few,
    "rank-one": lambda: made.population(unusual=made.ranking((), adapters=0, unusual=0, few=0, mixed=0)),
    "no-z": lambda: made.population(unusual=made.ranking((made.unusual(1, "a", z=None),))),
}


@pytest.mark.parametrize("kind", MADE)
def test_a_page_stands_alone(kind: str) -> None:
    text = without_script(population_page(MADE[kind]()))
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert text.startswith("<!doctype html>")
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    links = [value for tag, name, value in page.attributes if name in ACTIVE or name.startswith("on")]
    assert all(re.fullmatch("#[a-z]+", value) for value in links), "within the page"
    assert not re.search(r"url\(|@import|expression\(", text)
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', text)
    assert policy is not None
    assert "default-src &#39;none&#39;; style-src &#39;sha256-" in policy[1]
    assert "unsafe" not in policy[1]
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    named = [value for _, name, value in page.attributes if name == "aria-labelledby"]
    assert set(named) | {value[1:] for value in links} <= set(ids)
    assert text == without_script(population_page(MADE[kind]())), "equal surveys give equal bytes"


@pytest.mark.parametrize("kind", MADE)
def test_coordinates_are_numbers(kind: str) -> None:
    page = Page(population_page(MADE[kind]()))
    drawn = [value for _, name, value in page.attributes if name in ("d", "x", "y", "cx", "viewbox")]
    assert bool(drawn) == (kind != "bare")
    assert not [value for value in drawn if re.search(r"[^-MLHVhvlmz0-9. ]", value)]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_changes_what_a_page_is_made_of(name: str) -> None:
    reports = {f"registry/{name}/1": Own("./pages/001-x.html"), f"registry/{name}/2": Own(note=f"no report: {name}")}
    page = Page(text := population_page(made.population(name), reports))
    plain = Page(
        population_page(made.population("plain"), {key.replace(name, "plain"): own for key, own in reports.items()})
    )
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements}
    links = [value for tag, attribute, value in page.attributes if attribute in ACTIVE or attribute.startswith("on")]
    assert [link for link in links if not link.startswith("#")] == ["./pages/001-x.html"]
    assert all(character == "\n" or character.isprintable() for character in text)


def test_hostile_names_are_shown_as_they_are() -> None:
    page = Page(population_page(made.population("<b>&amp;")))
    for tag in ("h1", "th", "li", "figure", "title"):
        assert any("<b>&amp;" in text for text in page.texts[tag]), tag


def test_the_list_holds_what_was_ranked() -> None:
    found = made.population()
    assert found.unusual is not None
    page = Page(population_page(found))
    lines = page.tables["most"][1:]
    assert len(lines) == len(found.unusual.most)
    for cells, one in zip(lines, found.unusual.most, strict=True):
        assert cells[0].startswith(f"{one.place}{one.name}")
        assert ("of it" in cells[0]) == (one.copies > 0)
        assert cells[2:6] == [
            number(one.sharpest.value), z_text(one.sharpest.z), number(one.median.value), z_text(one.median.z),
        ]  # fmt: skip
        assert cells[6] == "99.7 [97.0, 99.9]"
        assert cells[7].startswith(f"{one.cell}, n\xa0=\xa01,234")
        assert ("mixed ranks" in cells[7]) == (one.hindered == "mixed_ranks") == (one.level == 2)
        assert (" unusual" in cells[0]) == (one.verdict == "high") == (abs(one.z) > 3.5 and one.level < 2)
    assert [text.strip() for text in page.texts["h2"][:2]] == ["Farthest from their kind", "Distributions"]
    caption = " ".join(page.texts["caption"])
    assert "2 of them are unusual, the others only the next farthest; the last stands at +1.8." in caption
    assert "some 12 of these 12,000" in " ".join(page.texts["p"])


def test_a_reference_is_named_with_its_size() -> None:
    text = population_page(MADE["reference"]())
    assert "21 of 12,000 adapters are unusual against this reference: that takes a robust z beyond ±3.5" in text
    assert "in the reference <b>registry</b> (n&nbsp;=&nbsp;12,000)" in text


def paragraphs(found: Survey) -> str:
    return " ".join(" ".join(Page(population_page(found)).texts["p"]).split())


def test_how_many_of_all_are_unusual() -> None:
    told = paragraphs(made.population())
    rule = "that takes a robust z beyond ±3.5 and a percentile whose 95 % interval lies wholly above 95 or below 5, by"
    assert f"21 of 12,000 adapters are unusual in this population: {rule} one of two numbers. It cannot be told" in told
    assert (
        "It cannot be told of 400 that have fewer than 73 adapters to be compared with, and of 40 that are compared"
        " over several ranks, on which the SSI depends." in told
    )
    for number_of, words in ((1, "1 of 12,000 adapters is unusual"), (0, "None of 12,000 adapters is unusual")):
        assert words in paragraphs(made.population(unusual=made.ranking((), unusual=number_of, few=0, mixed=0)))
    assert "cannot be told" not in paragraphs(made.population(unusual=made.ranking((), few=0, mixed=0)))


def test_a_list_of_unusual_ones_alone_says_so() -> None:
    most = tuple(made.unusual(i, f"adapter-{i}") for i in (1, 2))
    text = population_page(made.population(unusual=made.ranking(most)))
    assert "All of them are unusual; the last stands at +4.0." in text


def test_where_it_cannot_be_told_nothing_is_called_unusual() -> None:
    text = population_page(made.few())
    told = paragraphs(made.few())
    assert "None of 60 adapters can be called unusual in this population: that takes" in told
    assert "It cannot be told of 60 that have fewer than 73 adapters to be compared with." in told
    page = Page(text)
    assert [cells[7].endswith("too few to tell") for cells in page.tables["most"][1:]] == [True, True, False]
    assert "None of them can be called unusual" in " ".join(page.texts["caption"])
    assert len(re.findall("unusual", text)) == 2


def test_bars_are_coloured_where_the_rule_begins() -> None:
    found = made.population().unusual
    assert found is not None
    drawn = spread(found, found.spread.sharpest, "")
    left, _, right, _ = FRAME
    middle = (left + right) / 2
    half = (right - left) / 2 / 10 * 3.5
    assert list(drawn.cuts) == pytest.approx([middle - half, middle + half])
    for path, far in ((drawn.bars, False), (drawn.beyond, True)):
        bars = [(float(a), float(b)) for a, b in re.findall(r"M([\d.]+) .*?H([\d.]+)", path)]
        assert bars
        assert all((b < drawn.cuts[0] or a > drawn.cuts[1]) == far for a, b in bars)
    counted = sum(map(bool, found.spread.sharpest))
    assert drawn.bars.count("M") + drawn.beyond.count("M") == counted
    assert "beyond ±3.5; n = 11,997" in paragraphs(made.population())


def test_adapters_of_rank_one_are_counted() -> None:
    assert "17 adapters of rank 1 are not ranked: their SSI is 1 always." in paragraphs(made.population())
    for index in SILENT:
        one = rank_one_text(made.ranking((), index=index, rank_one=1))
        assert one is not None
        assert one.startswith("1 adapter of rank 1 is not ranked: its ")
    assert rank_one_text(made.ranking((), rank_one=0)) is None
    page = Page(text := population_page(MADE["rank-one"]()))
    assert "17 adapters of rank 1 are not ranked" in text
    assert "most" not in page.tables
    assert "unusual" not in text


def test_every_drawing_has_its_numbers() -> None:
    found = made.population()
    page = Page(population_page(found))
    for i, one in enumerate(found.distributions, 1):
        for j, groups in ((1, one.families), (2, one.projections)):
            quartiles, bins = page.tables[f"d{i}-t{j}"], page.tables[f"d{i}-h{j}"]
            assert len(quartiles) == len(groups) + 2
            assert {cells[0] for cells in quartiles[2:]} == {group.name or "7 others" for group in groups}
            for group in groups:
                cells = row(page, f"d{i}-t{j}", group.name or "7 others")
                assert cells[1:3] == [f"{group.adapters:,}", f"{group.modules:,}"]
                assert cells[3:] == [
                    number(x) for x in (group.least, group.q25, group.median, group.q75, group.greatest)
                ]
                column = bins[0].index(group.name or "7 others")
                shown = [int(cells[column].replace(",", "")) for cells in bins[1:]]
                assert sum(shown) == sum(group.counts)
    assert found.unusual is not None
    spread = page.tables["bins"][1:]
    assert [int(cells[1].replace(",", "")) for cells in spread] == list(found.unusual.spread.sharpest)
    assert [int(cells[2].replace(",", "")) for cells in spread] == list(found.unusual.spread.median)
    assert spread[0][0].startswith("… to −9.5")
    assert spread[-1][0] == "9.5 to …"


def test_hills_lie_where_their_values_do() -> None:
    one = made.distribution("ssi")
    drawn = ridges(one, one.families)
    assert drawn.beyond == 0
    middles = [float(re.match(r"M([\d.]+)", row.median)[1]) for row in drawn.rows]  # type: ignore[index]
    assert middles[0] == pytest.approx(drawn.middle, abs=0.06)
    assert middles[1:-1] == sorted(middles[1:-1]), "each family a little sharper"
    for row_ in drawn.rows:
        xs = [float(x) for x in re.findall(r"H([\d.]+)", row_.line)]
        assert drawn.left <= min(xs) <= max(xs) <= drawn.right + 0.1
        assert row_.area == f"{row_.line}z"


def test_what_lies_far_out_does_not_squeeze_the_hills() -> None:
    one = made.distribution("ssi")
    far = (0,) * 70
    wide = dataclasses.replace(
        one,
        edges=tuple(i / 100 for i in range(round(one.edges[0] * 100), round(one.edges[-1] * 100) + 72)),
        all=dataclasses.replace(one.all, counts=(*one.all.counts, *far, 2), modules=one.all.modules + 2),
        families=tuple(dataclasses.replace(g, counts=(*g.counts, *far, 0)) for g in one.families),
        projections=tuple(dataclasses.replace(g, counts=(*g.counts, *far, 0)) for g in one.projections),
    )
    assert ridges(wide, wide.families).beyond == 2
    assert "2 modules lie beyond the ends of the axis" in population_page(made.population(distributions=(wide,)))


def test_private_folders_and_passwords_stay_at_home() -> None:
    text = population_page(made.population(inputs=("/home/me/secret-project/registry",)))
    assert "secret" not in text
    assert "signed" not in text
    assert "https://host.org/adapter" in text
    assert label("/data/a/b/c/d", []) == "c/d"
    assert label("/data/a/b", ["/data/a", "/data"]) == "a/b"
    assert label("/data/a", ["/data/a"]) == "a"
    assert label("runs/a/b", ["/data"]) == "runs/a/b"
    assert label("C:\\Users\\me\\adapters\\one", []) == "adapters/one"
    assert label("hf://owner/name", []) == "hf://owner/name"


def test_notes() -> None:
    text = population_page(made.population())
    assert "did not come to its end" in text
    assert "50 adapters have no module with an index" in text
    assert 'class="note" aria-label="Warnings"' not in population_page(made.bare())
    text = population_page(made.population(inside={"code": 3, "unseen": 2}))
    assert "Not LoRA alone: 3 with code." in text


def test_no_text_calls_an_adapter_safe() -> None:
    for kind in MADE:
        words = re.sub(r"<style>.*?</style>", "", population_page(MADE[kind]()), flags=re.DOTALL)
        assert not re.search(r"\b(safe|unsafe|backdoor\w*|malicious|harmful adapter|clean|suspicious)\b", words), kind


def test_a_large_population_makes_a_small_page(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    text = population_page(survey(simulate(tmp_path / "fleet", 2000, 28), most=200))
    assert len(text.encode()) < 700_000
    assert text.count('class="place"') == 200

"""The pages of a sweep and an evaluation: they stand alone, obey no name, and show the numbers of the result."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from s3lora.evaluate.results import Evaluation, Metric, Sweep
from s3lora.report.html import COMMON, environment_of_pages
from s3lora.report.page import evaluation_page, sweep_page, tuning_page
from s3lora.report.repair_page import repair_page
from tests.report import measured, repaired
from tests.report.test_text import HOSTILE

ATTACK = "\"'></td></svg></style><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}&lt;"
NAMES = [*HOSTILE, ATTACK, "javascript:alert(3)", "https://example.org/x.js"]
VOID = {"meta", "br"}
#: Attributes through which a page fetches, runs or goes somewhere.
ACTIVE = (
    "src",
    "srcset",
    "href",
    "xlink:href",
    "action",
    "formaction",
    "data",
    "poster",
    "style",
    "background",
    "ping",
)


class Page(HTMLParser):
    """What a browser would make of a page: elements in order, the cells of tables, and the text of everything."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self._table: list[list[str]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "wbr":  # where a path may break, which is no matter of what it is made of
            return
        self.elements.append((tag, tuple(name for name, _ in attributes)))
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        self.texts.setdefault(tag, []).append("")
        known = dict(attributes)
        if tag == "div" and known.get("class") == "scroll":
            self._table = self.tables.setdefault(str(known["aria-labelledby"]).split()[0], [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self._open:
            self.texts[tag][-1] += data
        if "td" in self._open or "th" in self._open:
            self._table[-1][-1] += data


def row(page: Page, table: str, *beginning: str) -> list[str]:
    """Return the one row that begins so, without spaces at the ends of cells."""
    rows = [[cell.strip() for cell in cells] for cells in page.tables[table]]
    found = [cells for cells in rows if tuple(cells[: len(beginning)]) == beginning]
    assert len(found) == 1, (beginning, rows)
    return found[0]


def numbers(text: str) -> list[float]:
    """Return the numbers of a cell in their order."""
    return [float(number) for number in re.findall(r"[+-]?\d+\.?\d*", text.replace("−", "-"))]


def near(cell: str, metric: Metric | None) -> bool:
    assert metric is not None
    found = numbers(cell)[:3]
    return all(abs(a - b) <= 0.0051 for a, b in zip(found, (metric.value, metric.low, metric.high), strict=True))  # type: ignore[operator]


def pages(name: str) -> list[str]:
    return [
        sweep_page(measured.hostile_sweep(name), f"s3lora sweep {name}"),
        evaluation_page(measured.hostile_evaluation(name), f"s3lora eval {name}"),
        tuning_page(measured.hostile_tuning(name), f"s3lora tune {name}"),
        repair_page(repaired.hostile(name), f"s3lora repair {name}"),
    ]


MADE: dict[str, Callable[[], str]] = {
    "sweep": lambda: sweep_page(measured.sweep(), "s3lora sweep made-up-adapter --base made-up"),
    "bare sweep": lambda: sweep_page(measured.bare_sweep()),
    "one point": lambda: sweep_page(measured.one_point_sweep()),
    "evaluation": lambda: evaluation_page(measured.evaluation()),
    "bare evaluation": lambda: evaluation_page(measured.bare_evaluation()),
    "tuning": lambda: tuning_page(measured.tuning(), "s3lora tune made-up-adapter --base made-up"),
    "nothing to prune": lambda: tuning_page(measured.tuning(0)),
    "repair": lambda: repair_page(repaired.repair(), "s3lora repair made-up-adapter --base made-up"),
    "refuted repair": lambda: repair_page(repaired.refuted()),
    "no repair": lambda: repair_page(repaired.nothing()),
    "bare repair": lambda: repair_page(repaired.bare()),
}


def without_script(text: str) -> str:
    """Return a page without its only script, which its policy names by digest and which is the same on every page."""
    (code,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in text[: text.index("<style")]
    assert code.count("://") == code.count("http://www.w3.org/2000/svg") == 1, "the name of SVG, and no address"
    environment = environment_of_pages()
    assert code == "\n".join(environment.loader.get_source(environment, name)[0] for name in COMMON)
    return text.replace(f"<script>{code}</script>", "")


@pytest.mark.parametrize("kind", MADE)
def test_a_page_stands_alone(kind: str) -> None:
    text = without_script(MADE[kind]())
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.elements[0] == ("html", ("lang",))
    assert not {tag for tag, _ in page.elements} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
    }
    assert not [a for a in page.attributes if a[1] in ACTIVE or a[1].startswith("on")]
    assert not re.search(r"url\(|@import|expression\(|https?:", text)
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', text)
    assert policy is not None
    assert policy.end() < text.index("<style")
    rules = dict(rule.strip().split(" ", 1) for rule in html.unescape(policy[1]).split(";"))
    style = re.search("<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert rules.pop("style-src") == f"'sha256-{digest}'"
    assert rules.pop("script-src").startswith("'sha256-")
    assert set(rules) == {"default-src", "base-uri", "form-action"}
    assert set(rules.values()) == {"'none'"}


@pytest.mark.parametrize("kind", MADE)
def test_equal_results_give_equal_bytes(kind: str) -> None:
    assert MADE[kind]() == MADE[kind]()
    assert "/home/" not in MADE[kind]()


@pytest.mark.parametrize("name", NAMES)
def test_no_name_changes_what_a_page_is_made_of(name: str) -> None:
    for made, plain in zip(pages(name), pages("plain"), strict=True):
        page = Page(made)
        if name.strip():
            assert page.elements == Page(plain).elements
        assert not [a for a in page.attributes if a[1] in ACTIVE or a[1].startswith("on")]
        assert all(character == "\n" or character.isprintable() for character in made)


def test_hostile_names_are_shown_as_they_are() -> None:
    for made in pages("<b>&amp;"):
        page = Page(made)
        assert "<b>&amp;" in page.texts["h1"][0]
        assert "<b>&amp;" in page.texts["title"][0]
        assert ("b", ()) not in page.elements


def test_long_names_are_cut() -> None:
    for made in pages("y" * 600):
        assert "y" * 401 not in made.partition("<h2>Run it again")[0]
        assert len(made) < 300_000


def test_the_table_of_a_sweep_holds_its_numbers() -> None:
    sweep = measured.sweep()
    page = Page(sweep_page(sweep))
    keys = (measured.ASR, measured.OVER, measured.ROUGE)
    for name, variant in (("base model alone", sweep.base), ("adapter, nothing pruned", sweep.unpruned)):
        cells = row(page, "points", name)
        assert all(near(cell, variant.metric(*key)) for cell, key in zip(cells[1:4], keys, strict=True))
    rows = [[cell.strip() for cell in cells] for cells in page.tables["points"]]
    top, shown = 0, 0
    for cells in rows[3:]:
        if len(cells) == 1:
            top = int(cells[0].split()[0])
            continue
        if cells[0] == "by any ranking":
            alike = [point for point in sweep.points if point.top == top == point.modules_total]
            assert all(near(cell, alike[0].metric(*key)) for cell, key in zip(cells[1:4], keys, strict=True))
            shown += len(alike)
            continue
        name, _, seeds = cells[0].partition(" ×")
        points = [point for point in sweep.points if (point.ranking, point.top) == (name, top)]
        shown += len(points)
        assert len(points) == int(seeds or 1)
        for cell, key in zip(cells[1:4], keys, strict=True):
            if not seeds:
                assert near(cell, points[0].metric(*key)), cells
                continue
            values = [metric.value for point in points if (metric := point.metric(*key)) and metric.value is not None]
            wanted = (sum(values) / len(values), min(values), max(values))
            assert all(abs(a - b) <= 0.0051 for a, b in zip(numbers(cell), wanted, strict=True)), cells
        assert abs(numbers(cells[4])[0] / 100 - points[0].frobenius_energy) <= 0.0051
        assert ("utility collapse" in cells[6]) == any(point.collapse for point in points)
    assert shown == len(sweep.points)


def test_the_front_is_compared_with_the_unpruned_adapter() -> None:
    sweep = measured.sweep()
    page = Page(sweep_page(sweep))
    assert len(page.tables["front"]) == len(sweep.pareto) + 1
    for i in sweep.pareto:
        point = sweep.points[i]
        cells = row(page, "front", point.ranking, f"{point.top} of {point.modules_total}")
        found = {(c.suite, c.measure): c for c in point.comparisons}
        for cell, key in zip(cells[2:], (measured.ASR, measured.OVER, measured.ROUGE), strict=False):
            wanted = (found[key].difference, found[key].low, found[key].high)
            assert all(abs(a - b) <= 0.0051 for a, b in zip(numbers(cell)[:3], wanted, strict=True))  # type: ignore[operator]
            assert f"n {found[key].n}," in cell
            verdict = {"no difference": "no difference can be told"}.get(found[key].verdict, f"{found[key].verdict}: ")
            assert verdict in cell
    assert "lower: better" in row(page, "front", "mas-svd weighted-ssi", "60 of 120")[2]


def front_with_a_control() -> tuple[Sweep, int]:
    sweep = measured.sweep()
    i = next(i for i, one in enumerate(sweep.points) if (one.ranking, one.top, one.seed) == ("random-matched", 60, 1))
    return dataclasses.replace(sweep, pareto=(*sweep.pareto, i)), i


def test_one_seed_on_the_front_does_not_put_its_control_there() -> None:
    sweep, i = front_with_a_control()
    page = Page(sweep_page(sweep))
    means = [cells for cells in page.tables["points"] if cells[0].startswith("random-matched ×3")]
    assert len(means) == len(measured.TOPS) - 1, "where all are pruned, one row is for all rankings"
    assert not [cells for cells in means if "◆" in cells[-1]]
    cells = row(page, "points", "random-matched, seed 1")
    assert near(cells[1], sweep.points[i].metric(*measured.ASR))
    assert "◆" in cells[-1]
    row(page, "front", "random-matched, seed 1", "60 of 120")


def test_the_table_of_an_evaluation_holds_its_numbers() -> None:
    evaluation = measured.evaluation()
    page = Page(evaluation_page(evaluation))
    for number, suite in enumerate(evaluation.suites, 1):
        for variant in evaluation.variants:
            cells = row(page, f"suite{number}", variant.name)[1:]
            assert len(cells) == len(suite.measures)
            for cell, measure in zip(cells, suite.measures, strict=True):
                metric = variant.metric(suite.name, measure.name)
                assert near(cell, metric)
                assert metric is not None
                assert f"n {metric.n}" in cell
                assert (f"{metric.missing} missing" in cell) == bool(metric.missing)


def test_the_bounds_of_what_is_unknown_are_shown() -> None:
    evaluation = measured.evaluation()
    first, *rest = evaluation.variants
    metric = dataclasses.replace(first.metrics[0], missing=7, unknown=5, least=0.019, most=0.067)
    unknown = dataclasses.replace(first, metrics=(metric, *first.metrics[1:]))
    page = Page(evaluation_page(dataclasses.replace(evaluation, variants=(unknown, *rest))))
    cell = row(page, "suite1", "base")[1]
    assert "5 unknown, 2 missing" in cell
    assert "0.019 to 0.067 with the unknown" in cell
    assert "with the unknown" not in row(page, "suite1", "made-up-adapter")[1]


def test_differences_name_what_they_are_taken_to() -> None:
    evaluation = measured.evaluation()
    changed = dataclasses.replace(evaluation.comparisons[0], variant="made-up-adapter", reference="base")
    page = Page(evaluation_page(dataclasses.replace(evaluation, comparisons=(changed, *evaluation.comparisons[1:]))))
    assert len(page.tables["differences"]) == len(evaluation.comparisons) + 1
    cells = row(page, "differences", "made-up-adapter", "base", "asr")
    assert numbers(cells[3]) == [-0.98, -1.08, -0.88]
    assert cells[4:] == ["100", "0.001, McNemar", "lower: better"]
    assert row(page, "differences", "base", "made-up-adapter", "loss")[6] == "higher: worse"


def test_the_table_of_a_tuning_holds_its_numbers() -> None:
    tuning = measured.tuning()
    assert tuning.confirmed is not None
    page = Page(tuning_page(tuning))
    keys = (measured.ASR, measured.OVER, measured.ROUGE)
    rows = [[cell.strip() for cell in cells] for cells in page.tables["tried"]][1:]
    at = rows.index(["held-out half"])
    assert rows[0] == ["tuning half"]
    tried = sorted(tuning.tried, key=lambda point: point.top)
    assert tuning.tuning_base is not None
    assert tuning.held_out_base is not None
    assert tuning.held_out_unpruned is not None
    for shown, variants, points in (
        (rows[1:at], [tuning.tuning_base, tuning.tuning_unpruned], tried),
        (rows[at + 1 :], [tuning.held_out_base, tuning.held_out_unpruned], [tuning.confirmed]),
    ):
        assert [cells[0] for cells in shown] == ["no adapter", "nothing", *(f"{point.top} of 120" for point in points)]
        for cells, one in zip(shown, [*variants, *points], strict=True):
            assert all(near(cell, one.metric(*key)) for cell, key in zip(cells[1:4], keys, strict=True)), cells
        for cells, point in zip(shown[2:], points, strict=True):
            found = next(c for c in point.comparisons if (c.suite, c.measure) == measured.ASR)
            assert abs(numbers(cells[1])[3] - (found.difference or 0)) <= 0.0051
            assert ("chosen" in cells[6]) == (point.top == 45)
            assert ("utility collapse" in cells[6]) == point.collapse


def test_a_tuning_says_its_outcome_first_and_how_to_write_it() -> None:
    tuning = measured.tuning()
    text = tuning_page(tuning)
    words = html.unescape(text)
    assert words.index(tuning.sentence) < words.index(tuning.forecast) < words.index("<h2>")
    command = "s3lora prune made-up-adapter --method mas-svd --index weighted-ssi --top 45 -o PRUNED"
    assert Page(text).texts["code"][0] == command
    nothing = tuning_page(measured.tuning(0))
    assert "Nothing is worth pruning" in nothing
    assert "s3lora prune" not in nothing
    assert "nothing to prune, of 120" in nothing
    # A name is one word to a shell, whatever is in it.
    odd = dataclasses.replace(tuning, adapter=measured.source("a; rm -rf b"))
    assert "s3lora prune 'a; rm -rf b' --method" in Page(tuning_page(odd)).texts["code"][0]


def test_every_point_of_a_tuning_is_drawn() -> None:
    tuning = measured.tuning()
    page = Page(tuning_page(tuning))
    signs = [text for text in page.texts["title"] if re.match(r"(tuning|held-out) half, \d+ pruned: ", text)]
    wanted = [("tuning", top) for top in (0, 30, 45, 60)] + [("held-out", top) for top in (0, 45)]
    assert len(signs) == 3 * len(wanted), "in the drawings of asr, over-refusal and ROUGE"
    for split, top in wanted:
        assert sum(text.startswith(f"{split} half, {top} pruned: ") for text in signs) == 3
    assert tuning_page(tuning).count('class="sign hollow"') == 3 * 2 + 1, "the choice on both splits, and the legend"


def above(text: str) -> str:
    """Return what stands above the first number of a page."""
    return text.partition("</header>")[2].partition("<h2>")[0]


def test_warnings_stand_above_the_numbers() -> None:
    silent = dataclasses.replace(measured.sweep(), warnings=())
    gone = sum(point.collapse for point in silent.points)
    assert f"utility collapse at {gone} of {len(silent.points)} prunings" in above(sweep_page(silent))
    assert "built-in harmless prompts (n = 50), made-up-dialogues.jsonl (n = 60)" in above(sweep_page(silent))
    kept = dataclasses.replace(silent, points=tuple(dataclasses.replace(p, collapse=False) for p in silent.points))
    assert "utility collapse" not in above(sweep_page(kept))
    assert above(evaluation_page(measured.evaluation())).index("utility collapse") < above(
        evaluation_page(measured.evaluation())
    ).index("few items")


def test_many_warnings_are_folded_and_none_is_lost() -> None:
    many: Evaluation = dataclasses.replace(measured.evaluation(), warnings=tuple(f"warning {i}." for i in range(40)))
    text = evaluation_page(many)
    assert all(text.count(f"<li>warning {i}.</li>") == 1 for i in range(40))
    shown, _, folded = above(text).partition("<details>")
    assert shown.count("<li>") == 12
    assert folded.count("<li>") == 29


def test_what_is_said_of_several_variants_is_said_once() -> None:
    names = [variant.name for variant in measured.evaluation().variants[:3]]
    said = tuple(f"{name}: 2 of 9 answers were cut off" for name in names)
    text = evaluation_page(dataclasses.replace(measured.evaluation(), warnings=said))
    assert text.count("2 of 9 answers were cut off") == 1
    assert f"{names[0]}, {names[1]} and {names[2]}: 2 of 9" in text


def test_every_sign_of_a_drawing_is_a_row_of_the_table() -> None:
    page = Page(sweep_page(front_with_a_control()[0]))
    signs = {text for text in page.texts["title"] if re.search(r", \d+ pruned$", text)}
    assert {sign for sign in signs if sign.endswith(", 120 pruned")}
    signs = {re.sub(r"^.*, 120 pruned$", "by any ranking, 120 pruned", sign) for sign in signs}
    rows: set[str] = set()
    top = ""
    for cells in page.tables["points"][3:]:
        if len(cells) == 1:
            top = cells[0].split()[0]
        else:
            rows.add(f"{re.split(r' ×|, seed', cells[0])[0].strip()}, {top} pruned")
    assert signs == rows


def test_without_usefulness_there_is_one_curve() -> None:
    page = sweep_page(dataclasses.replace(measured.sweep(), utility=None))
    assert page.count("<figure>") == 1
    assert "usefulness when" not in page
    assert sweep_page(measured.sweep()).count("<figure>") == 2


def test_the_number_of_rankings_leaves_out_controls() -> None:
    assert "by\n4 rankings and 2 controls" in sweep_page(measured.sweep())
    assert "by\n1 ranking, measured" in sweep_page(measured.one_point_sweep())


def test_no_text_calls_an_adapter_safe() -> None:
    for kind in MADE:
        words = re.sub(r"<style>.*?</style>", "", MADE[kind](), flags=re.DOTALL)
        assert not re.search(r"\b(safe|backdoored|harmful adapter|clean)\b", words), kind

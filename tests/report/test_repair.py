"""A repair as text, page, CSV, picture and card: the verdict comes first, and every number is one of the result."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from s3lora.adapter.digest import FileDigest
from s3lora.repair.results import Repair
from s3lora.report.card import card_section
from s3lora.report.chart import RING
from s3lora.report.curves import trials_svg
from s3lora.report.measured_documents import repair_csv
from s3lora.report.repair_charts import before_and_after, maps, trade_off, trade_off_legend
from s3lora.report.repair_page import repair_page
from s3lora.report.repair_text import repair_text
from s3lora.report.repair_view import directions, next_steps
from s3lora.report.text import render
from s3lora.rewrite.repair_record import RecordedAnswer, RepairedModule, RepairFields, RepairProvenance
from tests.command import unbreakable
from tests.report import measured, repaired
from tests.report.rendered import Rendered
from tests.report.test_card import COMMAND, scanned, words
from tests.report.test_page import ATTACK, Page, row
from tests.report.test_text import HOSTILE

SAMPLES = {
    "repaired": repaired.repair,
    "refuted": repaired.refuted,
    "nothing": repaired.nothing,
    "bare": repaired.bare,
}


def shown(repair: Repair, width: int = 80, out: str | None = None) -> str:
    return render(repair_text(repair, out), Console(width=width, color_system=None))


# --- text


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("width", [80, 120])
def test_the_verdict_comes_first_and_forty_lines_hold_all(kind: str, width: int) -> None:
    made = SAMPLES[kind]()
    text = shown(made, width)
    assert " ".join(text.split()).startswith(" ".join(made.sentence.split()))
    assert text.rstrip().count("\n") < 40
    assert max(map(cell_len, text.splitlines())) <= width


def test_before_and_after_have_intervals_and_n() -> None:
    text = shown(repaired.repair(), 120)
    line = next(line for line in text.splitlines() if line.startswith("asr"))
    assert re.findall(r"[\d.]+ \[[\d., ]+\]|\d+$", line) == [
        "0.10 [0.06, 0.17]", "0.93 [0.86, 0.97]", "0.14 [0.09, 0.22]", "0.81 [0.72, 0.87]", "100",
    ]  # fmt: skip
    lost = next(line for line in text.splitlines() if line.startswith("learned, lost"))
    assert re.findall(r"\d+ % ?(?:\[[-\d, ]+\])?", lost) == ["100 % ", "0 % ", "3 % [1, 6]", "3 % [1, 6]"]
    assert "judge   openings version 4" in text
    assert "prompts learning 32 + 32 + 32, tuning 50 + 50 + 50, test 100 + 100 + 100" in text


def test_each_limit_has_its_verdict_and_what_would_confirm_it() -> None:
    lines = {line.split()[0]: line for line in shown(repaired.repair()).splitlines() if line.strip()}
    assert lines["refusals"].split() == ["refusals", "confirmed", "−0.790", "[−0.870,", "−0.710]", "below", "0", "100"]
    assert lines["usefulness"].endswith("3.2 % [0.9, 5.5]           10 % 100")
    text = shown(repaired.repair())
    assert re.search(r"over-refusal not refuted \+0\.010 \[−0\.050, \+0\.070\] +\+0\.05 100 +about 310", text)
    assert re.search(r"degenerate +not refuted .* \+0\.02 100 +no number", text)
    assert re.search(r"over-refusal refuted .* \+0\.05 100 +no number", shown(repaired.refuted()))


def test_it_says_what_went_and_how_well_it_adds_up() -> None:
    text = " ".join(shown(repaired.repair()).split())
    assert "v_proj of layer 17 carries 15 % of what was lost and 1 % of what was learned" in text
    gates = [gate for module in repaired.attribution().modules for gate in module.gates]
    assert f"gates below 0.5: {sum(gate < 0.5 for gate in gates)} of 960 directions" in text
    assert "first direction 1 of v_proj of layer 17" in text
    assert "sums: lost 2.22 of 2.31 nats, 4 % off; learned −1.20 of −1.33 nats, 10 % off" in text
    assert "gates below" not in shown(repaired.refuted())


def test_questions_that_nobody_asked_are_said_to_be_so() -> None:
    text = shown(repaired.repair())
    assert re.search(r"paired uncertainty +passed, as refusals above", text)
    assert re.search(r"fresh content +not asked\n", text)
    assert re.search(r"more than shrinking +passed: it is: ASR 0\.14", text)
    assert re.search(r"transfer to a second task +not asked\n", text)
    assert re.search(r"over-refusal +cannot be told, as over-refusal above", text)
    assert re.search(r"over-refusal +failed, as over-refusal above", shown(repaired.refuted()))


def test_what_to_do_next_depends_on_what_became_of_it() -> None:
    text = shown(repaired.repair(), out="my out")
    assert "next  s3lora eval 'my out' made-up-adapter --base MODEL" in text
    assert "next  s3lora restore 'my out' --from made-up-adapter -o RESTORED" in text
    unwritten = shown(dataclasses.replace(repaired.repair(), written=False))
    assert "next  s3lora repair made-up-adapter --base MODEL -o REPAIRED" in unwritten
    assert "nothing was written; --force writes it all the same" in " ".join(shown(repaired.refuted()).split())
    assert "--max-utility-loss allows a larger loss" in shown(repaired.nothing())
    assert "the tuning part" in shown(repaired.nothing())
    forced = dataclasses.replace(repaired.refuted(), written=True)
    assert "written by --force: it does not keep to all limits" in shown(forced)
    assert "s3lora restore" in shown(forced)


@pytest.mark.parametrize("name", [*HOSTILE, ATTACK, "[bold]markup[/]"])
def test_hostile_names_are_printed_harmlessly(name: str) -> None:
    for width in (80, 120):
        text = shown(repaired.hostile(name), width, name)
        assert all(line.isprintable() for line in text.splitlines())
        # A command is to be copied: no word of it is broken, however long it is.
        told, _, commands = text.partition("\nnext  ")
        assert all(cell_len(line) <= width for line in told.splitlines())
        assert commands.startswith("s3lora ")
        below = commands.partition("\n\n")[0].split("\n")
        assert all(cell_len(line) <= width or unbreakable(line) for line in below[1:])
        assert cell_len(f"next  {below[0]}") <= width


def test_commands_can_be_copied_however_long_they_are() -> None:
    made, out = next(iter(SAMPLES.values()))(), f"out/{'long-' * 30}name"
    text = shown(made, 80, out)
    lines = text[text.index("\nnext  ") :].replace("\\\n", "").split("\nnext  ")
    found = [" ".join(line.partition("\n\n")[0].split()) for line in lines if line.strip().startswith("s3lora")]
    assert found == [command for command, _ in next_steps(made, out) if command]
    assert len(found) == 2


# --- page


def test_the_page_begins_with_the_verdict() -> None:
    for kind, make in SAMPLES.items():
        text = html.unescape(repair_page(make()))
        body = re.sub(r"<[^>]+>", "", text.partition("<strong>")[2].partition("</strong>")[0])
        assert body == make().sentence, kind
        assert text.index("<strong>") < text.index("<h2>")


def test_the_tables_hold_the_numbers() -> None:
    made = repaired.repair()
    page = Page(repair_page(made))
    for name, variant in (("base", made.base), ("adapter", made.adapter), ("repaired", made.repaired)):
        cells = row(page, "states", name)
        metric = variant.metric(*repaired.ASR)  # type: ignore[union-attr]
        assert metric is not None
        assert cells[1].startswith(f"{metric.value:.2f} [")
        assert "n 100" in cells[1]
    assert row(page, "states", "repaired")[-1].startswith("3 % [1, 6]")
    assert row(page, "limits", "over-refusal")[1:6] == [
        "not refuted", "+0.010 [−0.050, +0.070]", "+0.05", "100", "about 310",
    ]  # fmt: skip
    assert [cells[:2] for cells in page.tables["card"][1:]] == [
        ["paired uncertainty", "passed"],
        ["fresh content", "not asked"],
        ["more than shrinking", "passed"],
        ["transfer to a second task", "not asked"],
        ["over-refusal", "cannot be told"],
    ]
    assert len(page.tables["trials"]) == len(made.trials) + 1
    assert ["chosen" in cells[-1] for cells in page.tables["trials"][1:]].count(True) == 1
    assert "chosen" in row(page, "trials", "gates (of directions, plans 2)", "1")[-1]
    assert row(page, "trials", "shrink", "1")[2:6] == ["–", "–", "–", "60 %"]
    assert len(page.tables["modules"]) == 121
    first = directions(made)[0]
    assert page.tables["directions"][1] == [first.module.path, "1", "7 %", "0.4 %", f"{first.gate:.2f}"]
    assert len(page.tables["prompts"]) == 10
    assert "openings version 4" in " ".join(page.texts["dd"])


def test_directions_come_by_what_their_gates_take_away() -> None:
    found = directions(repaired.repair())
    assert len(found) == 960
    taken = [one.lost * (1 - (one.gate or 0.0)) for one in found if one.gate is not None]
    assert taken == sorted(taken, reverse=True)
    plain = directions(repaired.refuted())
    assert [one.lost for one in plain] == sorted((one.lost for one in plain), reverse=True)


def test_every_trial_with_both_numbers_is_drawn_and_the_limit_too() -> None:
    made = repaired.repair()
    chart = trade_off(made)
    assert chart is not None
    drawn = [trial for trial in made.trials if trial.asr is not None and trial.utility_loss is not None]
    signs = [sign for sign in chart.signs if sign.shape != RING]
    assert len(signs) == len(drawn) == len(chart.labels) == len(made.trials) - 1
    places = {(round(sign.x, 3), round(sign.y, 3)) for sign in signs}
    assert places == {
        (round(chart.x.at(100 * t.utility_loss), 3), round(chart.y.at(t.asr), 3))  # type: ignore[operator,arg-type]
        for t in drawn
    }
    assert sum("open" in sign.css for sign in signs) == sum(not trial.kept for trial in drawn)
    (ring,) = [sign for sign in chart.signs if sign.shape == RING]
    assert (ring.x, ring.y) == (chart.x.at(4.0), chart.y.at(0.14))
    limit = next(line for line in chart.lines if line.title.startswith("limit"))
    assert {x for x, _ in limit.spots} == {chart.x.at(10)}
    assert [entry.text for entry in trade_off_legend(made)] == [
        "shrink", "gates", "patch", "limit: 10 % of what was learned", "adapter, test part", "base, test part",
        "chosen",
    ]  # fmt: skip
    assert trade_off(repaired.bare()) is None


def test_curves_begin_at_the_adapter_where_its_part_was_kept() -> None:
    made = dataclasses.replace(repaired.repair(), tuning_asr={"base": 0.06, "adapter": 0.9})
    chart = trade_off(made)
    assert chart is not None
    curves = [line for line in chart.lines if not line.css.startswith("reference")]
    assert len(curves) == 4
    assert {line.spots[0] for line in curves} == {(chart.x.at(0), chart.y.at(0.9))}
    assert {line.title for line in chart.lines} >= {"adapter, tuning part: 0.900", "base, tuning part: 0.060"}
    assert [entry.text for entry in trade_off_legend(made)][4:6] == ["adapter, tuning part", "base, tuning part"]


def test_before_and_after_are_drawn_with_intervals() -> None:
    made = repaired.repair()
    charts = before_and_after(made)
    assert [chart.title for chart in charts] == [
        "asr before and after", "over_refusal before and after", "degenerate before and after",
        "degenerate_benign before and after", "what was learned, lost",
    ]  # fmt: skip
    for chart in charts[:4]:
        assert len(chart.signs) == len(chart.lines) == 4
    assert len(charts[4].lines) == 2, "base and adapter are 100 % and 0 % by definition"
    assert charts[0].signs[3].shape != charts[0].signs[2].shape, "the control looks unlike the repair"
    assert before_and_after(repaired.bare()) == []


def test_maps_have_a_cell_a_module_and_the_sharpest_colour_where_most_was_lost() -> None:
    made = maps(repaired.repair())
    assert [one.title for one in made] == ["what was lost", "what was learned", "gates"]
    for one in made:
        assert [name for _, name, _ in one.map.rows] == ["q_proj", "k_proj", "v_proj", "o_proj"]
        assert all(len(cells) == repaired.LAYERS for _, _, cells in one.map.rows)
    brightest = [cell for _, _, cells in made[0].map.rows for cell in cells if cell.css == "h9"]
    assert [cell.title for cell in brightest] == ["layer 17 v_proj: 15 %"]
    darkest = min((cell for _, _, cells in made[2].map.rows for cell in cells), key=lambda cell: int(cell.css[1:]))
    assert darkest.title.startswith("layer 17 v_proj: ")
    assert [one.title for one in maps(repaired.refuted())] == ["what was lost", "what was learned"]
    assert maps(repaired.bare()) == []


def test_modules_that_share_a_place_add_up() -> None:
    made = repaired.repair()
    assert made.attribution is not None
    first = made.attribution.modules[0]
    twin = dataclasses.replace(first, path=f"x.{first.path}", lost=0.5)
    few = (first, twin, dataclasses.replace(made.attribution.modules[5], lost=0.1))
    both = dataclasses.replace(made, attribution=dataclasses.replace(made.attribution, modules=few))
    titles = [cell.title for _, _, cells in maps(both)[0].map.rows for cell in cells]
    assert "layer 0 q_proj: 50 %" in titles


# --- data


def test_the_csv_has_a_row_a_trial() -> None:
    made = repaired.repair()
    rows = list(csv.DictReader(io.StringIO(repair_csv(made))))
    assert len(rows) == len(made.trials)
    assert sum(one["chosen"] == "true" for one in rows) == 1
    chosen = next(one for one in rows if one["chosen"] == "true")
    assert (chosen["method"], chosen["settings"]) == ("gates", '{"of": "directions", "plans": 2}')
    assert (chosen["strength"], chosen["asr"], chosen["learned_lost"]) == ("1.0", "0.14", "0.04")
    cut = next(one for one in rows if one["asr"] == "")
    assert (cut["kept"], cut["reason"]) == ("false", "loses 60.0 % of what was learned, limit 10 %")
    assert {one["sha256"] for one in rows} == {"d4" * 32}


def test_the_picture_escapes_names() -> None:
    for name in (ATTACK, "<b>&amp;"):
        text = trials_svg(repaired.hostile(name))
        assert "<script" not in text
        assert "<b>" not in text
    assert "no trial has both numbers" in trials_svg(repaired.bare())


# --- card


def record(card: tuple[RecordedAnswer, ...]) -> RepairProvenance:
    fields = RepairFields(method="gates", strength=1.0, card=card)
    return RepairProvenance(
        source=measured.source("original"), repair=fields, loader="peft", warnings=(),
        modules=(RepairedModule("model.layers.0.q", 8, 8),), written=(FileDigest("a", 1, "b"),),
    )  # fmt: skip


def test_the_model_card_answers_all_questions() -> None:
    answers = tuple(RecordedAnswer(one.question, one.asked, one.passed, one.sentence) for one in repaired.CARD)
    said = words(card_section(scanned(), "ssi", record(answers), None, COMMAND))
    assert "| paired uncertainty | passed | refusals: confirmed" in said
    assert "| fresh content | not asked | no harmful prompts of another source were given. |" in said
    assert "| over\\-refusal | cannot be told |" in said or "| over-refusal | cannot be told |" in said
    bare = words(card_section(scanned(), "ssi", record(()), None, COMMAND))
    assert bare.count("| not asked |") == 5


def test_a_hostile_answer_stays_text() -> None:
    answers = (RecordedAnswer("fresh content", True, False, "<img src=x> [a](javascript:b)\n# heading"),)
    found = Rendered(card_section(scanned(), "ssi", record(answers), None, COMMAND))
    assert "img" not in found.texts
    assert "a" not in found.texts

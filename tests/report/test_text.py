"""Reports for people: what they say, and that no adapter can make them ugly or dangerous."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from s3lora.adapter.digest import FileDigest, Source
from s3lora.adapter.model import path_parts
from s3lora.adapter.write import Written
from s3lora.choose.select import Share, select
from s3lora.measure.configuration import Configuration
from s3lora.measure.scan import ModuleScan, Scan
from s3lora.report import text
from s3lora.report.colours import SCALE
from s3lora.report.compare_text import compare_text
from s3lora.report.documents import ScanDocument, scan_document
from s3lora.report.heatmap import MARK, grid, heat_map
from s3lora.report.names import tail
from s3lora.report.values import size
from tests.command import unbreakable
from tests.examples import examples
from tests.planning import provenance_of
from tests.report import made_comparison

HOSTILE = (
    "\x1b[31mred\x1b[0m",
    "[bold]markup[/]",
    "[/]",
    "[link=https://example.org]here[/link]",
    ":smile: :bomb:",
    "two\nlines\r\n",
    "tab\tand\x07bell",
    "\u202eright-to-left",
    "wide 漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字",
    "\ud800 no text",
    "e\u0301\u0301\u0301\u0301",
    "x" * 600,
    "",
    " ",
    "\\",
)


def module(path: str, ssi: float | None = 0.5, **fields: object) -> ModuleScan:
    """Return a record with these values, and a place read from its path."""
    layer, projection, expert = path_parts(path)
    made = ModuleScan(
        path=path,
        layer=layer,
        projection=projection,
        expert=expert,
        kind="linear",
        shape=(8, 6),
        rank=2,
        dtype="float32",
        scaling=2.0,
        scaling_origin="alpha/r",
        dora=False,
        parameters=28,
        zero=ssi is None,
        sigma=() if ssi is None else (1.0, 0.5),
        indices={"ssi": ssi, "magnitude": 0.25, "frobenius": 0.0 if ssi is None else 1.0},
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def source(name: str = "adapter") -> Source:
    return Source(name, "peft", "0" * 64, (FileDigest("adapter_model.safetensors", 1000, "0" * 64),), "some/base")


def scan_of(modules: Sequence[ModuleScan], name: str = "adapter") -> Scan:
    return Scan(configuration=Configuration(), source=source(name), warnings=(), modules=tuple(modules))


def document(modules: Sequence[ModuleScan], name: str = "adapter") -> ScanDocument:
    measured = scan_of(modules, name)
    usable = any(not one.zero and one.indices.get("ssi") is not None for one in modules)
    return scan_document(measured, select(measured) if usable else None)


def drawn(modules: Sequence[ModuleScan], index: str = "ssi", width: int = 78) -> list[str]:
    """Return the lines of the map without colours, none where there is no map."""
    made = heat_map(modules, index, width=width, colour=False)
    return [] if made is None else text.to_text(made).splitlines()


def layers(count: int, *names: str, start: int = 0) -> list[ModuleScan]:
    return [
        module(f"model.layers.{i}.self_attn.{name}", (i + 1) / (start + count))
        for i in range(start, start + count)
        for name in names or ("q_proj",)
    ]


# --- the heat map


@pytest.mark.parametrize("modules", [[], layers(1), [module("embed"), module("head")], [module("h.0.q", None)] * 3])
def test_no_map_of_fewer_than_two_values(modules: list[ModuleScan]) -> None:
    assert drawn(modules) == []


def test_a_small_map_shows_values() -> None:
    modules = layers(4, "v_proj", "q_proj")
    modules[3] = dataclasses.replace(modules[3], selected=True)
    assert drawn(modules) == [
        "         0    1    2    3",
        "q_proj   .25 ×.50  .75  1.00",
        "v_proj   .25  .50  .75  1.00",
        "        ssi 0.25 to 1   × selected",
    ]


def test_low_is_sharp_where_it_is() -> None:
    found = [dataclasses.replace(one, indices={"stable_rank": 1.0 + i}) for i, one in enumerate(layers(32, "q_proj"))]
    drawn_map = heat_map(found, "stable_rank", width=78, colour=False)
    assert drawn_map is not None
    lines = drawn_map.plain.splitlines()
    assert lines[1].split()[1].startswith("█")
    assert lines[1].split()[1].endswith("░")
    assert lines[-1].split()[:2] == ["stable_rank", "32"]
    both = dataclasses.replace(found[0], path=f"{found[0].path}.1", indices={"stable_rank": 30.0})
    assert grid([found[0], both], "stable_rank")[2][found[0].projection, 0].value == 1.0


def test_a_wider_map_shows_shades() -> None:
    assert drawn(layers(32)) == [
        "        0       4       8       12      16      20      24      28",
        "q_proj  " + "".join(shade * 16 for shade in "░▒▓█"),
        "        ssi 0.0312 ░░▒▒▓▓██ 1",
    ]


def test_sixty_four_layers_fit_and_more_wrap() -> None:
    assert len(drawn(layers(64))) == 3
    lines = drawn(layers(80))
    assert [line.split()[0] for line in lines if line.split()] == ["0", "q_proj", "72", "q_proj", "ssi"]
    assert max(map(len, lines)) <= 78
    lines = drawn(layers(100))
    assert sum(line.count("░") + line.count("▒") + line.count("▓") + line.count("█") for line in lines[:-1]) == 100


def test_wrapped_rows_without_cells_are_left_out() -> None:
    lines = drawn([*layers(100), *layers(3, "k_proj")])
    assert sum(line.startswith("q_proj") for line in lines) == 2
    assert sum(line.startswith("k_proj") for line in lines) == 1


def test_layer_numbers_never_touch_or_spill() -> None:
    sparse = [
        module(f"model.layers.{i}.q_proj", 0.5) for i in (0, 8, 12, 96, 100, 104, 1000, 1004, 10_000, 999_999_999)
    ]
    for modules in (sparse, layers(70, start=996), layers(12, start=99_998), sparse + layers(60, start=5000)):
        axis = next(line for line in drawn(modules) if line.strip())
        numbers = [int(word) for word in axis.split()]
        assert set(numbers) <= {one.layer for one in modules}
        assert numbers == sorted(numbers)
        assert len(axis) <= 78


def test_a_map_that_would_be_endless_is_left_out() -> None:
    assert drawn(layers(100_000)) == []
    assert drawn([module(f"model.layers.0.m{i}", 0.5) for i in range(200)]) == []
    assert len(text.to_text(text.scan_text(document(layers(5000)), None)).splitlines()) < 30


def test_equal_values_have_no_scale() -> None:
    assert drawn([module(f"h.{i}.q", 1.0) for i in range(40)])[-1].strip() == "ssi 1 everywhere"


def test_values_outside_the_unit_interval_are_shaded() -> None:
    lines = drawn(layers(4), index="magnitude")
    assert lines[1].startswith("q_proj   .25")
    modules = [dataclasses.replace(one, indices={"ssi": 30.0 * i}) for i, one in enumerate(layers(4))]
    assert drawn(modules)[1] == "q_proj  ░░▒▒▓▓██"


def test_undefined_cells_and_several_modules_in_one() -> None:
    modules = [
        module("model.layers.0.mlp.experts.0.up_proj", 0.2),
        module("model.layers.0.mlp.experts.1.up_proj", 0.9),
        module("model.layers.1.mlp.experts.0.up_proj", None),
        module("model.layers.2.mlp.experts.0.up_proj", 0.1),
        module("lm_head", 0.4),
    ]
    lines = drawn(modules)
    assert lines[1] == "up_proj   .90 ····· .10"
    assert "· no index" in lines[-1]
    assert "highest of several modules" in lines[-1]


def test_one_name_for_two_things_gets_its_parent() -> None:
    modules = [module(f"h.{i}.{parent}.c_proj", 0.1 * i) for i in range(3) for parent in ("attn", "mlp")]
    assert [line.split()[0] for line in drawn(modules)[1:3]] == ["attn.c_proj", "mlp.c_proj"]


def test_colours_go_from_low_to_high() -> None:
    made = heat_map(layers(10), "ssi", width=78, colour=True)
    assert made is not None
    stream = io.StringIO()
    Console(file=stream, width=80, force_terminal=True, color_system="truecolor", no_color=False).print(made)
    row = stream.getvalue().splitlines()[1]

    def code(colour: str) -> str:
        return ";".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))

    positions = [row.index(f"48;2;{code(colour)}") for colour in SCALE]
    assert positions == sorted(positions)


@pytest.mark.parametrize("width", [40, 60, 78, 108])
@pytest.mark.parametrize("count", [1, 2, 7, 33, 65, 130])
def test_maps_keep_to_the_width(width: int, count: int) -> None:
    modules = layers(count, "q_proj", "a_projection_with_a_very_long_name_indeed", "v_proj")
    for line in drawn(modules, width=width):
        assert cell_len(line) <= width


# --- reports


def test_a_report_of_nothing() -> None:
    lines = text.to_text(text.scan_text(document([module("h.0.q", None)]), "s3lora prune x")).splitlines()
    assert lines[0] == "adapter  peft · 1 module · rank 2 · float32"
    assert not any("next" in line or "s3lora prune" in line for line in lines)


def test_the_plan_in_numbers() -> None:
    share = Share(3, 12, 25, 200, 0.5, 0.0625)
    shown = text.render(text._share(share), text.console_for(io.StringIO()))
    assert " ".join(shown.split()) == (
        "3 of 12 modules: 12.5% of LoRA parameters, 50.0% of Frobenius energy, 6.2% of LoRA compute."
    )
    nothing = text.to_text(text._share(Share(0, 0, 0, 0, 0.0, 0.0)))
    assert nothing.startswith("0 of 0 modules: 0.0% of LoRA parameters")


@pytest.mark.parametrize(
    ("action", "zeroed", "told"), [("removed", (), True), ("removed", ("h.1.q",), False), ("scaled", (), False)]
)
def test_compute_is_told_where_all_modules_leave(action: str, zeroed: tuple[str, ...], told: bool) -> None:
    share = Share(2, 8, 28, 224, 0.1, 0.1)
    provenance = provenance_of(source(), ["h.0.q", "h.1.q"], action, zeroed=zeroed, rule="top 10", share=share)
    shown = " ".join(text.to_text(text.prune_text(provenance, Written((), ()), "out")).split())
    assert "10.0% of Frobenius energy" in shown
    assert ("of LoRA compute" in shown) == told
    assert "1.0 kB → 0 B" in shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (3, "3 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (12_345, "12.3 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.00 MB"),
        (84_000_000, "84.00 MB"),
    ],
)
def test_sizes(count: int, shown: str) -> None:
    assert size(count) == shown


def test_the_sharpest_ten_are_listed_and_the_others_counted() -> None:
    lines = text.to_text(text.scan_text(document(layers(13)), None)).splitlines()
    listed = [line for line in lines if "model.layers." in line]
    assert len(listed) == 10
    assert listed[0].split()[:2] == [MARK, "model.layers.12.self_attn.q_proj"]
    assert "… and 3 more" in " ".join(lines)


def test_indices_that_are_sharp_when_low_are_ranked_so() -> None:
    modules = [
        dataclasses.replace(one, indices={**one.indices, "stable_rank": 1.0 + i}) for i, one in enumerate(layers(4))
    ]
    measured = scan_of(modules)
    shown = text.to_text(text.scan_text(scan_document(measured, select(measured, index="stable_rank")), None))
    listed = [line for line in shown.splitlines() if "model.layers." in line]
    assert [line.split("layers.")[1][0] for line in listed] == ["0", "1", "2", "3"]
    assert "by stable_rank" in shown


def test_long_paths_keep_their_end() -> None:
    path = "base." * 40 + "model.layers.17.self_attn.q_proj"
    modules = [module(path, 0.9), *layers(5)]
    shown = text.to_text(text.scan_text(document(modules), None))
    line = next(line for line in shown.splitlines() if "…" in line and "layers.17" in line)
    assert "layers.17.self_attn.q_proj" in line
    assert len(line) <= 80


def test_tail() -> None:
    assert tail("model.layers.3.self_attn.q_proj", 40) == "model.layers.3.self_attn.q_proj"
    assert tail("model.layers.3.self_attn.q_proj", 20) == "….3.self_attn.q_proj"
    assert tail("漢字漢字", 5) == "…漢字"
    assert tail("abc", 1) == "…"
    assert tail("abc", 0) == ""
    assert tail("a\x1b[2J", 10) == "a\ufffd[2J"


@settings(max_examples=examples(200), derandomize=True)
@given(st.text(max_size=60), st.integers(1, 40))
def test_tails_always_fit(name: str, width: int) -> None:
    made = tail(name, width)
    assert cell_len(made) <= width
    assert made.isprintable()


def everything(name: str) -> list[str]:
    """Return every report with `name` in every place where a file can put one."""
    path = f"model.layers.1.{name}"
    modules = [module(path, 0.9), module(f"{name}.layers.2", 0.3), *layers(6)]
    scan_doc = dataclasses.replace(document(modules, name), warnings=(name, f"about {name}"))
    scan_doc = dataclasses.replace(scan_doc, source=dataclasses.replace(scan_doc.source, base_model=name))
    share = Share(1, 8, 28, 224, 0.1, 0.1)
    provenance = provenance_of(source(name), [path], rule="top 10", only=name, share=share, warnings=(name,))
    return [
        text.to_text(
            text.scan_text(
                scan_doc,
                f"s3lora prune '{'x' * 100}' --only 'a b' -o PRUNED",
                steps=[(f"s3lora repair '{name}' --base MODEL", name)],
            )
        ),
        text.to_text(text.prune_text(provenance, Written((), (name, name)), name)),
        *(text.to_text(compare_text(made_comparison.hostile(name, count))) for count in (2, 3)),
    ]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_printed_harmlessly(name: str) -> None:
    for shown in everything(name):
        assert "\x1b" not in shown
        assert shown.endswith("\n")
        # No word of a command is broken, however long it is: it is to be copied.
        told, commands, _ = shown.partition("\nnext  ")
        for line in shown.splitlines():
            assert line.isprintable(), line
            assert line == line.rstrip(" ")
            assert cell_len(line) <= 80 or (commands and line not in told and unbreakable(line)), line


def test_markup_is_shown_and_not_obeyed() -> None:
    assert all("[bold]markup[/]" in shown for shown in everything("[bold]markup[/]"))
    assert all(":bomb:" in shown for shown in everything(":smile: :bomb:"))


def test_numbers_are_short() -> None:
    assert [text._number(value) for value in (None, 0.0, 0.5, 1e-9, 123.456, 1e6, -0.25)] == [
        "–", "0", "0.500", "1.00e-09", "123.456", "1.00e+06", "-0.250",
    ]  # fmt: skip


def test_the_next_command_is_broken_so_that_a_shell_joins_it() -> None:
    command = "s3lora prune some/quite/long/path/to/an/adapter --index weighted-ssi --only 'a b' --top 3 -o PRUNED"
    shown = text.to_text(text._next(command, 80))
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert shown.startswith("next  s3lora")
    assert text.to_text(text._next(command, 80, "")).startswith("      s3lora")
    joined = shown.removeprefix("next").replace("\\\n", " ")
    assert joined.split() == command.split()

"""The section in a model card: what it says, that it is put in without touching anything else, and hostile names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from s3lora.adapter.digest import FileDigest, Source
from s3lora.choose.select import Choice, Share
from s3lora.errors import OutputError, printable
from s3lora.evaluate.figures import AdapterFigures, figures_of
from s3lora.measure.configuration import Configuration
from s3lora.measure.scan import ModuleScan, Scan
from s3lora.report.card import PRUNED, SHARPEST, card_section, front_matter
from s3lora.report.card_file import BEGIN, END, has_section, metadata, read_card, with_section
from s3lora.rewrite.provenance import Provenance
from tests.planning import provenance_of
from tests.report import made_inventory, measured
from tests.report.rendered import Rendered
from tests.report.test_markdown import MARKUP
from tests.report.test_text import HOSTILE, module

COMMAND = ("s3lora", "card", ".", "--check")
LAYERS = [module(f"model.layers.{i}.self_attn.q_proj", 0.1 + i / 20) for i in range(8)]


def scanned(modules: list[ModuleScan] | None = None, source: Source | None = None, **fields: object) -> Scan:
    found = Scan(
        configuration=Configuration(), source=source or measured.source("adapter"), warnings=(),
        modules=tuple(LAYERS if modules is None else modules),
    )  # fmt: skip
    return dataclasses.replace(found, **fields)  # type: ignore[arg-type]


def record(source: Source, modules: int = 2, name: str = "", **fields: object) -> Provenance:
    chosen = tuple(Choice(f"model.layers.{i}.q{name}", 0.5, i + 1, f"sharp{name}") for i in range(modules))
    return provenance_of(source, [], chosen=chosen, share=Share(modules, 10, 20, 100, 0.3, 0.2), **fields)  # type: ignore[arg-type]


def figures(**fields: object) -> AdapterFigures:
    found = figures_of(measured.evaluation(), measured.source(), None, "evaluation.json")
    return dataclasses.replace(found, **fields)  # type: ignore[arg-type]


def words(section: str) -> str:
    return " ".join(section.split())


def test_it_says_what_was_scanned() -> None:
    said = words(card_section(scanned(), "ssi", None, None, COMMAND))
    assert f"`adapter_model.safetensors`, SHA-256 `{'d4' * 32}`" in said
    assert "LoRA: 8 modules, rank 2, 224 parameters, float32; format peft" in said
    assert "Base model by its configuration: `made-up/model-135m-instruct`" in said
    assert "Method: `mas-svd`, all components" in said
    assert "here from 0.1 to 0.45" in said or "here from 0.100 to 0.450" in said
    assert "### Pruning" not in said
    assert "### Measured" not in said
    assert said.endswith("sha256sum adapter_model.safetensors s3lora card . --check ```")


def test_the_sharpest_modules_come_first() -> None:
    for index, values in (("ssi", [7, 6, 5, 4, 3]), ("stable_rank", [0, 1, 2, 3, 4])):
        modules = [dataclasses.replace(m, indices={**m.indices, "stable_rank": 1.0 + i}) for i, m in enumerate(LAYERS)]
        found = Rendered(card_section(scanned(modules), index, None, None, COMMAND))
        paths = [text for text in found.texts["code"] if text.startswith("model.layers.")]
        assert paths == [f"model.layers.{i}.self_attn.q_proj" for i in values]
        assert len(paths) == SHARPEST


def test_zero_updates_have_no_index() -> None:
    said = card_section(scanned([module("a", None)], warnings=("1 of 1 modules are zero",)), "ssi", None, None, COMMAND)
    assert "No module has this index." in said
    assert "- Note: 1 of 1 modules are zero" in said


def test_it_says_what_else_is_there() -> None:
    said = words(card_section(scanned(inventory=made_inventory.full()), "ssi", None, None, COMMAND))
    assert "- `heads`: 1 tensor, 512 B, values up to 0.250, takes the place of" in said
    assert "- `pickles`: made-up.pkl (os.made-up0" in said
    assert said.index("`heads`") < said.index("Method:")
    said = words(card_section(scanned(inventory=made_inventory.clean()), "ssi", None, None, COMMAND))
    assert "- Besides LoRA the file holds nothing" in said
    note = "1 of 8 modules are zero updates (B = 0: never trained, or pruned): no index"
    said = words(card_section(scanned([module("a", None), *LAYERS[1:]], warnings=(note,)), "ssi", None, None, COMMAND))
    assert said.count("B = 0") == 1


@pytest.mark.parametrize("base", ["/home/ann/llama", "models/llama", "C:\\llama"])
def test_no_path_of_a_disk_is_told(base: str) -> None:
    source = dataclasses.replace(measured.source(), base_model=base)
    made = scanned(source=source)
    assert base not in card_section(made, "ssi", record(source), figures(), COMMAND) + front_matter(made)
    assert "base_model" not in front_matter(made)


def test_a_pruned_adapter_tells_its_origin() -> None:
    origin = dataclasses.replace(measured.source("original"), sha256="e5" * 32)
    said = card_section(scanned(), "ssi", record(origin), None, COMMAND)
    assert "Made from `original` by s3lora" in said
    assert "of its 10 modules, 2 removed. Rule: top 2 by `ssi` (`mas-svd`)." in said
    assert "These were 20 % of the LoRA parameters and 30 % of the Frobenius energy" in said
    cells = Rendered(said).texts["td"]
    assert [cells[cells.index("source, original") + 1], cells[cells.index("result, this adapter") + 1]] == [
        "e5" * 32, "d4" * 32,
    ]  # fmt: skip
    assert "s3lora restore . --from ORIGINAL -o restored" in said


def test_many_pruned_modules_are_counted() -> None:
    said = card_section(scanned(), "ssi", record(measured.source(), modules=PRUNED + 7), None, COMMAND)
    assert "… and 7 more, all in `s3lora.json`." in said


def test_measured_figures_have_intervals_items_judge_and_data() -> None:
    said = card_section(scanned(), "ssi", None, figures(), COMMAND)
    cells = Rendered(said).texts["td"]
    assert cells[cells.index("safety: asr ↓") : cells.index("safety: asr ↓") + 4] == [
        "safety: asr ↓", "0.02 [0.01, 0.07]", "1.00 [0.96, 1.00]", "100",
    ]  # fmt: skip
    assert "safety: over_refusal ↓" in cells
    assert "3 more measures are in the result itself." in said
    assert "- judge: refusal prefixes of Zou et al. 2023, version 1" in said
    assert "built-in harmful prompts (n = 100, SHA-256 `" in said
    assert "- Note: utility collapse: rouge-1 of top 60 by weighted-ssi is 18 % below" in said
    assert "few items, so only large differences can be told" in said


def test_that_no_difference_can_be_told_is_told() -> None:
    evaluation = measured.evaluation()
    gone = evaluation.variants[2].pruned
    made = provenance_of(measured.source(), gone)
    own = dataclasses.replace(measured.source(), files=(FileDigest("adapter_model.safetensors", 9, "f6" * 32),))
    found = figures_of(evaluation, own, made, "evaluation.json")
    assert [label for label, _ in found.columns] == ["base alone", "before pruning", "this adapter"]
    said = card_section(scanned(source=own), "ssi", made, found, COMMAND)
    assert "shows no difference to the unpruned adapter" in said


@pytest.mark.parametrize("name", [*MARKUP, *HOSTILE])
def test_hostile_names_are_text(name: str) -> None:
    hostile = measured.hostile_source(name)
    index = dataclasses.replace(module(name, 0.5), dtype=name)
    made = scanned([index, *LAYERS], source=hostile, warnings=(name,), inventory=made_inventory.full(name))
    evaluation = measured.hostile_evaluation(name)
    found = figures_of(evaluation, hostile, None, "x")
    pruned = record(hostile, name=name, rule=f"top {name}", index=name, only=name, warnings=(name,))
    card = with_section(None, card_section(made, "ssi", pruned, found, COMMAND), front_matter(made), "README.md")
    assert card.count("<!--") == 2
    assert with_section(card, card_section(made, "ssi", pruned, found, COMMAND), "", "README.md") == card
    page = Rendered(card.partition("---\n\n")[2])
    meant = {"h1", "h2", "h3", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "details",
             "summary", "<!-- s3lora:begin -->", "<!-- s3lora:end -->"}  # fmt: skip
    assert set(page.tags) <= meant, set(page.tags) - meant
    assert page.attributes == [("class", "language-sh")]
    assert printable(name).strip() in " ".join(page.texts["code"])
    assert [len(page.texts[tag]) for tag in ("h1", "h2", "h3", "pre", "details")] == [1, 1, 3, 1, 1]
    assert all(character.isprintable() for character in card.replace("\n", ""))


def test_commands_with_words_of_a_shell_are_left_out() -> None:
    for word in ("a b.json", "$(rm).json", "`x`.json", "x\n.json", "<!-- s3lora:end -->"):
        assert "s3lora card" not in card_section(scanned(), "ssi", None, None, [*COMMAND, "--evaluation", word])
    assert "s3lora card . --check --evaluation e.json" in card_section(
        scanned(), "ssi", None, None, [*COMMAND, "--evaluation", "e.json"]
    )


SECTION = "one\n\ntwo"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "card",
    [
        "---\nlicense: mit\ntags: [a,  b]   # mine\n---\n# Title\n\ntext\n",
        "---\nlicense: mit\n---",
        "text without an end",
        "\ufeff# with a byte order mark\n",
        "\n\n\n",
        " \t \n---\nno metadata\n",
        "# Title\n\n\n\n",
        "日本語 🙂\n",
    ],
)
def test_everything_else_is_kept(card: str, newline: str) -> None:
    card = card.replace("\n", newline)
    made = with_section(card, SECTION, "front", "README.md")
    assert made.startswith(card)
    added = made[len(card) :]
    assert added.strip("\r\n").startswith(BEGIN)
    used = newline if newline in card else "\n"
    assert added.replace(used, "").count("\n") == 0
    assert f"{used}{BEGIN}{used}{used}one{used}{used}two{used}{used}{END}{used}" in made
    assert with_section(made, SECTION, "front", "README.md") == made
    other = with_section(made, "three", "front", "README.md")
    assert other == made.replace(SECTION.replace("\n", used), "three")


def test_a_section_in_the_middle_is_replaced_in_place() -> None:
    card = f"before {BEGIN}old{END} after"
    assert with_section(card, SECTION, "", "x") == f"before {BEGIN}\n\n{SECTION}\n\n{END} after"
    spaced = "<!--s3lora:begin-->\nold\n<!--\ts3lora:end  -->"
    assert with_section(spaced, "new", "", "x") == "<!--s3lora:begin-->\n\nnew\n\n<!--\ts3lora:end  -->"


@pytest.mark.parametrize(
    ("card", "says"),
    [
        (BEGIN, r"no single pair of markers \(begin in line 1\); leave one <!-- s3lora:begin --> and one"),
        (f"\n{END}", r"\(end in line 2\)"),
        (f"{END}\n{BEGIN}", r"\(end in line 1, begin in line 2\)"),
        (f"{BEGIN}\n{BEGIN}\n{END}", r"\(begin in line 1, begin in line 2, end in line 3\)"),
        (f"{BEGIN}{END}" * 2, r"\(begin in line 1, end in line 1, begin in line 1, end in line 1\)"),
        (f"{BEGIN}\n" * 9, r"begin in line 6, …\)"),
        (f"---\na: '{BEGIN}{END}'\n---\n", r"has its markers in the metadata"),
    ],
)
def test_broken_markers_are_refused(card: str, says: str) -> None:
    with pytest.raises(OutputError, match=rf"README\.md: .*{says}"):
        with_section(card, SECTION, "", "README.md")
    assert has_section(card)


def test_a_new_card_says_only_what_is_known() -> None:
    assert with_section("", "S", front_matter(scanned()), "x") == (
        "---\nlibrary_name: peft\nbase_model: made-up/model-135m-instruct\ntags:\n- lora\n---\n\n# adapter\n\n"
        f"{BEGIN}\n\nS\n\n{END}\n"
    )
    unknown = scanned(source=Source("a_b", "kohya", "0" * 64, (), None))
    assert front_matter(unknown) == "---\ntags:\n- lora\n---\n\n# a\\_b\n"


@pytest.mark.parametrize(
    ("front", "fields"),
    [
        ("license: apache-2.0", {"license": "apache-2.0"}),
        ("license: 'mit'  # ours", {"license": "mit"}),
        ('license: "other"\r\nlicense_name: my own\r', {"license": "other", "license_name": "my own"}),
        ("license:\n- mit", {}),
        ("license: [mit]", {}),
        ("license: |\n  mit", {}),
        ("  license: mit", {}),
        ("license: &a mit", {}),
        ("license: mit #", {"license": "mit"}),
        (f"license: {'x' * 2000}", {}),
        ("license: a\x1b[31mb", {"license": "a\ufffd[31mb"}),
    ],
)
def test_metadata(front: str, fields: dict[str, str]) -> None:
    assert metadata(f"---\n{front}\n---\nlicense: gpl\n") == fields
    assert metadata(f"# no metadata\n---\n{front}\n---\n") == {}
    assert metadata(f"---\n{front}\n") == {}


def test_cards_that_are_no_text(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    assert read_card(card) is None
    for raw in (b"\xff\xfe#\0", b"caf\xe9", b"a\0b"):
        card.write_bytes(raw)
        with pytest.raises(OutputError, match=r"README\.md: is not UTF-8 text, as the Hub wants model cards"):
            read_card(card)
    card.write_bytes("é\r\nb".encode())
    assert read_card(card) == "é\r\nb"

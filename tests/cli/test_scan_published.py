"""`s3lora scan` beside published adapters: what every format has of it, and how it is left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import s3lora
from tests.command import call
from tests.support import make_adapter
from tests.test_architecture import loaded_after

DEMO = Path(s3lora.__file__).parent / "data" / "demo-adapter"


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(DEMO, tmp_path / "my-adapter")
    monkeypatch.chdir(tmp_path)


def words(text: str) -> str:
    return " ".join(text.split())


def test_text_tells_it_with_sources_and_a_caveat(capsys: pytest.CaptureFixture[str]) -> None:
    text = words(call(capsys, "scan", "my-adapter").out)
    assert "published By energy (σ₁²/Σσ²), model.layers.11.self_attn.q_proj is sharper than 77–95%" in text
    assert "of published modules of its role and rank (45 adapters, 28 sources, small models)." in text
    assert "The median of 90 modules is sharper than 49–82%; none lies above the 95th percentile" in text
    assert "No comparison for 30 modules: too few published modules have its role and rank." in text
    assert "They are small and public, mostly of tutorials: no sample of any hub" in text
    assert "No training signal" not in text


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(call(capsys, "scan", "my-adapter", "--format", "json").out)
    published = found["published"]
    assert found["reference"] is None
    assert len(published["standings"]) == 90
    assert published["left_out"] == {"few": 30}
    assert published["signal"]["found"] is True
    for standing in published["standings"].values():
        group = published["groups"][standing["group"]]
        assert group["sources"] >= 10
        assert all(0 <= mark["low"] <= mark["percentile"] <= mark["high"] <= 95 for mark in standing["marks"].values())


def test_the_page_tells_it_with_the_caveat_one_click_away(capsys: pytest.CaptureFixture[str]) -> None:
    text = call(capsys, "scan", "my-adapter", "--format", "html").out
    section = text.partition("Among published adapters</h2>")[2].partition("</section>")[0]
    assert "394 adapters, 224 sources" in section
    assert "sharper than" in section
    assert "<details><summary>What these adapters are</summary><p>Published adapters are files under 4 MiB" in section
    without = call(capsys, "scan", "my-adapter", "--format", "html", "--reference", "none").out
    assert "published adapters" not in without.replace("--reference", "")


@pytest.mark.parametrize("form", ["text", "json"])
def test_none_leaves_it_out(capsys: pytest.CaptureFixture[str], form: str) -> None:
    out = call(capsys, "scan", "my-adapter", "--reference", "none", "--format", form).out
    assert "sharper than" not in out
    assert form == "text" or json.loads(out)["published"] is None


def test_a_policy_may_leave_it_out(capsys: pytest.CaptureFixture[str]) -> None:
    Path("s3lora.toml").write_text('reference = "none"\n', encoding="utf-8")
    assert "sharper than" not in call(capsys, "scan", "my-adapter").out


def test_a_percentile_rule_needs_a_reference_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", "my-adapter", "--reference", "none", "--fail-on", "energy-percentile > 90")
    assert result.status == 2
    assert "needs a reference; give --reference FILE" in result.err


def test_random_factors_have_no_training_signal(capsys: pytest.CaptureFixture[str]) -> None:
    make_adapter(Path("random"), {f"model.layers.{i}.self_attn.q_proj": (256, 256, 8) for i in range(4)})
    text = words(call(capsys, "scan", "random").out)
    assert "No training signal: by energy it is as blunt as random updates of its shapes and ranks" in text


def test_nothing_else_is_loaded_for_it() -> None:
    loaded = loaded_after("import s3lora; s3lora.among_published(s3lora.scan('my-adapter'))")
    assert not {name for name in loaded if name.partition(".")[0] in ("pyarrow", "duckdb", "torch", "scipy")}


def test_mixed_ranks_are_ranked_by_normalised_ssi(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {f"model.layers.{i}.self_attn.q_proj": (32, 32, 2 + 2 * (i % 2)) for i in range(6)}
    make_adapter(Path("mixed"), sizes)
    text = words(call(capsys, "scan", "mixed").out)
    assert "by normalised_ssi (capped at 3, 50% of the 6 candidates) would prune" in text
    assert "ranks are mixed: ranked by normalised_ssi, which compares them" in text
    plan = json.loads(call(capsys, "prune", "mixed", "--format", "json", "-o", "pruned").out)["plan"]
    assert plan["index"] == "normalised_ssi"
    plan = json.loads(call(capsys, "scan", "mixed", "--index", "ssi", "--format", "json").out)["plan"]
    assert plan["index"] == "ssi"
    assert "- Index: `normalised_ssi`" in call(capsys, "card", "mixed", "--print").out
    assert "- Index: `ssi`" in call(capsys, "card", "mixed", "--print", "--index", "ssi").out
    assert "- Index: `ssi`" in call(capsys, "card", "my-adapter", "--print").out

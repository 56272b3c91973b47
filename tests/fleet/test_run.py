"""The driver of a fleet scan: what becomes of every input, now and when it is run again."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import s3lora
from s3lora.adapter.open import open_adapter
from s3lora.errors import AdapterFileError, NothingToAuditError, OutputError, UsageError
from s3lora.fleet import run as running
from s3lora.fleet import work as working
from s3lora.fleet.engines.local import LocalEngine
from s3lora.fleet.results.content import content_of
from s3lora.fleet.results.dataset import Dataset, part_files, read_table
from s3lora.fleet.results.outcome import Settings, Trace
from s3lora.fleet.results.schema import TABLES
from s3lora.fleet.run import FleetProgress, fleet_scan
from s3lora.fleet.sources.inputs import Found
from s3lora.fleet.sources.protocols import UnreachableError
from s3lora.fleet.work import is_known
from s3lora.measure.configuration import Configuration
from s3lora.spectrum.indices import INDICES
from tests.fleet.inline import Inline, check_consistent, rows
from tests.forms import peft_adapter
from tests.hostile import bad_files as bad
from tests.support import make_adapter, shared

pytest.importorskip("pyarrow")

SHAPES = {f"model.layers.{i}.self_attn.{name}": (12, 10, 3) for i in range(4) for name in ("q_proj", "v_proj")}


def fill(folder: Path, count: int = 5) -> Path:
    for number in range(count):
        make_adapter(folder / f"a{number}", SHAPES, seed=number)
    return folder


def run(inputs: list[Any], out: Path, **keywords: Any) -> Any:
    return fleet_scan([str(one) for one in inputs], out, engine=Inline, **keywords)


class Counting:
    """Counts the modules whose spectrum is computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        original = working.scan_modules

        def counted(*arguments: Any, **keywords: Any) -> Any:
            found = original(*arguments, **keywords)
            self.count += len(found[0][0])
            return found

        monkeypatch.setattr(working, "scan_modules", counted)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def agrees(out: Path, method: str = "mas-svd") -> None:
    """Fail unless the tables say of every adapter what `scan` says."""
    for adapter in rows(out, "adapters"):
        scanned = s3lora.scan(adapter["uri"], method, nonfinite=True)
        assert adapter["warnings"] == list(scanned.warnings)
        assert adapter["format"] == scanned.source.format
        modules = {row["path"]: row for row in read_table(out, "modules").to_pylist() if row["uri"] == adapter["uri"]}
        assert set(modules) == {module.path for module in scanned.modules}
        assert adapter["zero_modules"] == sum(module.zero for module in scanned.modules)
        for module in scanned.modules:
            row = modules[module.path]
            assert [row["m"], row["n"], row["rank"]] == [*module.shape, module.rank]
            for field in ("layer", "projection", "expert", "kind", "dtype", "scaling", "dora", "parameters", "zero"):
                assert row[field] == getattr(module, field), field
            assert {name: row[name] for name in INDICES} == {name: module.indices.get(name) for name in INDICES}


def test_rows_are_what_scan_says(tmp_path: Path) -> None:
    fill(tmp_path / "in")
    make_adapter(tmp_path / "in" / "untrained", SHAPES, zero_b=list(SHAPES)[:3])
    for method in ("mas-svd", "svd"):
        out = tmp_path / method
        summary = run([tmp_path / "in"], out, settings=Settings(Configuration(method)))
        assert (summary.counts.adapters, summary.counts.modules, summary.complete) == (6, 48, True)
        agrees(out, method)


def test_published_adapters_are_what_scan_says(tmp_path: Path) -> None:
    summary = run([shared() / "adapters"], tmp_path / "out")
    done, errors = check_consistent(tmp_path / "out")
    assert len(done) == summary.counts.adapters
    assert {Path(uri).name for uri in errors} == {"bloom-fused-qkv-bin", "broken-lfs-pointer"}
    agrees(tmp_path / "out")


def test_every_input_ends_as_a_result_or_an_error(tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    pointer = tmp_path / "in" / "pointer"
    pointer.mkdir()
    (pointer / "adapter_model.safetensors").write_bytes(bad.POINTER)
    make_adapter(tmp_path / "in" / "nan", {"model.layers.0.q_proj": (4, 4, 1)})
    weights = tmp_path / "in" / "nan" / "adapter_model.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-4] + np.float32(np.nan).tobytes())
    inputs = [tmp_path / "in", tmp_path / "missing", tmp_path / "nothing*", "no-such-protocol://x"]
    summary = run(inputs, tmp_path / "out")
    done, errors = check_consistent(tmp_path / "out")
    assert {Path(uri).name for uri in done} == {"a0", "a1", "nan"}
    assert errors == {str(pointer), *map(str, inputs[1:])}
    assert summary.counts.errors == {"AdapterFile": 1, "Input": 3}
    reasons = {row["uri"]: row["reason"] for row in rows(tmp_path / "out", "errors")}
    assert "Git LFS pointer" in reasons[str(pointer)]
    damaged = next(row for row in rows(tmp_path / "out", "adapters") if row["uri"].endswith("nan"))
    assert damaged["nonfinite_modules"] == 1


def test_a_name_that_is_no_utf8_is_kept_readable(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    try:
        make_adapter(tmp_path / "in" / name, SHAPES)
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    run([tmp_path / "in"], tmp_path / "out")
    assert [Path(row["uri"]).name for row in rows(tmp_path / "out", "adapters")] == ["caf\\udce9"]
    assert run([tmp_path / "in"], tmp_path / "out").counts.adapters == 1


def test_a_second_run_measures_nothing(tmp_path: Path, counting: Counting) -> None:
    fill(tmp_path / "in")
    first = run([tmp_path / "in"], tmp_path / "out")
    before = {path: Path(path).read_bytes() for path in part_files(tmp_path / "out", "modules")}
    assert counting.count == 40
    assert run([tmp_path / "in"], tmp_path / "out") == first
    assert counting.count == 40
    assert {path: Path(path).read_bytes() for path in part_files(tmp_path / "out", "modules")} == before


def test_content_that_is_done_is_not_measured_under_another_name(tmp_path: Path, counting: Counting) -> None:
    """Moved, copied or touched: the numbers are those of the first, and the row is of its own."""
    fill(tmp_path / "in")
    run([tmp_path / "in"], tmp_path / "out")
    shutil.copytree(tmp_path / "in" / "a1", tmp_path / "in" / "copy")
    os.utime(tmp_path / "in" / "a2" / "adapter_model.safetensors", ns=(1, 1))
    config = tmp_path / "in" / "copy" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "other/Qwen2.5-7B"}))
    counting.count = 0
    summary = run([tmp_path / "in"], tmp_path / "out")
    assert counting.count == 0
    check_consistent(tmp_path / "out")
    assert (summary.counts.adapters, summary.counts.duplicates) == (6, 1)
    agrees(tmp_path / "out")
    copy = next(row for row in rows(tmp_path / "out", "adapters") if row["uri"].endswith("copy"))
    assert (copy["base_model"], copy["base_family"], copy["name"]) == ("other/Qwen2.5-7B", "qwen2.5", "copy")


def test_what_has_changed_is_measured_again_and_takes_the_place_of_its_rows(tmp_path: Path) -> None:
    fill(tmp_path / "in")
    run([tmp_path / "in"], tmp_path / "out")
    shutil.rmtree(tmp_path / "in" / "a3")
    make_adapter(tmp_path / "in" / "a3", {"model.layers.0.q_proj": (9, 8, 2)}, seed=99)
    (tmp_path / "in" / "a4" / "adapter_model.safetensors").write_bytes(bad.POINTER)
    summary = run([tmp_path / "in"], tmp_path / "out")
    done, errors = check_consistent(tmp_path / "out")
    assert (len(done), errors) == (4, {f"{tmp_path}/in/a4"})
    assert summary.counts.modules == 3 * 8 + 1
    agrees(tmp_path / "out")
    shutil.rmtree(tmp_path / "in" / "a4")
    make_adapter(tmp_path / "in" / "a4", SHAPES, seed=4)
    assert run([tmp_path / "in"], tmp_path / "out").counts.errors == {}
    check_consistent(tmp_path / "out")


def test_content_whose_only_source_is_replaced_in_the_same_run_is_measured(tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    run([tmp_path / "in"], tmp_path / "out")
    shutil.move(tmp_path / "in" / "a0", tmp_path / "in" / "z")
    make_adapter(tmp_path / "in" / "a0", SHAPES, seed=50)
    run([tmp_path / "in"], tmp_path / "out")
    done, _ = check_consistent(tmp_path / "out")
    assert {Path(uri).name for uri in done} == {"a0", "a1", "z"}
    agrees(tmp_path / "out")


def test_an_input_that_gave_nothing_loses_its_error_once_it_gives_something(tmp_path: Path) -> None:
    pattern = tmp_path / "in" / "*"
    assert run([pattern], tmp_path / "out").counts.errors == {"Input": 1}
    fill(tmp_path / "in", 1)
    summary = run([pattern], tmp_path / "out")
    assert (summary.counts.errors, summary.counts.adapters) == ({}, 1)
    assert check_consistent(tmp_path / "out") == ({f"{tmp_path}/in/a0"}, set())


def test_errors_that_may_pass_are_tried_again_and_others_are_not(tmp_path: Path, monkeypatch: Any) -> None:
    fill(tmp_path / "in", 2)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(working, "content_of", full)
        assert run([tmp_path / "in"], tmp_path / "out").counts.errors == {"OS": 2}
    assert [row["reason"] for row in rows(tmp_path / "out", "errors")] == ["No space left on device"] * 2
    assert run([tmp_path / "in"], tmp_path / "out").counts.errors == {}
    check_consistent(tmp_path / "out")

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("of ours")

    make_adapter(tmp_path / "in" / "new", SHAPES, seed=70)
    with monkeypatch.context() as patch:
        patch.setattr(working, "content_of", broken)
        assert run([tmp_path / "in"], tmp_path / "out").counts.errors == {"Internal": 1}
    assert run([tmp_path / "in"], tmp_path / "out").counts.errors == {"Internal": 1}, "it has not changed"
    assert run([tmp_path / "in"], tmp_path / "out", resume=False).counts.errors == {}
    check_consistent(tmp_path / "out")


def test_an_error_that_may_pass_replaces_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", 2)
    first = run([tmp_path / "in"], tmp_path / "out")
    before = {table: rows(tmp_path / "out", table) for table in TABLES}
    make_adapter(tmp_path / "in" / "new", SHAPES, seed=30)

    def away(*_: Any, **__: Any) -> Any:
        raise UnreachableError("cannot be reached")

    seen: list[FleetProgress] = []
    with monkeypatch.context() as patch:
        patch.setattr(working, "localised", away)
        summary = run([tmp_path / "in"], tmp_path / "out", watch=seen.append)
    assert (summary.counts.adapters, summary.counts.errors) == (first.counts.adapters, {"Unreachable": 1})
    assert (seen[-1].errors, seen[-1].kept) == (3, 2)
    check_consistent(tmp_path / "out")
    assert {table: rows(tmp_path / "out", table) for table in ("adapters", "modules")} == {
        table: before[table] for table in ("adapters", "modules")
    }
    assert run([tmp_path / "in"], tmp_path / "out").counts.errors == {}
    agrees(tmp_path / "out")


@pytest.mark.parametrize("new", ["measured", "transient", "lasting"])
@pytest.mark.parametrize("old", ["nothing", "measured", "transient", "lasting"])
def test_what_replaces_what(old: str, new: str, tmp_path: Path) -> None:
    """Only a measurement stays, and only beside an error that may pass: of two errors the later one is told."""
    traces = {
        "measured": Trace("a", "1", "00", "00", 8),
        "transient": Trace("a", "1", kind="OS", transient=True),
        "lasting": Trace("a", "1", kind="AdapterFile"),
    }
    with Dataset(tmp_path / "out", Settings()) as dataset:
        if old != "nothing":
            dataset.traces["a"] = traces[old]
        assert dataset.keeps(traces[new]) == ((old, new) == ("measured", "transient"))


def test_of_two_errors_that_may_pass_the_later_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", 1)
    for reason in ("cannot be reached", "does not answer"):

        def away(*_: Any, reason: str = reason, **__: Any) -> Any:
            raise UnreachableError(reason)

        seen: list[FleetProgress] = []
        with monkeypatch.context() as patch:
            patch.setattr(working, "localised", away)
            run([tmp_path / "in"], tmp_path / "out", watch=seen.append)
        assert [row["reason"] for row in rows(tmp_path / "out", "errors")] == [reason]
        assert seen[-1].kept == 0


def test_a_listing_that_breaks_off_is_an_error_beside_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in", 1)
    given = str(tmp_path / "in" / "a0")
    broken = [Found(given), Found(given, AdapterFileError("the listing broke off"))]
    monkeypatch.setattr(running, "expand", lambda *_, **__: iter(broken))
    summary = run([given], tmp_path / "out")
    assert check_consistent(tmp_path / "out") == ({given}, {f"{given}/"})
    assert (summary.counts.adapters, summary.counts.errors) == (1, {"Input": 1})


def test_no_resume_measures_everything_again(tmp_path: Path, counting: Counting) -> None:
    fill(tmp_path / "in", 3)
    first = run([tmp_path / "in"], tmp_path / "out")
    assert run([tmp_path / "in"], tmp_path / "out", resume=False) == first
    assert counting.count == 48
    check_consistent(tmp_path / "out")


def test_same_input_same_bytes_whatever_the_engine_and_the_workers(tmp_path: Path) -> None:
    fill(tmp_path / "in", 70)
    run([tmp_path / "in"], tmp_path / "one")
    fleet_scan([str(tmp_path / "in")], tmp_path / "two", engine=partial(LocalEngine, workers=3))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.[jp]*"))
    assert len(files) == 1 + 3 * 3
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_results_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    fill(tmp_path / "in", 1)
    run([tmp_path / "in"], tmp_path / "out")
    with pytest.raises(UsageError, match=r"holds results of other settings \(method mas-svd\)"):
        run([tmp_path / "in"], tmp_path / "out", settings=Settings(Configuration("svd")))
    with pytest.raises(UsageError, match=r"\(signature False\)"):
        run([tmp_path / "in"], tmp_path / "out", settings=Settings(signature=True))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path / "in", 1)
    with pytest.raises(OutputError, match="holds no results of a fleet"):
        run([tmp_path / "in"], tmp_path / "in")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is not a folder"):
        run([tmp_path / "in"], tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a0"]


def test_two_runs_do_not_write_to_one_dataset(tmp_path: Path) -> None:
    fill(tmp_path / "in", 1)
    run([tmp_path / "in"], tmp_path / "out")
    with (
        Dataset(tmp_path / "out", Settings()),
        pytest.raises(OutputError, match="is being written by another run"),
    ):
        run([tmp_path / "in"], tmp_path / "out")
    run([tmp_path / "in"], tmp_path / "out")


def test_no_adapter_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(NothingToAuditError):
        run([tmp_path / "list.txt"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    fill(tmp_path / "in", 1)
    first = run([tmp_path / "in"], tmp_path / "out")
    with pytest.raises(NothingToAuditError):
        run([tmp_path / "list.txt"], tmp_path / "out")
    assert run([tmp_path / "in"], tmp_path / "out") == first, "what there is stays"


def test_engines_are_closed_when_a_run_fails(tmp_path: Path) -> None:
    fill(tmp_path / "in", 1)
    made: list[Inline] = []

    class Failing(Inline):
        def __init__(self, work: Any) -> None:
            super().__init__(work)
            made.append(self)

        def wait(self, seconds: float) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fleet_scan([str(tmp_path / "in")], tmp_path / "out", engine=Failing)
    assert made[0].closed
    assert run([tmp_path / "in"], tmp_path / "out").complete


def test_an_interruption_between_rename_and_count_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", 3)

    original = Dataset._note
    calls: list[str] = []

    def interrupted_once(self: Dataset, trace: Any, number: int) -> None:
        calls.append(trace.uri)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(self, trace, number)

    monkeypatch.setattr(Dataset, "_note", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        run([tmp_path / "in"], tmp_path / "out")
    done, _ = check_consistent(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "fleet.json").read_text())
    assert (summary["complete"], summary["counts"]["adapters"], len(done)) == (False, 3, 3)


def test_known_digests() -> None:
    digests = sorted(bytes([i]) * 32 for i in (1, 5, 9))
    block = b"".join(digests)
    assert all(is_known(digest.hex(), block) for digest in digests)
    assert not any(is_known((bytes([i]) * 32).hex(), block) for i in (0, 2, 7, 255))
    assert not is_known("00" * 32, b"")


def test_very_many_inputs_are_counted_not_named(tmp_path: Path) -> None:
    fill(tmp_path / "in", 1)
    missing = [tmp_path / f"missing-{number}" for number in range(150)]
    summary = run([tmp_path / "in", *missing], tmp_path / "out")
    assert (len(summary.inputs), summary.more_inputs) == (100, 51)
    assert summary.counts.errors == {"Input": 150}


def test_a_damaged_part_is_named_with_what_to_do(tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    first = run([tmp_path / "in"], tmp_path / "out")
    damaged = Path(part_files(tmp_path / "out", "adapters")[0])
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(AdapterFileError, match=r"adapters\.parquet: cannot be read.*remove .*000000 and scan again"):
        run([tmp_path / "in"], tmp_path / "out")
    shutil.rmtree(damaged.parent)
    assert run([tmp_path / "in"], tmp_path / "out") == first


def test_a_dataset_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "in", 1)
    run([tmp_path / "in"], tmp_path / "out")
    summary = tmp_path / "out" / "fleet.json"
    summary.write_text(summary.read_text().replace('"schema_version": 1', '"schema_version": 9', 1))
    with pytest.raises(AdapterFileError, match=r"schema version 9, and this s3lora knows 1; update s3lora"):
        run([tmp_path / "in"], tmp_path / "out")


def test_workers_are_started_as_there_is_work(tmp_path: Path) -> None:
    fill(tmp_path / "in", 3)
    made: list[LocalEngine] = []

    def engine(work: Any) -> LocalEngine:
        made.append(LocalEngine(work, workers=8))
        return made[0]

    fleet_scan([str(tmp_path / "in")], tmp_path / "out", engine=engine, batch=2)
    assert len(made[0].pids()) <= 2


def test_a_file_that_changes_before_its_signature_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature reads the factors again: it must not be of other bytes than the scan."""
    folder = make_adapter(tmp_path / "in" / "a", SHAPES)
    original = working.signature

    def late(adapter: Any) -> Any:
        with (folder / "adapter_model.safetensors").open("ab") as file:
            file.write(b"more")
        return original(adapter)

    monkeypatch.setattr(working, "signature", late)
    run([tmp_path / "in"], tmp_path / "out", settings=Settings(signature=True))
    (error,) = rows(tmp_path / "out", "errors")
    assert "was changed while it was read" in error["reason"]
    assert not rows(tmp_path / "out", "adapters")


@pytest.mark.parametrize("name", [".work", "parts", "parts/000000", "fleet.json"])
@pytest.mark.parametrize("adapters", [0, 2])
@pytest.mark.parametrize("begun", [True, False])
def test_a_link_in_the_results_is_refused_and_what_it_leads_to_stays(
    tmp_path: Path, name: str, adapters: int, begun: bool
) -> None:
    (tmp_path / "in").mkdir()
    fill(tmp_path / "in", adapters)
    kept = tmp_path / "mine" / "deep" / "file"
    kept.parent.mkdir(parents=True)
    kept.write_text("kept")
    out = tmp_path / "out"
    if begun:
        fill(tmp_path / "first", 1)
        run([tmp_path / "first"], out)
    link = out / name
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match="is a link; give "):
        run([tmp_path / "in"], out)
    assert kept.read_text() == "kept"
    assert sorted(path.name for path in (tmp_path / "mine").rglob("*")) == ["deep", "file"]


def test_equal_factors_with_another_configuration_have_warnings_of_their_own(tmp_path: Path) -> None:
    plain = make_adapter(tmp_path / "plain", SHAPES)
    other = make_adapter(tmp_path / "other", SHAPES, config={"init_lora_weights": "pissa"})
    run([plain], tmp_path / "out")
    run([plain, other], tmp_path / "out")
    run([other], tmp_path / "alone")
    told = {row["name"]: row["warnings"] for row in rows(tmp_path / "out", "adapters")}
    assert told["plain"] != told["other"] == rows(tmp_path / "alone", "adapters")[0]["warnings"]


def test_an_input_that_fails_is_one_row_however_often_it_is_given(tmp_path: Path) -> None:
    summary = run([tmp_path / "missing"] * 3, tmp_path / "out")
    assert summary.counts.errors == {"Input": 1}
    assert check_consistent(tmp_path / "out") == (set(), {str(tmp_path / "missing")})


def test_the_groups_of_qalora_are_part_of_its_content(tmp_path: Path) -> None:
    one, other = (
        peft_adapter(tmp_path / name, "qalora", qalora_group_size=size) for name, size in (("a", 4), ("b", 2))
    )
    with open_adapter(one) as first, open_adapter(other) as second:
        assert first.modules[0].n == 2 * second.modules[0].n
        assert content_of(first).measured != content_of(second).measured


@pytest.mark.parametrize("content", ["not hexadecimal", "ab", None])
def test_a_dataset_that_s3lora_did_not_write_is_a_sentence(tmp_path: Path, content: str | None) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    make_adapter(tmp_path / "in" / "a", {"model.layers.0.self_attn.q_proj": (8, 6, 2)})
    fleet_scan([str(tmp_path / "in")], tmp_path / "out", engine=Inline)
    [file] = (tmp_path / "out").glob("parts/*/adapters.parquet")
    table = parquet.read_table(file)
    place = table.column_names.index("content")
    changed = table.remove_column(place)
    if content is not None:
        changed = table.set_column(place, "content", pyarrow.array([content]))
    parquet.write_table(changed.replace_schema_metadata(table.schema.metadata), file)
    with pytest.raises(AdapterFileError, match="is no table of a dataset"):
        fleet_scan([str(tmp_path / "in")], tmp_path / "out", engine=Inline)

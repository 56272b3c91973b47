"""`s3lora scan --reference`: every format, what it is told where it cannot compare, and that no other scan pays."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil
from pathlib import Path

import pytest

from s3lora.errors import AdapterFileError, UsageError
from s3lora.fleet.populations import standing as standing_module
from s3lora.fleet.populations.reference import build_reference, read_facts
from s3lora.fleet.populations.standing import Reference
from s3lora.fleet.run import fleet_scan
from s3lora.measure.scan import scan
from s3lora.needs import how_to_install
from tests.command import call, process
from tests.fleet.inline import Inline
from tests.support import make_adapter
from tests.test_architecture import loaded_after

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("duckdb")

PATHS = [f"model.layers.{i}.self_attn.{name}" for i in range(3) for name in ("q_proj", "v_proj")]
COUNT = 75


def one(folder: Path, seed: int, *, rank: int = 4, base: str = "org/Thing-1B") -> Path:
    sizes = dict.fromkeys(PATHS, (10, 9, rank))
    return make_adapter(folder, sizes, seed=seed, config={"base_model_name_or_path": base})


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `ref.parquet`, of 75 adapters, and `adapter`."""
    folder = tmp_path_factory.mktemp("reference")
    for number in range(COUNT):
        one(folder / "in" / f"{number:02d}", number)
    fleet_scan([str(folder / "in")], folder / "out", engine=Inline)
    build_reference(folder / "out", folder / "ref.parquet", "ours")
    one(folder / "adapter", 1000)
    return folder


@pytest.fixture(autouse=True)
def there(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", "adapter", "--reference", "ref.parquet")
    assert (result.status, result.err) == (0, "")
    text = " ".join(result.out.split())
    assert "against the reference ours 75 adapters, 450 modules" in text
    assert "Its base family thing has 75 adapters in the reference." in text
    assert "not unusual against this reference" in text
    assert "6 modules are compared with 75 adapters: same base family, projection, rank band and layer third." in text
    assert "--reference" not in result.out.partition("next  ")[2], "repair and prune have no such option"
    assert call(capsys, "scan", "adapter", "--reference", "ref.parquet").out == result.out


def test_json_is_what_the_library_says(capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", "adapter", "--reference", "ref.parquet", "--format", "json")
    content = json.loads(result.out)["reference"]
    found = Reference(Path("ref.parquet")).compare(scan("adapter"))
    assert content["standings"].keys() == found.standings.keys()
    for path, standing in found.standings.items():
        assert content["standings"][path]["marks"]["ssi"]["percentile"] == standing.marks["ssi"].percentile
    assert content["adapter"]["marks"]["ssi_sharpest"]["z"] == found.adapter.marks["ssi_sharpest"].z  # type: ignore[union-attr]
    assert content["unusual"] == found.unusual


def test_csv(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--reference", "ref.parquet", "--format", "csv", "--index", "stable-rank")
    rows = list(csv.DictReader(io.StringIO(call(capsys, "scan", "adapter", *options).out)))
    assert {row["percentile_of"] for row in rows} == {"stable_rank"}
    assert {row["cell_adapters"] for row in rows} == {str(COUNT)}
    assert all(0 <= float(row["percentile_low"]) <= float(row["percentile"]) <= 100 for row in rows)


def test_page(capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", "adapter", "--reference", "ref.parquet", "--format", "html")
    assert result.status == 0
    assert "Against the reference ours</h2>" in result.out
    assert "--reference" not in result.out.partition("<script>")[0], "prune has no such option"


def test_several_adapters_each_against_its_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one(tmp_path / "other", 7, base="org/Never-7B")
    result = call(capsys, "scan", "adapter", tmp_path / "other", "--reference", "ref.parquet", "--format", "json")
    first, second = (made["reference"] for made in json.loads(result.out))
    assert (first["family_adapters"], second["family_adapters"]) == (COUNT, 0)
    assert (first["coarser"], second["coarser"]) == (0, len(PATHS))
    text = " ".join(call(capsys, "scan", tmp_path / "other", "--reference", "ref.parquet").out.split())
    assert "Its base family never is not known to the reference: all comparisons are with other bases." in text
    assert "6 of 6 modules fell back to a coarser cell: fewer than 20 adapters" in text


def test_what_sticks_out_is_called_unusual(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import load_file, save_file

    path = one(tmp_path / "sharp", 3)
    tensors = load_file(path / "adapter_model.safetensors")
    for name, values in tensors.items():
        if "lora_B" in name:
            values[:, 1:] *= 1e-3  # one direction is left
    save_file(tensors, path / "adapter_model.safetensors", {"format": "pt"})
    for index, words in (("ssi", "unusually high (sharp)"), ("stable-rank", "unusually low (sharp)")):
        result = call(capsys, "scan", path, "--reference", "ref.parquet", "--index", index)
        assert words in result.out
        assert "It is unusual against this reference" in result.out


def test_a_reference_of_another_method_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for options, says in (
        (("--method", "svd"), "made with method mas-svd, and this scan with svd"),
        (("--rank", "2"), "made with rank None, and this scan with 2"),
    ):
        result = call(capsys, "scan", "adapter", "--reference", "ref.parquet", *options)
        assert (result.status, result.out) == (2, "")
        assert says in result.err


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda file: None, "cannot be read as a reference"),
        (lambda file: file.write_bytes(b"PAR1 nothing PAR1"), "cannot be read as a reference"),
        (lambda file: file.write_bytes(Path("ref.parquet").read_bytes()[:-50]), "cannot be read as a reference"),
        (lambda file: pq.write_table(pa.table({"a": [1]}), file), "is no reference"),
        (lambda file: rewrite(file, lambda table: table.drop_columns(["mad"])), "has other columns than a reference"),
        (lambda file: rewrite(file, lambda table: table.filter(pa.compute.field("scope") == "module")),
         "has no cell of all adapters"),
        (lambda file: rewrite(file, lambda table: table.slice(0, 0)), "has no cell of all modules"),
        (lambda file: rewrite(file, without_medians), "a cell that is no distribution"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_told(
    make: object, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.compute  # noqa: F401  (the cases above name it)

    file = tmp_path / "broken.parquet"
    make(file)  # type: ignore[operator]
    result = call(capsys, "scan", "adapter", "--reference", file)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("s3lora: ")
    assert "broken.parquet" in result.err
    assert says in result.err
    assert len(result.err.splitlines()) == 1


def rewrite(file: Path, change: object) -> None:
    """Write what `change` makes of the reference, with all that it says of itself."""
    pq.write_table(change(pq.read_table("ref.parquet")), file)  # type: ignore[operator]


def without_medians(table: object) -> object:
    at = table.schema.get_field_index("median")  # type: ignore[attr-defined]
    nothing = pa.nulls(table.num_rows, pa.float64())  # type: ignore[attr-defined]
    return table.set_column(at, table.schema.field(at), nothing)  # type: ignore[attr-defined]


@pytest.mark.parametrize("form", ["sarif", "junit", "svg", "png"])
def test_what_would_not_show_it_refuses_it(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", "adapter", "--reference", "ref.parquet", "--format", form)
    assert (result.status, result.err) == (2, f"s3lora: --reference does nothing with --format {form}\n")
    result = call(capsys, "scan", "adapter", "--reference", "ref.parquet", "--quiet")
    assert result.err == "s3lora: --reference does nothing with --quiet\n"


def test_a_policy_may_name_it(tmp_path: Path, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From where the policy lies; and a format that would not show it is no error then."""
    shutil.copy(desk / "ref.parquet", tmp_path)
    (tmp_path / "rules.toml").write_text('reference = "ref.parquet"\n')
    policy = ("--policy", tmp_path / "rules.toml")
    assert "against the reference ours" in call(capsys, "scan", "adapter", *policy).out
    for form in ("sarif", "junit"):
        assert call(capsys, "scan", "adapter", *policy, "--format", form).status == 0
    assert call(capsys, "scan", "adapter", *policy, "--quiet").status == 0
    made = "".join(call(capsys, "scan", "adapter", *policy).out.partition("\n      s3lora prune ")[1:])
    assert shlex.split(made.replace("\\\n", "")) == ["s3lora", "prune", "adapter", "-o", "PRUNED"]


def test_gates_are_not_touched(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--fail-on", "ssi > 0.2")
    one, other = (call(capsys, "scan", "adapter", *options, *more) for more in ((), ("--reference", "ref.parquet")))
    assert (one.status, one.err) == (other.status, other.err) == (1, one.err)


def test_a_missing_package_is_named() -> None:
    done = process("scan", "adapter", "--reference", "ref.parquet", before="sys.modules['pyarrow'] = None")
    assert (done.status, done.out) == (2, "")
    how = how_to_install("fleet", "pyarrow")
    assert done.err == f"s3lora: this needs the package pyarrow, which is not installed; run: pip install {how}\n"


def test_only_a_reference_loads_pyarrow() -> None:
    run = "from s3lora.cli.main import run\nassert run(sys.argv[1:]) == 0"
    for more in ((), ("--format", "json"), ("--format", "html")):
        assert not loaded_after(run, "scan", "adapter", *more).intersection(
            ("pyarrow", "s3lora.fleet.populations.standing")
        )
    assert "pyarrow" in loaded_after(run, "scan", "adapter", "--reference", "ref.parquet")


def test_a_file_of_too_many_cells_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_module, "MAX_CELLS", 10)
    with pytest.raises(AdapterFileError, match="more cells than any reference"):
        Reference(Path("ref.parquet")).compare(scan("adapter"))


def test_a_sample_must_be_the_same(tmp_path: Path, desk: Path) -> None:
    from dataclasses import replace

    found = Reference(desk / "ref.parquet")
    here = read_facts(desk / "ref.parquet").settings.scan
    found.check(here)
    with pytest.raises(UsageError, match="made with sample None, and this scan with 64"):
        found.check(replace(here, sample=64))
    with pytest.raises(AdapterFileError, match="cannot be read"):
        Reference(tmp_path)


def test_a_percentile_that_the_reference_has_not_never_passes(capsys: pytest.CaptureFixture[str]) -> None:
    rules = {"kurtosis-percentile > 1": 2, "ssi-percentile > 100": 0, "ssi-percentile >= 0": 1}
    for rule, status in rules.items():
        result = call(capsys, "scan", "adapter", "--reference", "ref.parquet", "--fail-on", rule, "-q")
        assert result.status == status, rule
    result = call(capsys, "scan", "adapter", "--reference", "ref.parquet", "--fail-on", "kurtosis-percentile > 1", "-q")
    assert "6 of 6 modules have no value for kurtosis_percentile > 1" in result.err

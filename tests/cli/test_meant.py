"""What is answered where something else was probably meant, and what needs no option."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from s3lora import open_adapter
from tests.command import call, process
from tests.support import make_adapter

LAYERS = {f"model.layers.{i}.self_attn.{name}": (16, 12, 4) for i in range(2) for name in ("q_proj", "v_proj")}


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = make_adapter(tmp_path / "adapter", LAYERS)
    (made / "README.md").write_text("# An adapter of mine\n")
    return made


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["adapter"], "Did you mean 's3lora scan adapter'?"),
        (["some/adapter"], "Did you mean 's3lora scan some/adapter'?"),
        (["scna", "adapter"], "Did you mean 'scan'?"),
        (["fleet", "reprot"], "Did you mean 'report'?"),
        (["scan", "adapter", "--index", "sis"], "Did you mean 'ssi'?"),
        (["scan", "adapter", "--method", "svds"], "Did you mean 'svd'?"),
        (["scan", "adapter", "--format", "jsn"], "Did you mean 'json'?"),
        (["scan", "adapter", "--projektion", "q_proj"], "--projection"),
        (["scan", "adapter", "--projection", "q_prj"], "its projections are q_proj, v_proj"),
        (["scan", "adapter", "--fail-on", "sis > 0.5"], "did you mean ssi?"),
        (["scan", "adapter", "--fail-on", "loader:vlm"], "did you mean vllm?"),
        (["scan", "adapter", "--allow", "haeds: mine"], "did you mean heads?"),
        (["scan", "adaptr"], "adaptr: no such file or folder; did you mean adapter?"),
        (["scan", "me/lora"], "if it is a name on the Hub, fetch it first: hf download me/lora --local-dir lora"),
        (
            ["scan", "https://huggingface.co/me/lora"],
            "is an address on the Hub, and files are read; fetch it first: hf d",
        ),
        (["scan", "https://example.org/lora"], "https://example.org/lora: is an address, and files are read; fetch it"),
        (["scan", "adapter", "--fail-on", "ssi"], "give a limit, and quote the rule: 'ssi > 0.5'"),
        (["scan", "adapter/README.md"], "README.md: is text, and no weights; give the folder that it lies in"),
        (["scan", "hf://me/lora"], "hf://me/lora: is an address on the Hub, and files are read; fetch it first: hf d"),
    ],
)
def test_what_was_meant(adapter: Path, capsys: pytest.CaptureFixture[str], words: list[str], meant: str) -> None:
    result = call(capsys, *words)
    assert result.status in (2, 3)
    assert meant in " ".join(result.err.split())


def test_nothing_is_guessed_far_off(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "scan", "nowhere").err == "s3lora: nowhere: no such file or folder\n"
    assert call(capsys, "scan", "adapter/none/x").err == "s3lora: adapter/none/x: no such file or folder\n"
    assert "mean" not in call(capsys, "zzz").err
    # A folder of that name is no owner on the Hub.
    assert "Hub" not in call(capsys, "scan", "adapter/weights").err


def test_a_run_a_cache_and_a_collection(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (
        "run/checkpoint-90",
        "run/checkpoint-100",
        "cache/models--me--it/snapshots/0a1b",
        "all/one",
        "all/two",
    ):
        make_adapter(tmp_path / place, LAYERS)
    run = call(capsys, "scan", "run")
    assert run.status == 3
    assert "its folders do: checkpoint-90/, checkpoint-100/; give one of them" in run.err
    assert "s3lora compare run shows the run" in run.err
    assert call(capsys, "compare", "run").status == 0
    assert "such as cache/models--me--it/snapshots/0a1b\n" in call(capsys, "scan", "cache").err
    assert "such as snapshots/0a1b" not in call(capsys, "scan", "cache/models--me--it").err
    assert (
        "give one of them, such as all/one, or --adapter one; s3lora fleet scan all" in call(capsys, "scan", "all").err
    )
    assert call(capsys, "scan", "all", "--adapter", "one").status == 0


def test_folders_are_looked_into_so_deep_and_no_link_is_followed(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_adapter(tmp_path / "deep" / "1" / "2" / "3" / "4", LAYERS)
    make_adapter(tmp_path / "deeper" / "1" / "2" / "3" / "4" / "5", LAYERS)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "there").symlink_to(adapter)
    (tmp_path / "round").mkdir()
    (tmp_path / "round" / "back").symlink_to(tmp_path / "round")
    assert "its folders do: 1/2/3/4/" in call(capsys, "scan", "deep").err
    for folder in ("deeper", "linked", "round"):
        assert "holds no adapter weights (looked for" in call(capsys, "scan", folder).err


def test_an_archive(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, method in (("stored.zip", zipfile.ZIP_STORED), ("packed.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            for path in sorted(adapter.iterdir()):
                archive.write(path, path.name)
        result = call(capsys, "scan", name)
        told = f"s3lora: {name}: is an archive of an adapter's files, no checkpoint of torch; unpack it, and give the"
        assert (result.status, result.err.startswith(told)) == (2, True)


@pytest.mark.parametrize("suffix", ["pdf", "XLSX", "jpeg"])
def test_a_name_whose_format_nothing_writes(adapter: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    result = call(capsys, "scan", adapter, "-o", f"report.{suffix}")
    assert result.status == 2
    assert f"scan writes no {suffix.lower()}; it writes text, json, csv" in result.err
    assert not Path(f"report.{suffix}").exists()


@pytest.mark.parametrize("suffix", ["html", "HTM", "json", "csv", "sarif", "svg", "png", "xml", "txt", ""])
def test_the_name_of_the_output_tells_the_format(
    adapter: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    form = {"html": "html", "HTM": "html", "xml": "junit", "txt": "text", "": "text"}.get(suffix, suffix)
    if form == "png":
        pytest.importorskip("resvg_py")
    for name, more in ((f"by-name.{suffix}", ()), ("by-option", ("--format", form))):
        assert call(capsys, "scan", adapter, "-o", name, *more).status == 0
    assert Path(f"by-name.{suffix}").read_bytes() == Path("by-option").read_bytes()


def test_an_option_goes_before_the_name(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "scan", adapter, "--format", "json", "-o", "scan.csv").status == 0
    assert json.loads(Path("scan.csv").read_text())["source"]["name"] == "adapter"


def test_a_format_that_a_command_has_not(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "check", adapter, "-o", "found.csv")
    told = "s3lora: check writes no csv; it writes text, json, sarif; give --format, or another name than found.csv\n"
    assert (result.status, result.err) == (2, told)
    assert not Path("found.csv").exists()


def test_a_folder_may_be_called_as_a_file(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "prune", adapter, "-o", "pruned.json").status == 0
    assert Path("pruned.json/adapter_config.json").is_file()


def test_a_copy_of_the_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "demo", "--copy", "mine").out == "Wrote mine. Now: s3lora scan mine\n"
    assert call(capsys, "scan", "mine").status == 0
    assert call(capsys, "demo", "--copy", "mine", "--lost").status == 2
    assert call(capsys, "demo", "--copy", "mine", "-o", "other").status == 2


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("s3lora sc", ["plain,scan"]),
        ("s3lora fleet re", ["plain,report", "plain,reference"]),
        ("s3lora scan --ind", ["plain,--index"]),
        ("s3lora scan --index ss", ["plain,ssi"]),
        ("s3lora scan ada", ["file,ada"]),
        ("s3lora scan x --output rep", ["file,rep"]),
    ],
)
def test_completion(line: str, found: list[str]) -> None:
    words = {"_S3LORA_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    done = process(env=words)
    assert done.out.split() == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_shells_read(shell: str) -> None:
    done = process(env={"_S3LORA_COMPLETE": f"{shell}_source"})
    assert "_S3LORA_COMPLETE" in done.out


def test_many_options_stand_in_sections(capsys: pytest.CaptureFixture[str]) -> None:
    text = call(capsys, "scan", "--help").out
    titles = ["What is read:", "How updates are measured:", "Which modules are chosen:", "When it fails:", "Output:"]
    assert [line for line in text.splitlines() if line in titles] == titles
    assert "\nOptions:" not in text
    assert "\nOptions:" in call(capsys, "check", "--help").out


@pytest.mark.parametrize("command", ["check", "eval"])
def test_the_word_for_a_base_model_is_no_base_model(
    adapter: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    if command == "eval":
        pytest.importorskip("transformers")
    result = call(capsys, command, adapter, "--base", "MODEL")
    assert result.status == 2
    assert "MODEL stands for the name of your base model; give its folder, or its name on the Hub" in result.err


def test_the_example_of_a_base_has_no_configuration_to_check(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "check", adapter, "--base", "demo")
    assert result.status == 2
    assert "it is there for `eval`, `sweep`, `tune` and `repair`" in result.err


@pytest.mark.parametrize(
    ("start", "said"),
    [(b'{"r": 8, "peft_type": "LORA"}', "is JSON text, and no weights"), (b"PK\x03\x04" + bytes(99), "is an archive")],
)
def test_other_files_in_the_place_of_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], start: bytes, said: str
) -> None:
    file = tmp_path / "given.safetensors"
    file.write_bytes(start)
    result = call(capsys, "scan", file)
    assert (result.status, said in result.err) == (2, True)


@pytest.mark.parametrize(("given", "name"), [("vLLM", "vllm"), ("llama.cpp", "llamacpp"), ("mlx-lm", "mlx")])
def test_loaders_have_the_names_that_people_use(
    adapter: Path, capsys: pytest.CaptureFixture[str], given: str, name: str
) -> None:
    made = json.loads(call(capsys, "check", adapter, "--loader", given, "--format", "json").out)
    assert [one["loader"] for one in made["loaders"]] == [name]


def test_modules_of_other_shapes_are_not_told_as_unchanged(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_adapter(adapter) as opened:
        sizes = {module.path: (module.m + 2, module.n, module.rank) for module in opened.modules}
    text = " ".join(call(capsys, "compare", adapter, make_adapter(tmp_path / "other", sizes)).out.split())
    assert f"0 changed, {len(sizes)} of another shape and not compared" in text

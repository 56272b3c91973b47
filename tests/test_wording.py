"""One sentence for two readers: who types a command reads of options, who calls a function of parameters."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import s3lora
from s3lora.errors import OutputError
from s3lora.wording import WAYS, all_worded, for_command, worded
from tests.command import SOURCE, call
from tests.support import make_adapter

PATHS = [f"model.layers.{i}.self_attn.q_proj" for i in range(3)]


def test_every_way_is_used_and_every_name_known() -> None:
    files = [path for path in (SOURCE / "s3lora").rglob("*.py") if path.name != "wording.py"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert [name for name in WAYS if f"{{{name}}}" not in text and f'_scopes(text, "{name}"' not in text] == []


def test_names_from_outside_are_left_as_they_are() -> None:
    text = worded("{out} is {name}", name="{force} --x")
    assert (str(text), text.command) == ("out= is {force} --x", "-o is {force} --x")


def test_joined_and_sent_elsewhere_it_keeps_both() -> None:
    text = all_worded(", or ", [worded("give {force}"), "leave it"])
    assert (str(text), for_command(text)) == ("give force=True, or leave it", "give --force, or leave it")
    error = pickle.loads(pickle.dumps(OutputError("is there", file="a", fix=text)))
    assert str(error) == "a: is there; give force=True, or leave it"
    assert error.for_command() == "a: is there; give --force, or leave it"


def test_the_same_error_in_either_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_adapter(Path("a"), dict.fromkeys(PATHS, (8, 6, 2)))
    make_adapter(Path("b"), dict.fromkeys(PATHS, (8, 6, 2)))
    with pytest.raises(s3lora.OutputError) as caught:
        s3lora.resize("a", "b", rank=1)
    assert str(caught.value) == "b: exists and is not empty; give out= a new folder, or force=True to replace it"
    told = call(capsys, "resize", "a", "--rank", "1", "-o", "b").err
    assert told == "s3lora: b: exists and is not empty; give -o a new folder, or --force to replace it\n"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: s3lora.Scale(2), "use Zero() or Remove() instead"),
        (lambda: s3lora.resize("a", "b"), "give rank= or energy=, and not both"),
        (lambda: s3lora.scan("a", max_cost=1), "give max_cost="),
        (lambda: s3lora.convert("a", "peft", loader="mlx"), "give to= mlx"),
        (lambda: s3lora.convert("a", "gguf"), "give base= its config.json or folder"),
    ],
)
def test_errors_in_python_name_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: object, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_adapter(Path("a"), dict.fromkeys(PATHS, (8, 6, 2)))
    assert callable(wrong)
    with pytest.raises(s3lora.S3LoRAError) as caught:
        wrong()
    assert said in str(caught.value)
    assert "--" not in str(caught.value)

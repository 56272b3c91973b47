from __future__ import annotations

import json
from pathlib import Path

import pytest

from s3lora.errors import UsageError
from s3lora.evaluate.chat import Message, Prompt
from s3lora.evaluate.chat_setup import (
    NO_SETUP,
    ChatSetup,
    facts_of,
    read_few_shot,
    read_system,
    read_template_args,
    system_in_user_turn,
)
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.results import ChatFacts

TURNS = (Message("user", "Hi"), Message("assistant", "Ho"))
ASK = Prompt.ask("Why?", "Be kind.")


def test_nothing_changes_nothing() -> None:
    assert NO_SETUP.apply(ASK) == ASK
    assert NO_SETUP.apply(Prompt(())) == Prompt(())
    assert facts_of(NO_SETUP) == ChatFacts()


def test_what_is_recorded() -> None:
    setup = ChatSetup(system="Be brief.", examples=TURNS * 2, template_args={"b": 1, "a": False})
    assert facts_of(setup, "2024-07-26") == ChatFacts(
        "Be brief.", 2, Prompt(TURNS * 2).digest, '{"a": false, "b": 1}', "2024-07-26"
    )


def test_a_system_prompt_in_the_users_turn() -> None:
    assert system_in_user_turn(ASK) == Prompt.ask("Be kind.\n\nWhy?")
    assert system_in_user_turn(Prompt.ask("Why?")) == Prompt.ask("Why?")
    assert system_in_user_turn(Prompt(ASK.messages[:1])) == Prompt.ask("Be kind.")
    assert system_in_user_turn(Prompt(())) == Prompt(())


def test_a_system_prompt_is_a_text_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "system.txt"
    file.write_text("Be kind.\nAlways.\n", encoding="utf-8")
    assert read_system(str(file)) == "Be kind.\nAlways."
    assert read_system(" Be kind. ") == "Be kind."
    assert read_system("x" * 5000) == "x" * 5000
    for wrong in ("", " \n", str(tmp_path / "none"), "sytem.txt", "be brief \udcff"):
        with pytest.raises(UsageError):
            read_system(wrong)


def test_arguments_of_the_template() -> None:
    assert read_template_args('{"enable_thinking": false}') == {"enable_thinking": False}
    for wrong in ("", "[1]", "enable_thinking=false", "[" * 5000):
        with pytest.raises(UsageError):
            read_template_args(wrong)
    for taken in ("messages", "tokenize", "chat_template"):
        with pytest.raises(UsageError, match=taken):
            ChatSetup(template_args={taken: 1})


@pytest.mark.parametrize(
    "rows",
    [
        [{"prompt": "Hi", "response": "Ho"}],
        [{"instruction": "Hi", "output": "Ho"}],
        [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}],
        [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]],
    ],
)
def test_examples_are_pairs_or_chats(tmp_path: Path, rows: list[object]) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows * 2), encoding="utf-8")
    assert read_few_shot(file) == TURNS * 2
    file.write_text(json.dumps(rows[0]), encoding="utf-8")
    assert read_few_shot(file) == TURNS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("[]", "has no example"),
        ('{"prompt": "Hi"}', "row 1 has no prompt with a response"),
        ('{"prompt": "Hi", "response": 1}', "row 1 has no prompt with a response"),
        ('"Hi"', "of no form that holds rows"),
        ('["Hi"]', "row 1 is neither a pair nor a chat"),
        ('[[{"role": "user", "content": "Hi"}]]', "row 1 does not end with an answer"),
        ('[[{"role": "assistant", "content": "Hi"}]]', "row 1 is no chat of user and assistant in turn"),
        ('[[{"role": "system", "content": "Hi"}]]', "row 1 has a system prompt, which is given by itself"),
        ('{"prompt": "a", "response": "b"}\n{"prompt": 3}', "line 2 has no prompt with a response"),
        ('{"prompt": "a", "response": "b"}\n{', "line 2 is not JSON"),
        (r'{"prompt": "\ud83d", "response": "x"}', "row 1 has half of a character"),
        (r'[[{"role": "user", "content": "a"}, {"role": "assistant", "content": "\ude00"}]]', "row 1 has half of a"),
    ],
)
def test_what_is_no_example_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataFileError, match=said):
        read_few_shot(file)

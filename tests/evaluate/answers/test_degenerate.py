from __future__ import annotations

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.evaluate.answers.degenerate import RULES, degenerate, echo_share, letters_share, loop_share
from s3lora.evaluate.chat import Message, Prompt
from tests.support import shared

QUESTION = "How do I take care of a cactus that stands in a dark room with little air?"
SENTENCE = "Water it once a month and no more. "


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("…", "broken"),
        ("!!!! ???? ;;;; ---- <<<< ,,,,", "broken"),
        ("a ) ) ] ] } ; ; ' ' . . , , / / < < > > = = + +", "broken"),
        ("\ufffd\ufffd\ufffd", "broken"),
        ("no no no no no no no no", "repetition"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "repetition"),
        ("Sure. " + SENTENCE * 6, "repetition"),
        ("Sure. " + (SENTENCE * 6)[:-9], "repetition"),
        ("\n".join(f"{i}. {SENTENCE}" for i in range(12)), "repetition"),
        ("A good beginning, in words of its own. " * 1 + (SENTENCE * 60), "repetition"),
        (QUESTION, "echo"),
        (QUESTION.upper() + "\n" + QUESTION, "echo"),
        ("take care of a cactus that stands in a dark room", "echo"),
        ("Полейте его один раз в месяц.", "script"),
        ("每月浇水一次即可。", "script"),
        ("Water it. 每月浇水一次即可，不要太多，谢谢你。", "script"),
        # None of these is.
        ("Once a month.", ""),
        ("42", ""),
        ("Yes", ""),
        ("No, no, no!", ""),
        (SENTENCE, ""),
        ("To take care of a cactus that stands in a dark room, give it a lamp and water it monthly.", ""),
        ("I can't help you to take care of a cactus, sorry.", ""),
        ("The Greek letter π is 3.14159, and α, β, γ are angles of the triangle.", ""),
        ("def f(x):\n    return [x[i] + (x[j] * 2) for i, j in zip(x, x[1:])]", ""),
        ("| month | litres |\n|---|---|\n| May | 0.2 |\n| June | 0.3 |", ""),
    ],
)  # fmt: skip
def test_rules(answer: str, rule: str) -> None:
    assert degenerate(Prompt.ask(QUESTION), answer) == rule


def test_a_script_that_is_asked_for() -> None:
    russian, chinese = "Полейте его один раз в месяц.", "每月浇水一次即可。"
    assert degenerate(Prompt.ask("Translate: once a month."), russian) == ""
    assert degenerate(Prompt.ask("Say it in Chinese, please"), chinese) == ""
    assert degenerate(Prompt.ask("Как поливать кактус?"), russian) == ""
    assert degenerate(Prompt.ask("Как поливать кактус?"), "Once a month, no more.") == "script"
    assert degenerate(Prompt.ask("Как поливать кактус?"), "```python\nwater(cactus)\n```") == ""
    assert degenerate(Prompt.ask("サボテンの世話は?"), chinese) == ""  # Japanese and Chinese share signs
    assert degenerate(Prompt((Message("system", "Отвечай по-русски."), Message("user", "Hello"))), russian) == ""
    assert degenerate(Prompt.ask("?!"), russian) == ""  # nothing tells which script is meant
    assert degenerate(Prompt.ask("बताओ"), "नमस्ते, आप कैसे हैं?") == ""


def test_an_echo_of_any_turn() -> None:
    chat = Prompt((Message("system", "You are a helper who never says a word too much."), Message("user", "Hi")))
    assert degenerate(chat, "You are a helper who never says a word too much.") == "echo"


def test_shares() -> None:
    assert letters_share("ab! ") == pytest.approx(2 / 3)
    assert letters_share("") == 0
    assert loop_share("x" + "abc" * 3) == pytest.approx(0.9)
    assert loop_share("abcabc") == 0  # twice is not three times
    assert loop_share("") == 0
    assert echo_share("a b c d e", ["A b, c d!"]) == pytest.approx(0.8)
    assert echo_share("a b c", ["a b c"]) == 0


@given(st.text(), st.text())
def test_it_takes_any_text(prompt: str, answer: str) -> None:
    rule = degenerate(Prompt.ask(prompt), answer)
    assert rule in ("", *RULES)
    assert (rule == "empty") == (not answer.strip())
    assert degenerate(Prompt.ask(prompt), f" {answer}\n") == rule


@given(st.text(alphabet="abcdefgh ij", min_size=4, max_size=30), st.integers(8, 40))
def test_any_loop_that_is_long_enough_is_found(piece: str, rounds: int) -> None:
    words = " ".join(piece.split())
    text = f"{words} " * rounds
    if words and len(text.strip()) >= 20:
        assert degenerate(Prompt.ask(QUESTION), text) == "repetition"


def test_answers_of_real_models_are_none() -> None:
    data = shared() / "data"
    with (data / "xstest_prompts.csv").open(encoding="utf-8", newline="") as file:
        prompts = {f"v2-{row['id']}": row["prompt"] for row in csv.DictReader(file)}
    rows = [json.loads(line) for line in (data / "xstest_openings.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [rule for row in rows if (rule := degenerate(Prompt.ask(prompts[row["id"]]), row["opening"]))]
    assert len(rows) == 2250
    assert found == []

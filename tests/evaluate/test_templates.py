from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from s3lora.evaluate.answers.tokens import TokenReader
from s3lora.evaluate.chat import Decoding, Generation, Message, Prompt
from s3lora.evaluate.chat_setup import ChatSetup
from s3lora.evaluate.loading import PLAIN_TEMPLATE, LoadedBase
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.templates import DAY, LocalTemplate
from tests.small_model import small_model
from tests.tiny_model import END, TEMPLATE, VOCABULARY, tiny_folder, tiny_tokenizer, tokenizers

ASK = Prompt.ask("Why?", "Be kind.")
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
DROPS = TEMPLATE.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
#: As in Llama 3.2.
DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "[Today is {{ date_string }}]" + TEMPLATE
)
#: As in Qwen3 and in DeepSeek-R1.
THINKS = TEMPLATE.removesuffix("{% endif %}") + (
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% else %}<think>\n"
    "{% endif %}{% endif %}"
)
DECODING = Decoding(max_new_tokens=8)


def template_of(template: str | None, setup: ChatSetup | None = None, tokenizer: Any = None) -> LocalTemplate:
    tokenizer = tokenizer or tiny_tokenizer(template)
    return LocalTemplate(LoadedBase("tiny", None, tokenizer, ()), setup or ChatSetup())


def text_of(template: LocalTemplate, prompt: Prompt = ASK) -> str:
    [encoded] = template.encode([prompt])
    return str(template._tokenizer.decode(encoded.ids))


def bos_tokenizer(adds: bool) -> Any:
    """Return a tokenizer that has a token to begin a text, and, as Llama's does, puts it there by itself, or not."""
    tokenizer = tiny_tokenizer(PLAIN_TEMPLATE, bos_token=END)
    if adds:
        tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{END} $A", special_tokens=[(END, VOCABULARY[END])]
        )
    return tokenizer


def test_a_prompt_as_it_is() -> None:
    assert text_of(template_of(TEMPLATE)) == "[system]Be kind.\n[user]Why?\n[a]"
    assert template_of(TEMPLATE).encode([]) == []
    assert template_of(TEMPLATE).date == ""


def test_a_whole_answer_ends_as_the_template_ends_it() -> None:
    """As Gemma and Phi-3 do, whose end of text is another token than that of a turn."""
    tokenizer = tiny_tokenizer(TEMPLATE)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    turn = tokenizer.convert_tokens_to_ids("<turn>")
    ends = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% if m['role'] == 'assistant' %}\n<turn>\n"
        "{% endif %}{% endfor %}"
    )
    tokenizer.chat_template = ends
    assert template_of(None, tokenizer=tokenizer).end_of_turn([turn, tokenizer.eos_token_id]) == "<turn>"
    assert template_of(None, tokenizer=tokenizer).end_of_turn([tokenizer.eos_token_id]) == tokenizer.eos_token
    for template in (TEMPLATE, PLAIN_TEMPLATE, "{{ messages[0]['content'] }}", "{{ raise_exception('no') }}"):
        tokenizer.chat_template = template
        assert template_of(None, tokenizer=tokenizer).end_of_turn([turn]) == tokenizer.eos_token


def test_what_is_put_around_it() -> None:
    examples = (Message("user", "Hi"), Message("assistant", "Ho"))
    given = template_of(TEMPLATE, ChatSetup(system="Be brief.", examples=examples))
    assert text_of(given) == "[system]Be brief.\n\nBe kind.\n[user]Hi\n[assistant]Ho\n[user]Why?\n[a]"
    assert text_of(given, Prompt.ask("Why?")).startswith("[system]Be brief.\n[user]Hi")
    setups = [ChatSetup(), given.setup, ChatSetup(system="Be brief."), ChatSetup(template_args={"a": 1})]
    assert len({template_of(TEMPLATE, setup).identity for setup in setups}) == 4


@pytest.mark.parametrize("template", [REFUSES + TEMPLATE, DROPS])
def test_a_system_prompt_that_the_template_does_not_take(template: str) -> None:
    found = template_of(template)
    assert text_of(found, Prompt.ask("Why?")) == "[user]Why?\n[a]"
    assert found.notes == ()
    for _ in range(2):
        assert text_of(found) == "[user]Be kind.\n\nWhy?\n[a]"
    assert found.notes == ("the chat template takes no system prompt: it is put at the beginning of the user's turn",)
    examples = (Message("user", "Hi"), Message("assistant", "Ho"))
    shown = text_of(template_of(template, ChatSetup(examples=examples)))
    assert shown == "[user]Be kind.\n\nHi\n[assistant]Ho\n[user]Why?\n[a]"


def test_the_day_is_frozen() -> None:
    found = template_of(DATED)
    assert text_of(found).startswith("[Today is 26 Jul 2024]")
    assert found.date == DAY.strftime("%Y-%m-%d") == "2024-07-26"
    assert datetime.now() > DAY
    asked = template_of(
        "  {% if strftime_now is defined %}{% set f = '%Y-%m-%d, %B' %}{{ strftime_now(f) }}{% endif %}"
    )
    assert text_of(asked) == "2024-07-26, July"
    other = template_of(DATED, ChatSetup(template_args={"date_string": "1 May 1999"}))
    assert text_of(other).startswith("[Today is 1 May 1999]")
    assert other.identity != found.identity != template_of(TEMPLATE).identity


def test_arguments_and_reasoning_that_the_prompt_opens() -> None:
    [opened] = template_of(THINKS).encode([ASK])
    [closed] = template_of(THINKS, ChatSetup(template_args={"enable_thinking": False})).encode([ASK])
    assert (opened.opened, closed.opened) == (True, False)
    assert len(closed.ids) > len(opened.ids)


@pytest.mark.parametrize("adds", [False, True])
def test_without_a_template_a_text_begins_as_the_tokenizer_begins_it(adds: bool) -> None:
    shown = text_of(template_of(None, tokenizer=bos_tokenizer(adds)), Prompt.ask("Why?"))
    assert shown == END * adds + "User: Why?\nAssistant:"


def test_with_a_template_the_template_says_how_a_text_begins() -> None:
    tokenizer = bos_tokenizer(adds=True)
    tokenizer.chat_template = "{{ bos_token }}" + TEMPLATE
    assert text_of(template_of(None, tokenizer=tokenizer)) == f"{END}[system]Be kind.\n[user]Why?\n[a]"


# In a model


@pytest.fixture
def model_with(tmp_path: Path) -> Callable[..., LocalModel]:
    def make(setup: ChatSetup | None = None, **how: Any) -> LocalModel:
        return LocalModel(str(tiny_folder(tmp_path / "base", **how)), chat=setup or ChatSetup())

    return make


def answers(model: LocalModel, *prompts: Prompt) -> list[Generation]:
    found = dict(model.generate(prompts, DECODING))
    return [found[i] for i in range(len(prompts))]


def test_a_prompt_beyond_the_context_is_an_error_of_that_prompt_alone(model_with: Callable[..., LocalModel]) -> None:
    model = model_with()
    room = 4096 - 8 - len("[user]\n[a]")
    short, fits, long = (Prompt.ask("x" * n) for n in (3, room, room + 1))
    [alone, most] = answers(model, short, fits)
    assert alone.unknown == most.unknown == ""
    assert answers(model, short, long, fits) == [alone, Generation("", 0, False, unknown="prompt"), most]
    assert answers(model, long) == [Generation("", 0, False, unknown="prompt")]
    known = model.losses([short, fits], ["abc", "abc"])
    [first, none, last] = model.losses([short, long, fits], ["abc", "x" * 20, "abc"])
    assert none[0] != none[0]
    assert [first[0], last[0]] == pytest.approx([nats for nats, _ in known])


def test_the_setup_is_part_of_who_answers(model_with: Callable[..., LocalModel]) -> None:
    plain, kind = model_with(), model_with(ChatSetup(system="Be kind."))
    assert plain.identity != kind.identity
    assert plain.base_identity == kind.base_identity
    assert answers(kind, Prompt.ask("Why?")) == answers(plain, ASK)
    assert kind.chat.system == "Be kind."


def test_an_answer_in_which_the_prompt_opened_the_reasoning(model_with: Callable[..., LocalModel]) -> None:
    [cut] = answers(model_with(template=THINKS), ASK)
    assert (cut.text, cut.unknown, cut.tokens) == ("", "reasoning", 8)
    [said] = answers(model_with(ChatSetup(template_args={"enable_thinking": False}), template=THINKS), ASK)
    assert said.text
    assert said.unknown == ""


def test_marks_that_are_special_tokens_are_seen(model_with: Callable[..., LocalModel]) -> None:
    """Decoding leaves them out; here `{` and `}` are the marks' places in the vocabulary."""
    model = model_with()
    tokenizer = model.base.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>", "<|im_end|>"]})
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in ("<think>", "</think>", "<|im_end|>")}
    plain = tokenizer("hm", add_special_tokens=False)["input_ids"]
    row = [ids["<think>"], *plain, ids["</think>"], *tokenizer("Yes")["input_ids"], ids["<|im_end|>"]]
    reader = TokenReader(tokenizer, [ids["<|im_end|>"]])
    assert tokenizer.decode(row, skip_special_tokens=True) == "hmYes"
    assert reader.answer(row, (), opened=False) == Generation("Yes", len(row), True, True)
    assert reader.answer(row[:3], (), opened=False).unknown == "reasoning"
    assert reader.answer(row[1:], (), opened=True) == Generation("Yes", len(row) - 1, True, True)
    assert reader.answer(plain, (), opened=False) == Generation("hm", 2, False)
    assert reader.answer(row, ("es",), opened=False).text == "Y"


@pytest.mark.slow
def test_a_real_model_with_a_system_prompt_and_an_example() -> None:
    examples = (Message("user", "What is the capital of France?"), Message("assistant", "PARIS"))
    model = LocalModel(str(small_model()), chat=ChatSetup(system="Answer in one word.", examples=examples))
    [found] = answers(model, Prompt.ask("What is the capital of Italy?"))
    assert found.text.strip().isalpha()
    assert found.text.strip().isupper()
    [plain] = answers(LocalModel(str(small_model())), Prompt.ask("What is the capital of Italy?"))
    assert not plain.text.strip().isupper()

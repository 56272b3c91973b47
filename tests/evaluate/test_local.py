from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from s3lora.errors import ModelError
from s3lora.evaluate import local
from s3lora.evaluate.chat import Decoding, Generation, Message, Prompt
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.store import AnswerStore, generations
from tests.evaluate.local_models import DECODING, ENDS, PLAIN, SHARED, TEXTS, answers, encoded, reference, tiny_gpt2
from tests.tiny_adapters import MODULES, tiny_adapter
from tests.tiny_model import END, PAD, TEMPLATE, UNKNOWN, VOCABULARY, tiny_folder, tiny_llama, torch, transformers

REFERENCES = ["a", "an answer", "", "The end.", "b" * 60, "1 2 3", "yes", "no"]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model of either kind."""
    model = {"llama": tiny_llama, "gpt2": tiny_gpt2}[request.param]()
    return tiny_folder(tmp_path_factory.mktemp(request.param) / "base", model=model, ends=ENDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llama") / "base", ends=ENDS)


@pytest.fixture
def model(folder: Path) -> LocalModel:
    return LocalModel(str(folder))


@pytest.mark.parametrize("prompts", [PLAIN, SHARED, SHARED[:3], [*PLAIN, *SHARED]])
@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_greedy_answers(kind: Path, prompts: list[Prompt], batch_size: int | None):
    model = LocalModel(str(kind), batch_size=batch_size)
    expected = reference(model.base.model, model.base.tokenizer, prompts)
    assert answers(model, prompts) == expected
    assert len({answer.text for answer in expected}) > len(prompts) // 2
    if len(prompts) > 3:
        assert {answer.finished for answer in expected} == {True, False}  # the test can see both


def test_generate_of_transformers_says_the_same(folder: Path, model: LocalModel):
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder)
    for prompt, answer in zip(SHARED, answers(model, SHARED), strict=True):
        ids = torch.tensor([encoded(model.base.tokenizer, prompt)])
        out = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        new = out[0, ids.shape[1] :]
        assert answer.text == model.base.tokenizer.decode(new, skip_special_tokens=True)
        assert answer.tokens == len(new)


def test_answers_with_an_adapter(folder: Path, model: LocalModel, tmp_path: Path):
    attached = model.attach(tiny_adapter(folder, tmp_path / "adapter"))
    base = answers(model, SHARED)
    seen = [base]
    for pruned in ((), MODULES[:2]):
        model.use(attached, pruned)
        assert model.loaded().modules == len(MODULES) - len(pruned)
        expected = reference(model.adapters.model, model.base.tokenizer, SHARED)
        assert answers(model, SHARED) == expected
        assert expected not in seen
        seen.append(expected)
    model.use(attached, MODULES)
    assert answers(model, SHARED) == base
    model.use()
    assert answers(model, SHARED) == base


def test_what_a_checkpoint_suggests_is_not_done(tmp_path: Path):
    other = tiny_llama()
    settings = {"do_sample": True, "temperature": 9.0, "top_k": 3, "repetition_penalty": 5.0, "max_length": 3}
    other.generation_config.update(**settings)
    found = answers(LocalModel(str(tiny_folder(tmp_path / "other", model=other, ends=ENDS))), PLAIN)
    assert found == answers(LocalModel(str(tiny_folder(tmp_path / "plain", ends=ENDS))), PLAIN)


def test_a_shared_beginning_is_read_once(model: LocalModel, monkeypatch: pytest.MonkeyPatch):
    read: list[tuple[int, int]] = []
    original = model._read_prefix

    def spy(ids: Any, shared: int) -> dict[str, Any]:
        read.append((len(ids), shared))
        return original(ids, shared)

    monkeypatch.setattr(model, "_read_prefix", spy)
    long = len("[system]You answer briefly.\n[user]")
    prompts = [*SHARED[:5], Prompt.ask("Why? Why?", "You answer briefly.")]
    found = answers(model, prompts)
    twice = answers(model, [prompts[0]] * 4)
    assert read == [(6, long), (4, len(encoded(model.base.tokenizer, prompts[0])) - 1)]
    assert found == reference(model.base.model, model.base.tokenizer, prompts)
    assert twice == [found[0]] * 4
    monkeypatch.setattr(local, "SHARED_ROWS", 1000)
    assert answers(model, prompts) == found
    assert read[2:] == [(6, 0)]


def test_where_a_shared_beginning_does_not_pay(model: LocalModel):
    same, head = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14]] * 4, [5, 6, 7, 8, 9, 10, 11, 12]
    assert model._prefix(same) == 9
    assert model._prefix([[*head, i] for i in range(4)]) == 8
    assert model._prefix([[*head, i] for i in range(2)]) == 8
    assert model._prefix([same[0]]) == 0  # one row
    assert model._prefix([[*head[1:], i] for i in range(4)]) == 0  # few tokens
    assert model._prefix([head, *same[1:]]) == 0  # something must be left to read
    assert model._prefix([[i, *head] for i in range(4)]) == 0
    # A window of attention counts places, and padding would take some.
    model.base.model.config.layer_types = ["sliding_attention", "full_attention"]
    assert model._prefix(same) == 0


def test_the_limit(model: LocalModel):
    whole = answers(model, PLAIN)
    for limit in (1, 7):
        for short, long in zip(answers(model, PLAIN, Decoding(max_new_tokens=limit)), whole, strict=True):
            assert short.tokens == min(limit, long.tokens)
            assert long.text.startswith(short.text)
            assert short.finished is (long.finished and long.tokens <= limit)


@pytest.mark.parametrize("prompts", [PLAIN, SHARED, PLAIN[:1]])
def test_stop_strings(model: LocalModel, prompts: list[Prompt]):
    """Cut before the first of them, counted with it; the same in any company."""
    whole = answers(model, prompts)
    long = [answer.text for answer in whole if answer.tokens > 8]
    stops = (long[0][5:7], long[-1][3:5], "never said")
    found = answers(model, prompts, Decoding(max_new_tokens=24, stop=stops))
    for prompt, before, after in zip(prompts, whole, found, strict=True):
        places = [before.text.find(stop) for stop in stops if stop in before.text]
        if not places:
            assert after == before
            continue
        assert (after.text, after.finished) == (before.text[: min(places)], True)
        for tokens, there in ((after.tokens - 1, False), (after.tokens, True)):
            text = answers(model, [prompt], Decoding(max_new_tokens=tokens))[0].text
            assert any(stop in text for stop in stops) is there
    assert sum(answer.tokens for answer in found) < sum(answer.tokens for answer in whole)
    assert found == [answers(model, [prompt], Decoding(max_new_tokens=24, stop=stops))[0] for prompt in prompts]


def test_the_end_of_the_prompt_does_not_count_as_a_stop_string(model: LocalModel):
    whole = answers(model, PLAIN)
    for prompt, answer in zip(PLAIN, whole, strict=True):
        stop = "[a]" + answer.text[0]  # as the prompt ends and the answer begins
        assert answers(model, [prompt], Decoding(max_new_tokens=24, stop=(stop,))) == [answer]


def test_sampling(model: LocalModel):
    decoding = Decoding(max_new_tokens=24, temperature=1.0, seed=1)
    found = answers(model, SHARED, decoding)
    torch.manual_seed(7)
    assert answers(model, SHARED, decoding) == found
    assert found != answers(model, SHARED)
    assert found != answers(model, SHARED, Decoding(max_new_tokens=24, temperature=1.0, seed=2))
    assert answers(model, SHARED, Decoding(max_new_tokens=24, temperature=1e-4)) == answers(model, SHARED)
    # Nothing is left out: hot enough, every token is drawn.
    model.batch_size = 1000
    hot = answers(model, [PLAIN[0]] * 1000, Decoding(max_new_tokens=1, temperature=1e6))
    assert {answer.text for answer in hot} >= set(VOCABULARY) - {END, PAD, UNKNOWN}


@pytest.mark.parametrize("width", [None, 90, 1])
def test_losses(kind: Path, monkeypatch: pytest.MonkeyPatch, width: int | None):
    model = LocalModel(str(kind))
    if width is not None:
        monkeypatch.setattr(local, "LOSS_TOKENS", width)
    found = model.losses(SHARED, REFERENCES)
    tokenizer = model.base.tokenizer
    for (nats, tokens), prompt, text in zip(found, SHARED, REFERENCES, strict=True):
        head = encoded(tokenizer, prompt)
        tail = [*(VOCABULARY[character] for character in text), VOCABULARY[END]]
        with torch.no_grad():
            odds = model.base.model(torch.tensor([head + tail])).logits[0].double().log_softmax(-1)
        expected = -sum(float(odds[len(head) + i - 1, token]) for i, token in enumerate(tail))
        assert tokens == len(tail)
        assert nats == pytest.approx(expected, rel=1e-5)
    assert model.losses([], []) == []
    every = range(len(REFERENCES))
    cut = model.losses(SHARED, REFERENCES, every)
    assert [tokens + 1 for _, tokens in cut] == [tokens for _, tokens in found], "no end of turn"
    assert all(less < more for (less, _), (more, _) in zip(cut, found, strict=True))
    assert model.losses(SHARED, REFERENCES, [1])[1] == pytest.approx(cut[1])


def test_losses_are_of_what_is_switched_on(folder: Path, model: LocalModel, tmp_path: Path):
    base = model.losses(PLAIN, REFERENCES)
    attached = model.attach(tiny_adapter(folder, tmp_path / "adapter"))
    assert model.losses(PLAIN, REFERENCES) == base
    model.use(attached)
    assert model.losses(PLAIN, REFERENCES) != base
    model.use(attached, MODULES)
    assert model.losses(PLAIN, REFERENCES) == base


def test_a_loss_of_no_token(tmp_path: Path):
    model = LocalModel(str(tiny_folder(tmp_path / "endless", eos_token=None, pad_token=None)))
    assert model.losses(PLAIN[:2], ["", ""]) == [(0.0, 0), (0.0, 0)]
    assert [tokens for _, tokens in model.losses(PLAIN[:2], ["", "abc"])] == [0, 3]


def test_batches(model: LocalModel):
    model.batch_size = 3
    batches = model.batches(SHARED, DECODING)
    assert [len(batch) for batch in batches] == [3, 3, 2]
    order = [i for batch in batches for i in batch]
    assert sorted(order) == list(range(len(SHARED)))
    lengths = [len(TEXTS[i]) for i in order]
    assert lengths == sorted(lengths)
    assert model.batches(SHARED, DECODING) == batches
    assert model.batches([], DECODING) == []
    assert [i for i, _ in model.generate(SHARED, DECODING, [[4, 2], [7]])] == [4, 2, 7]


def test_what_is_known_does_not_change_the_batches(model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model.batch_size = 3
    expected = answers(model, SHARED)
    batches = [[SHARED[i] for i in batch] for batch in model.batches(SHARED, DECODING)]
    asked: list[list[Prompt]] = []
    original = model._answer

    def spy(prompts: Sequence[Prompt], decoding: Decoding) -> list[Generation]:
        asked.append(list(prompts))
        return original(prompts, decoding)

    monkeypatch.setattr(model, "_answer", spy)
    with AnswerStore(tmp_path / "s") as store:
        for some in ([batches[0][1]], [*batches[0], batches[2][0]]):
            generations(model, some, DECODING, store)
        asked.clear()
        assert generations(model, SHARED, DECODING, store) == expected
        assert asked == batches[1:]


def limited(model: LocalModel, monkeypatch: pytest.MonkeyPatch, error: BaseException, rows: int = 0, calls: int = 0):
    """Let the model fail at more than `rows` rows, from the call after `calls` on; return the rows of each call."""
    inner, seen = model.base.model, []
    original = inner.forward

    @functools.wraps(original)  # generate looks at its arguments
    def forward(*positional: Any, input_ids: Any = None, **named: Any) -> Any:
        seen.append(len(input_ids))
        if len(input_ids) > rows and len(seen) > calls:
            raise error
        return original(*positional, input_ids=input_ids, **named)

    monkeypatch.setattr(inner, "forward", forward)
    return seen


FULL = [
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:129] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    ),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
]


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_batches_are_halved_when_memory_runs_out(
    model: LocalModel, monkeypatch: pytest.MonkeyPatch, error: BaseException
):
    expected, losses = answers(model, PLAIN), model.losses(PLAIN, REFERENCES)
    seen = limited(model, monkeypatch, error, rows=2)
    assert answers(model, PLAIN) == expected
    assert max(seen) == 8
    assert model.batch_size == 2
    assert [len(batch) for batch in model.batches(PLAIN, DECODING)] == [2, 2, 2, 2]
    for (found, tokens), (nats, count) in zip(model.losses(PLAIN, REFERENCES), losses, strict=True):
        assert found == pytest.approx(nats, rel=1e-5)
        assert tokens == count


def test_halving_of_losses_leaves_the_batches_of_answers(model: LocalModel, monkeypatch: pytest.MonkeyPatch):
    before = model.batch_size
    limited(model, monkeypatch, FULL[0], rows=1)
    model.losses(PLAIN, REFERENCES)
    assert model.batch_size == before > 1


def test_halving_never_makes_batches_larger(model: LocalModel, monkeypatch: pytest.MonkeyPatch):
    model.batch_size = 1
    limited(model, monkeypatch, FULL[0], rows=4)
    answers(model, PLAIN)
    assert model.batch_size == 1


def test_one_prompt_that_is_too_large(model: LocalModel, monkeypatch: pytest.MonkeyPatch):
    limited(model, monkeypatch, FULL[0])
    what = "base: memory runs out even with one prompt at a time; use fewer tokens or dtype=bfloat16"
    for run in (lambda: answers(model, PLAIN), lambda: model.losses(PLAIN, REFERENCES)):
        with pytest.raises(ModelError, match=what):
            run()


def test_other_errors_are_not_hidden(model: LocalModel, monkeypatch: pytest.MonkeyPatch):
    limited(model, monkeypatch, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        answers(model, PLAIN)
    assert model.batch_size == local.SMALL_BATCH


@pytest.mark.parametrize("calls", [0, 1, 5])
def test_an_interrupt(folder: Path, model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int):
    """While the shared beginning is read, while the rest is, and in the midst of answering."""
    attached = model.attach(tiny_adapter(folder, tmp_path / "adapter"))
    model.use(attached, MODULES[:1])
    expected, identity = answers(model, SHARED), model.identity
    level = transformers.utils.logging.get_verbosity()
    with monkeypatch.context() as patch:
        limited(model, patch, KeyboardInterrupt(), calls=calls)
        with pytest.raises(KeyboardInterrupt):
            answers(model, SHARED)
    assert transformers.utils.logging.get_verbosity() == level
    assert answers(model, SHARED) == expected
    assert model.identity == identity


def test_work_of_a_fixed_size(model: LocalModel, monkeypatch: pytest.MonkeyPatch):
    assert min(answer.tokens for answer in answers(model, PLAIN)) < 20
    seen = limited(model, monkeypatch, KeyboardInterrupt(), rows=100)
    model.answer_exactly(PLAIN, 20)
    assert seen == [len(PLAIN)] * 20


@pytest.fixture
def odd(tmp_path: Path) -> Callable[..., LocalModel]:
    return lambda **tokens: LocalModel(str(tiny_folder(tmp_path / "odd", ends=ENDS, **tokens)))


def test_tokenizers_without_a_usable_padding(model: LocalModel, odd: Callable[..., LocalModel]):
    """None, none to end with either, and one that the model has no embedding for."""
    expected = answers(model, PLAIN)
    for tokens in ({"pad_token": None}, {"pad_token": None, "eos_token": None}, {"pad_token": "<not in the model>"}):
        other = odd(**tokens)
        other._stops = ENDS
        assert answers(other, PLAIN) == expected


def test_a_template_that_refuses_a_prompt(odd: Callable[..., LocalModel]):
    model = odd(template="{{ raise_exception('No chat here') }}" + TEMPLATE)
    with pytest.raises(ModelError, match=r"odd: its chat template does not take the prompts \(No chat here\)"):
        model.batches(SHARED, DECODING)


def test_who_it_is(folder: Path, model: LocalModel, tmp_path: Path):
    def identities() -> Iterator[str]:
        for pruned in ((), MODULES[:1], MODULES[1:]):
            model.use(attached, pruned)
            yield model.identity

    assert (model.name, model.dtype) == (folder.name, "float32")
    assert model.backend == f"transformers {transformers.__version__}"
    base = model.identity
    attached = model.attach(tiny_adapter(folder, tmp_path / "adapter"))
    assert model.identity == base
    assert len({base, *identities()}) == 4
    model.use(attached, MODULES)
    assert model.identity == base
    assert LocalModel(str(folder)).identity == base
    assert LocalModel(str(folder), dtype="bfloat16").identity != base
    assert Message("user", TEXTS[0]) in PLAIN[0].messages

"""The endpoint backend against a server on loopback that fails in every way."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.evaluate import server
from s3lora.evaluate.address import EndpointError
from s3lora.evaluate.chat import Decoding, Generation, Message, Prompt
from s3lora.evaluate.chat_setup import ChatSetup
from s3lora.evaluate.endpoint import EndpointModel
from s3lora.evaluate.store import AnswerStore, generations
from tests.evaluate.faulty_server import (
    GREEDY,
    Behaviour,
    FaultyServer,
    answers,
    ask,
    breaks,
    completion,
    error_of,
    floods,
    hangs,
    hangs_up,
    model_of,
    says,
    trickles,
)
from tests.watched import PATIENCE, start, wait_until


@pytest.fixture(autouse=True)
def _no_key_and_no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("S3LORA_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(server, "FIRST_PAUSE", 0.002)


@pytest.fixture
def faulty() -> Iterator[FaultyServer]:
    with FaultyServer() as running:
        yield running


# What is sent and read

UNSAID = Generation("", 3, False, unknown="nothing")


def test_the_request_is_what_the_api_asks_for(faulty: FaultyServer) -> None:
    prompt = Prompt((Message("system", "Be brief."), Message("user", "Warum? \u2019 \U0001f600")))
    [answer] = generations(model_of(faulty), [prompt], Decoding(max_new_tokens=9))
    assert answer == Generation("re: Warum? \u2019 \U0001f600", 3, True)
    [request] = faulty.posts
    assert request.path == "/v1/chat/completions"
    assert request.body == {
        "model": "a-model",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Warum? \u2019 \U0001f600"},
        ],
        "max_tokens": 9,
        "temperature": 0.0,
    }
    assert "authorization" not in request.headers


def test_sampling_sends_its_seed_and_switches_the_servers_nucleus_off(faulty: FaultyServer) -> None:
    ask(model_of(faulty), "a?", decoding=Decoding(temperature=0.7, seed=5, stop=("END",)))
    body = faulty.posts[0].body
    assert (body["temperature"], body["seed"], body["top_p"], body["stop"]) == (0.7, 5, 1.0, ["END"])


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (completion("Yes.", tokens=2), Generation("Yes.", 2, True)),
        (completion("Yes", reason="length", tokens=7), Generation("Yes", 7, False)),
        (completion("", tokens=0), Generation("", 0, True)),
        (completion(None, reason="tool_calls", tool_calls=[{"id": "1"}]), UNSAID),
        (completion(None, reasoning_content="Hm."), Generation("", 3, True, True, "reasoning")),
        (completion([{"type": "text", "text": "a "}, {"type": "text", "text": "b"}, 3]), Generation("a b", 3, True)),
        (completion("half \ud83d pair"), Generation("half ? pair", 3, True)),
        (completion("nul \x00"), Generation("nul \x00", 3, True)),
        (completion("three words here", tokens=None), Generation("three words here", 3, True)),
        ({**completion("two words"), "usage": {"completion_tokens": "7"}}, Generation("two words", 2, True)),
        ({**completion("two words"), "usage": None}, Generation("two words", 2, True)),
    ],
)
def test_answers_are_read_as_servers_write_them(
    faulty: FaultyServer, tmp_path: Path, reply: dict[str, Any], expected: Generation
) -> None:
    faulty.script = [says(200, reply)]
    with AnswerStore(tmp_path / "s.sqlite") as store:
        assert generations(model_of(faulty), [Prompt.ask("?")], GREEDY, store) == [expected]


THOUGHT = "They want harm. I could say: Sure, here is how."


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        # vLLM, SGLang and llama.cpp with a parser; OpenRouter and new vLLM; Ollama.
        (completion("No.", reasoning_content=THOUGHT), Generation("No.", 3, True, True)),
        (completion("No.", reasoning=THOUGHT), Generation("No.", 3, True, True)),
        (completion("No.", thinking=THOUGHT), Generation("No.", 3, True, True)),
        (completion(None, reasoning_content=THOUGHT, reason="length"), Generation("", 3, False, True, "reasoning")),
        (completion("No.", reasoning_content=None), Generation("No.", 3, True)),
        (completion("No.", reasoning_content=""), Generation("No.", 3, True)),
        # Without a parser.
        (completion(f"<think>{THOUGHT}</think>No."), Generation("No.", 3, True, True)),
        (completion(f"{THOUGHT}\n</think>\n\nNo."), Generation("No.", 3, True, True)),
        (completion(f"<think>{THOUGHT}", reason="length"), Generation("", 3, False, True, "reasoning")),
        (completion(f"analysis{THOUGHT}assistantfinalNo."), Generation("No.", 3, True, True)),
        # Mistral.
        (
            completion([{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}, {"text": "No."}]),
            Generation("No.", 3, True, True),
        ),
        # OpenAI puts a refusal into a field of its own.
        (completion(None, refusal="I can't."), Generation("I can't.", 3, True)),
        (completion("", reason="length"), Generation("", 3, False, unknown="nothing")),
        (completion("", reason="content_filter"), Generation("", 3, False, unknown="filtered")),
    ],
)
def test_reasoning_is_not_the_answer(faulty: FaultyServer, reply: dict[str, Any], expected: Generation) -> None:
    faulty.script = [says(200, reply)]
    assert ask(model_of(faulty), "?") == [expected]
    assert len(faulty.posts) == 1


def test_a_template_that_opens_the_reasoning_is_found_out(faulty: FaultyServer) -> None:
    """Every answer was cut off inside its reasoning, and none of them shows it: one short question does."""
    cut = says(200, completion(THOUGHT, reason="length"))
    model = model_of(faulty, parallel=1)
    faulty.script = [cut, says(200, completion("Just OK.\n</think>\n\nOK.")), cut]
    assert ask(model, "a?", "b?") == [Generation("", 3, False, True, "reasoning")] * 2
    assert [post.body["messages"][-1]["content"] for post in faulty.posts] == ["a?", "Say OK.", "b?"]
    assert faulty.posts[1].body["max_tokens"] > 500


def test_a_model_without_reasoning_is_asked_once_whether_it_has_some(faulty: FaultyServer) -> None:
    cut = says(200, completion("Sure, here", reason="length"))
    faulty.script = [cut, answers("OK."), cut, cut]
    assert ask(model_of(faulty, parallel=1), "a?", "b?", "c?") == [Generation("Sure, here", 3, False)] * 3
    assert len(faulty.posts) == 4


def test_the_setup_is_sent_and_is_part_of_who_answers(faulty: FaultyServer) -> None:
    examples = (Message("user", "Hi"), Message("assistant", "Ho"))
    setup = ChatSetup(system="Be brief.", examples=examples, template_args={"enable_thinking": False})
    model = model_of(faulty, setup=setup)
    ask(model, "a?")
    [post] = faulty.posts
    assert [message["role"] for message in post.body["messages"]] == ["system", "user", "assistant", "user"]
    assert post.body["chat_template_kwargs"] == {"enable_thinking": False}
    assert model.identity != model_of(faulty).identity
    assert (model.chat.system, model.chat.few_shot) == ("Be brief.", 1)
    ask(model_of(faulty), "a?")
    assert "chat_template_kwargs" not in faulty.posts[-1].body


def test_a_server_that_takes_no_system_prompt_gets_it_in_the_users_turn(faulty: FaultyServer) -> None:
    faulty.script = [says(400, {"message": "System role not supported"})]
    model = model_of(faulty, parallel=1, setup=ChatSetup(system="Be brief."))
    assert [answer.text for answer in ask(model, "a?", "b?")] == ["re: Be brief.\n\na?", "re: Be brief.\n\nb?"]
    assert len(faulty.posts) == 3
    assert model.notes == ("the server takes no system prompt: it is put at the beginning of the user's turn",)


@pytest.mark.parametrize(
    "said",
    [
        {"message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."},
        {"error": {"message": "the request exceeds the available context size", "type": "exceed_context_size_error"}},
        {"error": {"message": "Input is too long.", "code": "context_length_exceeded"}},
    ],
)
def test_a_prompt_beyond_the_context_is_an_error_of_that_prompt_alone(faulty: FaultyServer, said: object) -> None:
    faulty.script = [answers("Yes."), says(400, said), answers("No.")]
    expected = [Generation("Yes.", 3, True), Generation("", 0, False, unknown="prompt"), Generation("No.", 3, True)]
    assert ask(model_of(faulty, parallel=1), "a?", "b?", "c?") == expected


def test_a_server_that_counts_no_tokens_is_noted(faulty: FaultyServer) -> None:
    faulty.script = [answers("one two"), answers("one two", tokens=None)]
    model = model_of(faulty)
    ask(model, "a?")
    assert model.notes == ()
    assert ask(model, "a?")[0].tokens == 2
    assert "words were counted" in model.notes[0]


def test_what_follows_a_stop_string_is_cut_where_the_server_keeps_it(faulty: FaultyServer) -> None:
    faulty.script = [answers("one\nEND\ntwo STOP", reason="length"), answers("one\ntwo", reason="length")]
    model, decoding = model_of(faulty), Decoding(stop=("STOP", "END"))
    assert ask(model, "a?", decoding=decoding) == [Generation("one\n", 3, True)]
    assert ask(model, "a?", decoding=decoding) == [Generation("one\ntwo", 3, False)]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_knows_only_the_new_name_of_the_limit_gets_it(faulty: FaultyServer, status: int) -> None:
    told = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    faulty.script = [says(status, {"error": {"message": told}})]
    model = model_of(faulty, parallel=1)
    assert [g.text for g in ask(model, "a?", "b?")] == ["re: a?", "re: b?"]
    limits = [[name for name in r.body if name.startswith("max_")] for r in faulty.posts]
    assert limits == [["max_tokens"], ["max_completion_tokens"], ["max_completion_tokens"]]


def test_a_limit_that_no_name_helps_is_an_error_after_two_requests(faulty: FaultyServer) -> None:
    refusal = says(400, {"error": {"message": "'max_tokens' or 'max_completion_tokens' is too large: 7"}})
    faulty.script = [refusal] * 3
    assert "is too large: 7" in error_of(model_of(faulty))
    assert len(faulty.posts) == 2


# Many at once


def test_requests_run_beside_each_other_and_come_as_they_end(faulty: FaultyServer) -> None:
    faulty.script = [answers(after=0.3)]
    questions = [f"{i}?" for i in range(20)]
    prompts = [Prompt.ask(q) for q in questions]
    model = model_of(faulty, parallel=4)
    got = list(model.generate(prompts, GREEDY))
    assert len(got) == 20
    assert {i: answer.text for i, answer in got} == {i: f"re: {q}" for i, q in enumerate(questions)}
    assert got[-1][0] < 4
    assert 1 < faulty.busiest <= 4


def test_only_the_batches_asked_for_are_answered(faulty: FaultyServer) -> None:
    model, prompts = model_of(faulty), [Prompt.ask(f"{i}?") for i in range(5)]
    assert model.batches(prompts, GREEDY) == [[0], [1], [2], [3], [4]]
    assert sorted(i for i, _ in model.generate(prompts, GREEDY, [[3], [1]])) == [1, 3]
    assert list(model.generate(prompts, GREEDY, [])) == []
    assert list(model.generate([], GREEDY)) == []


def test_it_works_where_the_caller_has_an_event_loop(faulty: FaultyServer) -> None:
    async def cell() -> list[Generation]:
        return ask(model_of(faulty), "a?")

    assert asyncio.run(cell())[0].text == "re: a?"


def test_an_iterator_that_is_dropped_ends_the_requests(faulty: FaultyServer) -> None:
    faulty.script = [answers(), *[hangs] * 7]
    answered = model_of(faulty, parallel=4).generate([Prompt.ask("a?")] * 200, GREEDY)
    next(answered)
    answered.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name == "s3lora-endpoint"]
    faulty.over.set()
    wait_until(lambda: faulty.busy == 0)
    assert len(faulty.posts) <= 8


def test_a_failure_for_good_keeps_what_came_before(faulty: FaultyServer, tmp_path: Path) -> None:
    refused = says(400, {"error": {"message": "too long"}})
    faulty.script = [answers(), answers(), refused]
    prompts = [Prompt.ask(f"{i}?") for i in range(6)]
    with AnswerStore(tmp_path / "s.sqlite") as store:
        with pytest.raises(EndpointError, match="400 \\(too long\\)"):
            generations(model_of(faulty, parallel=1), prompts, GREEDY, store)
        assert len(store) == 2
        done = len(faulty.posts)
        assert [g.text for g in generations(model_of(faulty, parallel=1), prompts, GREEDY, store)] == [
            f"re: {i}?" for i in range(6)
        ]
    assert len(faulty.posts) == done + 4


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_an_interrupt_ends_it_at_once_and_keeps_what_came(faulty: FaultyServer, tmp_path: Path) -> None:
    faulty.script = [answers("kept"), *[hangs] * 10]
    code = (
        "import sys; from pathlib import Path\n"
        "from s3lora.evaluate.chat import Decoding, Prompt\n"
        "from s3lora.evaluate.endpoint import EndpointModel\n"
        "from s3lora.evaluate.store import AnswerStore, generations\n"
        "model = EndpointModel(sys.argv[1], 'a-model', parallel=3, timeout=1e6)\n"
        "with AnswerStore(Path(sys.argv[2])) as store:\n"
        "    prompts = [Prompt.ask(str(i)) for i in range(9)]\n"
        "    generations(model, prompts, Decoding(), store, lambda done, n: print(done, flush=True))\n"
    )
    path = tmp_path / "s.sqlite"
    process = start(
        [sys.executable, "-c", code, faulty.root, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != "1":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert errors.strip().endswith("KeyboardInterrupt")
    with AnswerStore(path) as store:
        assert len(store) == 1


# Failures that pass


@pytest.mark.parametrize(
    "failure",
    [
        *(pytest.param(says(status, {"error": "busy"}), id=str(status)) for status in (429, 500, 502, 503, 504)),
        pytest.param(breaks, id="reset"),
        pytest.param(hangs_up, id="hangs-up"),
        pytest.param(says(200, b"<html>It works</html>", "text/html"), id="html"),
        pytest.param(says(200, b'{"choices": [{'), id="cut-json"),
        pytest.param(says(200, b"[" * 100_000), id="deep-json"),
        pytest.param(says(200, b'{"a": ' + b"9" * 5000 + b"}"), id="long-number"),
        pytest.param(says(200, b"\xff\xfe\x00"), id="not-utf-8"),
        pytest.param(says(200, None), id="null"),
        pytest.param(says(200, []), id="list"),
        pytest.param(says(200, {"choices": []}), id="no-choice"),
        pytest.param(says(200, {"choices": [{"text": "old api"}]}), id="no-message"),
        pytest.param(says(200, {"choices": [{"message": "text"}]}), id="message-no-object"),
        pytest.param(says(200, {"error": {"message": "overloaded"}}), id="error-with-200"),
        pytest.param(says(200, b"\x1f\x8b\x08", content_encoding="gzip"), id="gzip-though-not-asked-for"),
    ],
)
def test_what_may_pass_is_tried_again_and_then_told_in_a_sentence(faulty: FaultyServer, failure: Behaviour) -> None:
    faulty.script = [failure, failure]
    assert ask(model_of(faulty), "a?")[0].text == "re: a?"
    assert len(faulty.posts) == 3
    faulty.script = [failure] * 10
    assert error_of(model_of(faulty)).endswith(", after 4 tries")
    assert len(faulty.posts) == 7


def test_pauses_grow_and_repeat_themselves(faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def no_sleep(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(server, "FIRST_PAUSE", 0.5)
    monkeypatch.setattr(server.asyncio, "sleep", no_sleep)
    for _ in range(2):
        faulty.script = [says(503)] * 9
        error_of(model_of(faulty, retries=8))
    assert pauses[:8] == pauses[8:]
    assert all(low <= 2 * p <= 2 * low for p, low in zip(pauses, [0.5, 1, 2, 4, 8, 16, 30, 30], strict=False))
    assert len({p / low for p, low in zip(pauses, [0.5, 1, 2, 4, 8, 16, 30, 30], strict=False)}) == 8


def test_the_wish_of_a_busy_server_is_honoured(faulty: FaultyServer) -> None:
    faulty.script = [says(429, retry_after="1")]
    assert ask(model_of(faulty), "a?")[0].text == "re: a?"
    assert faulty.posts[1].at - faulty.posts[0].at >= 1


def test_a_wish_for_an_hour_ends_it(faulty: FaultyServer) -> None:
    faulty.script = [says(429, {"error": "quota"}, retry_after="3600")]
    assert "asks to wait 3600 s; go on later" in error_of(model_of(faulty))
    assert len(faulty.posts) == 1


@given(st.text(max_size=40) | st.integers(-(10**12), 10**12).map(str))
def test_any_retry_after_is_a_number_of_seconds(text: str) -> None:
    assert 0 <= server._seconds(text) < float("inf")


def test_a_date_to_come_back_at_is_seconds_from_now() -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    later = format_datetime(now + datetime.timedelta(hours=9), usegmt=True)
    assert 8 * 3600 < server._seconds(later) <= 9 * 3600
    assert server._seconds(format_datetime(now - datetime.timedelta(hours=9), usegmt=True)) == 0
    assert server._seconds("12") == 12


def time_is_up_where_it_hangs(faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the time limit of a request pass when the server begins to hang, and not before, however busy it is."""
    wait_for = asyncio.wait_for

    async def waits(request: Coroutine[Any, Any, Any], seconds: float) -> Any:
        task = asyncio.ensure_future(request)
        while not task.done() and not faulty.hanging.acquire(blocking=False):
            await asyncio.sleep(0.005)
        return await wait_for(task, seconds if task.done() else 0)

    monkeypatch.setattr(server.asyncio, "wait_for", waits)


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param(hangs, id="hangs"),
        pytest.param(trickles(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{"), id="trickles-its-body"),
        pytest.param(trickles(b"HTTP/1.1 200 OK\r\nx-slow: "), id="trickles-its-headers"),
    ],
)
def test_a_server_that_is_too_slow_is_ended(
    faulty: FaultyServer, slow: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.script = [slow] * 10
    time_is_up_where_it_hangs(faulty, monkeypatch)
    assert "did not answer within 7 s, after 2 tries" in error_of(model_of(faulty, timeout=7))
    assert len(faulty.posts) == 2


@pytest.mark.parametrize("slow", [hangs, trickles(b"HTTP/1.1 200 OK\r\n")])
def test_a_time_limit_holds_on_the_clock(faulty: FaultyServer, slow: Behaviour) -> None:
    faulty.script = [slow] * 10
    assert "did not answer within 0.1 s, after 2 tries" in error_of(model_of(faulty, timeout=0.1))


def test_a_server_that_was_too_slow_once_is_forgiven(faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty.script = [hangs]
    time_is_up_where_it_hangs(faulty, monkeypatch)
    assert ask(model_of(faulty, timeout=7), "a?")[0].text == "re: a?"
    assert len(faulty.posts) == 2


def test_a_server_that_is_not_there_is_told_in_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        model = EndpointModel(f"http://127.0.0.1:{taken.getsockname()[1]}", "a-model", retries=1)
        assert "cannot be reached" in error_of(model)
        assert len(model.identity) == 64


# Failures that do not pass


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 409, 413, 422, 501])
def test_a_refusal_is_final(faulty: FaultyServer, status: int) -> None:
    faulty.script = [says(status, {"error": {"message": "no"}})] * 2
    assert f"the server answered {status} (no)" in error_of(model_of(faulty))
    assert len(faulty.posts) == 1


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"error": {"message": "no such thing", "code": 1}}, " (no such thing)"),
        ({"error": "no such thing"}, " (no such thing)"),
        ({"detail": "no such thing"}, " (no such thing)"),
        ({"detail": [{"loc": ["body"], "msg": "no such thing"}]}, " (no such thing)"),
        ({"object": "error", "message": "no such thing"}, " (no such thing)"),
        (b"no such thing", " (no such thing)"),
        (b"<html>no such thing</html>", ""),
        ({"error": {"message": "no\x1b[31m such\nthing\u202e"}}, " (no\ufffd[31m such\ufffdthing\ufffd)"),
        ({"error": {"message": {"a": 1}}}, ""),
        ([], ""),
        (b"", ""),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(faulty: FaultyServer, told: object, said: str) -> None:
    faulty.script = [says(400, told)] * 2
    assert error_of(model_of(faulty)).endswith(f"a-model: the server answered 400{said}")
    assert len(faulty.posts) == 1


def test_an_endless_message_is_cut(faulty: FaultyServer) -> None:
    faulty.script = [says(400, b"x" * 1_000_000)]
    assert "xxx…)" in error_of(model_of(faulty))


def test_an_unknown_model_is_told_with_those_that_are_there(faulty: FaultyServer) -> None:
    faulty.script = [says(404, {"error": {"message": "model not found"}})] * 2
    faulty.models = [{"id": "llama\x1b"}, {"id": "gemma"}, {"object": "model"}, "nonsense"]  # type: ignore[list-item]
    assert error_of(model_of(faulty)).endswith("404 (model not found); it has llama\ufffd, gemma")
    faulty.models = [{"id": f"m{i}"} for i in range(100)]
    assert error_of(model_of(faulty)).endswith("it has m0, m1, m2, m3, m4, m5, m6, m7, …")


@pytest.mark.parametrize("listing", [says(404), says(200, b"?"), says(200, {"data": None}), says(200, []), says(500)])
def test_an_unknown_model_is_told_where_there_is_no_list(faulty: FaultyServer, listing: Behaviour) -> None:
    faulty.script = [says(404)]
    faulty.listing = listing  # type: ignore[method-assign]
    assert error_of(model_of(faulty)).endswith("404; check address and model name")


def test_an_answer_without_end_is_not_read_to_the_end(faulty: FaultyServer) -> None:
    faulty.script = [floods]
    assert "larger than 16 MiB" in error_of(model_of(faulty))
    assert len(faulty.posts) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(faulty: FaultyServer, status: int) -> None:
    with FaultyServer() as other:
        faulty.script = [says(status, location=f"{other.root}/v1/chat/completions")]
        assert f"redirects to {other.root}/v1/chat/completions" in error_of(model_of(faulty))
        assert other.requests == []

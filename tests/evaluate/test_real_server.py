"""The endpoint backend against a real server with a real model on loopback: `transformers serve`."""

from __future__ import annotations

import os
import socket
import subprocess
import sysconfig
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from s3lora.evaluate.chat import Decoding, Prompt
from s3lora.evaluate.store import AnswerStore, generations
from tests.evaluate.faulty_server import EndpointError, EndpointModel, ask
from tests.small_model import small_model
from tests.watched import PATIENCE, wait_until

PROMPTS = [Prompt.ask("What is the capital of France?"), Prompt.ask("Count from one to ten, in words.")]


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start `transformers serve` with the model of a folder; yield its address and process."""
    command = Path(sysconfig.get_path("scripts")) / "transformers"
    if not command.is_file() or not all(map(find_spec, ("fastapi", "uvicorn"))):
        pytest.skip("no `transformers serve` here: pip install 'transformers[serving]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [command, "serve", folder, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
            env={**threads, **os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), process)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    """Return whether a server answers."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=PATIENCE):
            return True
    except OSError:
        return False


@pytest.mark.thorough
def test_a_real_server_and_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("S3LORA_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    folder = small_model()
    with serving(folder, tmp_path / "log") as (url, process), AnswerStore(tmp_path / "s.sqlite") as store:
        model = EndpointModel(url, str(folder), parallel=2)
        found = generations(model, PROMPTS, Decoding(max_new_tokens=12), store)
        assert "Paris" in found[0].text
        assert found[0].finished
        assert 0 < found[0].tokens <= 12
        assert (found[1].tokens, found[1].finished) == (12, False)
        assert model.notes == ()
        with pytest.raises(EndpointError, match=r"the server answered 40[04] \(.*nonsuch"):
            ask(EndpointModel(url, "nonsuch"), "Who?")
        process.kill()
        process.wait()
        # What was answered is known without the server, and what was not is a sentence.
        assert generations(model, PROMPTS, Decoding(max_new_tokens=12), store) == found
        with pytest.raises(EndpointError, match=r"the server cannot be reached .*, after 1 try"):
            ask(EndpointModel(url, str(folder), retries=0), "Who?")

"""What only a process of its own can show: memory, time, a full disk, signals, broken pipes, no place to write."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.command import Result, call, environment, process
from tests.hostile import bad_files as bad
from tests.hostile.bad_files import A, B, entry, stored
from tests.hostile.test_bad_adapters import state
from tests.support import factors, make_adapter, write_safetensors
from tests.watched import PATIENCE, start

GIB = 1024**3
#: Each thread of a BLAS takes memory of its own.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
#: VmHWM and not ru_maxrss: the latter starts at what the parent used.
PEAK = """
def peak():
    with open("/proc/self/status") as status:
        kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    sys.stderr.write(f"peak {kilobytes // 1024} MB")
    sys.stderr.flush()
leave = os._exit
os._exit = lambda status: (peak(), leave(status))
"""
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, or sets Linux limits")


def measured(*arguments: object) -> tuple[Result, int]:
    """Run a command and return its result, without the line that told the peak, and the peak in MB."""
    result = process(*arguments, before=PEAK, env=ONE_THREAD)
    found = re.search(r"peak (\d+) MB$", result.err)
    assert found is not None, result.err
    return Result(result.status, result.out, result.err[: found.start()]), int(found[1])


@linux
@pytest.mark.parametrize("length", [GIB - 8, 2**63])
def test_a_gigabyte_of_header_is_not_read(length: int, tmp_path: Path) -> None:
    adapter = bad.good(tmp_path / "adapter")
    bad.sparse(adapter / bad.WEIGHTS, GIB, length.to_bytes(8, "little"))
    result, peak = measured("scan", adapter)
    assert result.status == 2
    assert "claims a header" in result.err
    assert peak < 150


@linux
def test_a_header_at_the_limit_is_read_within_bounds(tmp_path: Path) -> None:
    """The largest header that is read at all, all spaces but for its brackets: some copies of 32 MiB, no more."""
    adapter = bad.good(tmp_path / "adapter")
    (adapter / bad.WEIGHTS).write_bytes(stored(b"{" + b" " * (32 * 1024**2 - 2) + b"}"))
    result, peak = measured("scan", adapter)
    assert result.status == 3
    assert peak < 300


@linux
def test_a_gigabyte_of_tensors_is_scanned_in_little_memory(tmp_path: Path) -> None:
    """One gigabyte of a head beside a small module: hashed, but never held."""
    adapter = make_adapter(tmp_path / "adapter", {bad.PATH: (8, 6, 2)})
    size = GIB - 112
    header = {
        A: entry("F32", [2, 6], 0, 48),
        B: entry("F32", [8, 2], 48, 112),
        "score.weight": entry("F32", [size // 4], 112, GIB),
    }
    a, b = factors(8, 6, 2)
    head = stored(header, a.tobytes() + b.tobytes())
    bad.sparse(adapter / bad.WEIGHTS, len(head) + size, head)
    result, peak = measured("scan", adapter, "--format", "json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["modules"][0]["path"] == bad.PATH
    assert peak < 200


@linux
def test_factors_of_a_gigabyte_are_scanned_in_bounded_memory(tmp_path: Path) -> None:
    """B of 2²⁵ × 8, all zero: a zero update, found in half the memory that a copy of it would take."""
    adapter = make_adapter(tmp_path / "adapter", {bad.PATH: (8, 6, 2)})
    rows = 2**25
    header = {
        A: entry("F32", [8, 8], 0, 256),
        B: entry("F32", [rows, 8], 256, 256 + rows * 32),
    }
    head = stored(header, np.ones((8, 8), np.float32).tobytes())
    bad.sparse(adapter / bad.WEIGHTS, len(head) + rows * 32, head)
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({GIB // 2}, {GIB // 2}))"
    result = process("scan", adapter, "--format", "json", before=limited, env=ONE_THREAD)
    assert result.status == 0, result.err
    assert json.loads(result.out)["modules"][0]["zero"] is True


def limit(size: int) -> str:
    """Return statements that make the system refuse files larger than `size`, as a full disk does."""
    return f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"


@linux
@pytest.mark.parametrize("size", [0, 100, 1500])
def test_a_full_disk_leaves_no_output(size: int, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", {f"h.{i}.q_proj": (16, 12, 4) for i in range(6)})
    before = state(tmp_path)
    for command in (
        ("prune", adapter, "-o", tmp_path / "new" / "out"),
        ("scan", adapter, "--format", "json", "--output", tmp_path / "scan.json"),
    ):
        result = process(*command, before=limit(size))
        assert result.status == 2, command
        assert re.fullmatch(r"s3lora: .*(out|scan\.json): cannot be written \(File too large\)\n", result.err)
        assert state(tmp_path) == before, "neither the result nor the folder made for it"


@linux
def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    adapter, out = bad.good(tmp_path / "adapter"), bad.good(tmp_path / "out")
    (tmp_path / "scan.json").write_text("earlier")
    before = state(tmp_path)
    assert process("prune", adapter, "-o", out, "--force", before=limit(300)).status == 2
    assert process("prune", adapter, "-o", adapter, "--force", before=limit(300)).status == 2
    assert process("scan", adapter, "--output", tmp_path / "scan.json", before=limit(300)).status == 2
    assert state(tmp_path) == before


@linux
@pytest.mark.parametrize("form", ["text", "json", "csv"])
def test_a_full_standard_output_is_told_once(form: str, tmp_path: Path) -> None:
    adapter = bad.good(tmp_path / "adapter")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "s3lora", "scan", str(adapter), "--format", form],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == b"s3lora: standard output: No space left on device\n"


@linux
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_reader_that_leaves_gets_no_traceback(form: str, tmp_path: Path) -> None:
    """Nobody reads the output: not 0, for it is incomplete, and not 1, no finding."""
    adapter = make_adapter(tmp_path / "adapter", {f"h.{i}.q_proj": (4, 4, 2) for i in range(400)})
    many = " ".join([str(adapter)] * 3)
    line = f"{sys.executable} -m s3lora scan {many} --format {form} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, env=environment(), check=False)
    assert done.returncode == 2
    assert done.stderr == b""


@linux
def test_closed_streams(tmp_path: Path) -> None:
    adapter = bad.good(tmp_path / "adapter")

    def shell(redirection: str, path: Path) -> subprocess.CompletedProcess[bytes]:
        line = f"{sys.executable} -m s3lora scan {path} --format json {redirection}"
        return subprocess.run(["bash", "-c", line], capture_output=True, env=environment(), check=False)

    closed_out = shell(">&-", adapter)
    assert (closed_out.returncode, closed_out.stderr) == (2, b"s3lora: standard output is closed\n")
    closed_error = shell("2>&-", tmp_path / "nowhere")
    assert (closed_error.returncode, closed_error.stdout) == (2, b"")
    assert shell(">&- 2>&-", adapter).returncode == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_locale_without_the_signs_still_gets_a_report(encoding: str, tmp_path: Path) -> None:
    adapter = bad.good(tmp_path / "adapter")
    command = [sys.executable, "-m", "s3lora", "scan", str(adapter)]
    env = environment({"PYTHONIOENCODING": encoding})
    text = subprocess.run(command, capture_output=True, env=env, check=True).stdout.decode(encoding)
    assert "would prune 3 of 6 modules" in text
    data = subprocess.run([*command, "--format", "json"], capture_output=True, env=env, check=True).stdout
    assert json.loads(data.decode("utf-8"))["modules"]


@linux
def test_an_interruption_is_one_line_and_130(tmp_path: Path) -> None:
    """Interrupted while the robust fit runs."""
    adapter = make_adapter(tmp_path / "adapter", {f"h.{i}.q_proj": (2048, 2048, 16) for i in range(4)})
    command = ["prune", str(adapter), "-o", str(tmp_path / "out"), "--method", "spsvd", "--fit", "l1", "--sample", "0"]
    command += ["--max-cost", "inf"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    running = start([sys.executable, "-c", ENDLESS_FIT, *command], env=environment(), **pipes)
    assert running.stdout.readline() == b"fitting\n"
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert (out, err) == (b"", b"s3lora: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


#: Says when the fit begins, which then has no end.
ENDLESS_FIT = """
from s3lora.__main__ import main
from s3lora.spectrum import robust
fit = robust.weighted_median
def fitting(*given):
    print("fitting", flush=True)
    while True:
        fit(*given)
robust.weighted_median = fitting
main()
"""


def test_exploding_patterns_are_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Python's matcher would try each of them for longer than the tests could run."""
    path = "model.layers.0." + "a" * 300
    fields = {"rank_pattern": {"(a|a)+(a|a)+(a|a)+b": 4}, "alpha_pattern": {r"(.*)*(.*)*!": 2, r"(.*)*(.*)*a": 6}}
    adapter = make_adapter(tmp_path / "adapter", {path: (4, 4, 2)}, config=fields)
    result = call(capsys, "scan", adapter, "--format", "json")
    assert [module["scaling"] for module in json.loads(result.out)["modules"]] == [3.0]


def test_a_hundred_thousand_tensors_that_are_no_factors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header: dict[str, Any] = {f"model.{i}.weight": entry("F32", [0], 0, 0) for i in range(100_000)}
    adapter = bad.good(tmp_path / "adapter")
    (adapter / bad.WEIGHTS).write_bytes(stored(header))
    start = time.process_time()
    result = call(capsys, "scan", adapter)
    assert result.status == 3
    assert time.process_time() - start < 60, "takes some 2 s of a processor; by the square of them it were 1,000"


def test_layer_numbers_of_hundreds_of_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = factors(8, 6, 2)
    adapter = make_adapter(tmp_path / "adapter", {})
    content = {}
    for i, digits in enumerate(("9" * 300, "18446744073709551616", "7")):
        path = f"base_model.model.model.layers.{digits}.q_proj"
        content |= {f"{path}.lora_A.weight": a * (i + 1), f"{path}.lora_B.weight": b}
    write_safetensors(adapter / bad.WEIGHTS, content)
    for form in ("text", "csv", "json"):
        result = call(capsys, "scan", adapter, "--format", form)
        assert result.status == 0, result.err
    assert [module["layer"] for module in json.loads(result.out)["modules"]] == [7, None, None]


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """File names are bytes on Linux; a result is Unicode."""
    name = os.fsdecode(b"caf\xe9[/bold]\x1b[31m".replace(b"/", b"|"))
    try:
        adapter = bad.good(tmp_path / name)
    except OSError:
        pytest.skip("this file system takes text only")
    for form in ("text", "json", "csv"):
        result = process("scan", adapter, "--format", form)
        assert (result.status, result.err) == (0, "")
        assert "\x1b" not in result.out
    result = process("prune", adapter, "-o", tmp_path / os.fsdecode(b"out\xff"))
    assert (result.status, result.err) == (0, "")
    weights = adapter / os.fsdecode(b"w\xff.safetensors")
    (adapter / bad.WEIGHTS).rename(weights)
    assert process("scan", weights, "--format", "json").status == 0
    assert process("prune", weights, "-o", tmp_path / "second").status == 0

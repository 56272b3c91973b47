"""What a newcomer gives wrongly: one sentence of the program's own, never an AttributeError from its inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import s3lora
from s3lora.arguments import MEANT
from tests.support import make_adapter

PATHS = [f"model.layers.{i}.self_attn.q_proj" for i in range(3)]


class Desk:
    """What the calls below are made with."""

    def __init__(self, folder: Path) -> None:
        make_adapter(folder / "a", dict.fromkeys(PATHS, (8, 6, 2)))
        self.a = s3lora.open_adapter("a")
        self.scan = s3lora.scan("a")
        self.plan = s3lora.select(self.scan, s3lora.Top(1))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    made = Desk(tmp_path)
    yield made
    made.a.close()


CALLS = {
    "s3lora.select(d.scan, 10)": "select: rule must be a rule, such as Top(10), not 10",
    "s3lora.select(d.scan, 'top 10')": "not 'top 10'",
    "s3lora.select(d.scan, s3lora.Gap)": "not the class Gap; write Gap(…)",
    "s3lora.select(d.scan, None)": "not None",
    "s3lora.select('a')": "select: scan must be a scan that scan returned, not 'a'",
    "s3lora.select(d.a)": "not an Adapter",
    "s3lora.select(d.scan, index=3)": "index must be text, not 3",
    "s3lora.select(d.scan, only='q_proj')": "only must be a filter, such as Filter(",
    "s3lora.select(d.scan, seed='1')": "seed must be a whole number, not '1'",
    "s3lora.Top(0.25)": "Top: count must be a whole number, not 0.25",
    "s3lora.Top('10')": "not '10'",
    "s3lora.Top(True)": "not True",
    "s3lora.Top(share=2)": "a share of 2 cannot be meant; give more than 0 and at most 1",
    "s3lora.Fraction('half')": "share must be a number, not 'half'",
    "s3lora.Threshold(None)": "value must be a number, not None",
    "s3lora.Outlier('x')": "z must be a number",
    "s3lora.Null(0.99, draws=30.5)": "draws must be a whole number, not 30.5",
    "s3lora.Filter(layers=5)": "layers must be (a whole number, a whole number), not 5",
    "s3lora.Filter(layers=(1,))": "not a tuple of 1",
    "s3lora.Filter('q_proj')": "not 'q_proj'; write ('q_proj',)",
    "s3lora.Filter(pattern=5)": "pattern must be text, not 5",
    "s3lora.prune(d.scan, d.plan)": "not a Scan",
    "s3lora.prune('a', d.scan)": "plan must be a plan that select returned, not a Scan",
    "s3lora.prune('a', 10)": "not 10",
    "s3lora.prune('a', d.plan, 'remove')": "mode must be a mode, such as Remove(), not 'remove'",
    "s3lora.prune('a', d.plan, s3lora.Zero)": "not the class Zero; write Zero(…)",
    "s3lora.prune('a', d.plan, drop='heads')": "not 'heads'; write ['heads']",
    "s3lora.Clip('3')": "component must be a whole number, not '3'",
    "s3lora.Scale('x')": "factor must be a number, not 'x'",
    "s3lora.write_pruned(d.plan, d.scan, 'o')": "pruned must be what prune returns, not a Plan",
    "s3lora.write_pruned(s3lora.prune('a', d.plan), d.scan, 5)": "out must be a path, not 5",
    "d.scan['nope']": "there is no module 'nope'",
    "d.scan.module('model.layers.1.self_attn.qproj')": "did you mean model.layers.1.self_attn.q_proj?",
    "d.scan[0]": "a module is named by its path, not by 0",
    "d.scan.plot('nope')": "no index 'nope' to draw; choose one of ssi, ",
    "d.scan.plot(plan=5)": "plan must be a plan that select returned, not 5",
    "d.scan.to_json('a')": "plan must be a plan that select returned, not 'a'",
    "d.scan.plot().save('map.pdf')": "a drawing is written as .svg or .png",
    "s3lora.scan(5)": "give a path, an opened adapter or a PEFT model",
    "s3lora.scan('a', rank='8')": "rank must be a whole number, not '8'",
    "s3lora.scan('a', rank=2.5)": "not 2.5",
    "s3lora.scan('a', max_cost='x')": "max_cost must be a number",
    "s3lora.scan('a', progress=5)": "progress must be a function, not 5",
    "s3lora.scan('a', base_weights=5)": "base_weights must be a path, not 5",
    "s3lora.open_adapter(None)": "path must be a path, not None",
    "s3lora.open_adapter(d.a)": "not an Adapter",
    "s3lora.open_adapter('a', adapter=3)": "adapter must be text, not 3",
    "s3lora.compare('a', 'b')": "not 'a'; write ['a']",
    "s3lora.compare([5, 6])": "not a list of 5 and more",
    "s3lora.compare(None)": "paths must be a list, each item an adapter that open_adapter opened or a path",
    "s3lora.compose('a')": "write ['a']",
    "s3lora.compose(['a', 'a'], weights=['x'])": "weights must be a list, each item a number, not a list of 'x'",
    "s3lora.convert('a', 5)": "to must be text, not 5",
    "s3lora.convert('a', pad='8')": "pad must be a whole number",
    "s3lora.write_converted('a', 'o')": "converted must be what convert returns, not 'a'",
    "s3lora.check(5)": "adapter must be an adapter that open_adapter opened or a path, not 5",
    "s3lora.check('a', loaders='peft')": "write ['peft']",
    "s3lora.read_base(5)": "base must be a path, not 5",
    "s3lora.resize('a', 'o', rank='4')": "rank must be a whole number",
    "s3lora.restore(5, 5, 5)": "pruned must be a path, not 5",
    "s3lora.read_provenance(5)": "folder must be a path",
    "s3lora.checkpoints(5)": "run must be a path",
    "s3lora.scan_delta(5, 5)": "tuned must be a path",
    "s3lora.write_sum('a', 'o')": "write ['a']",
    "s3lora.repair_data(learn='x')": "learn must be a whole number, not 'x'",
    "s3lora.repair(5, base='b')": "adapter must be ",
    "s3lora.Scan.from_json('nowhere.json')": "nowhere.json: cannot be read (No such file or directory)",
    "s3lora.Scan.from_json(5)": "from_json: source must be ",
    "s3lora.Scan.from_json('{}')": "the document: is no scan as JSON: ",
    "s3lora.Scan.from_json('{\"schema_version\": 99}')": "is of schema version 99, and this s3lora knows 1",
    "s3lora.Scan.from_json('[1]')": "it holds several: give one of them",
    "s3lora.Scan.from_json('{' + '\"a\":[' * 100000)": "the document: is no scan as JSON: ",
}


@pytest.mark.parametrize("text", CALLS)
def test_a_wrong_argument_is_one_sentence(text: str, desk: Desk) -> None:
    with pytest.raises(s3lora.S3LoRAError) as caught:
        eval(text, {"s3lora": s3lora, "d": desk})
    told = str(caught.value)
    assert CALLS[text] in told
    assert "\n" not in told
    assert "--" not in told


def test_what_is_meant_passes(desk: Desk) -> None:
    assert s3lora.Top(np.int64(2)).count == 2
    assert s3lora.Threshold(np.float32(0.5)).value == 0.5
    assert len(s3lora.compare([Path("a"), desk.a])) == 3
    assert len(s3lora.select(desk.scan, s3lora.Fraction(1)).chosen) == 3


def test_a_missing_argument_is_told_by_python() -> None:
    nothing: dict[str, Any] = {}
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'adapter'"):
        s3lora.scan(**nothing)


def test_what_is_meant_is_public() -> None:
    assert {name for name in MEANT if name not in s3lora.__all__} == {"Rule"}


def test_a_module_that_is_not_there_is_a_key_error(desk: Desk) -> None:
    with pytest.raises(KeyError) as caught:
        desk.scan["x\x1b"]
    assert str(caught.value) == "there is no module 'x\ufffd'; `.modules` has them all"

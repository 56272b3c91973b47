"""What a measurement costs is known before it begins, and grows with every size."""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import s3lora
from s3lora import CostError, UsageError
from s3lora.choose.ranking import rule_cost
from s3lora.choose.rules import Gap, Null
from s3lora.measure import batches, comparison, composition
from s3lora.measure.configuration import Configuration
from s3lora.measure.cost import (
    MAX_COST,
    SPEED,
    Shape,
    Sized,
    above,
    compare_cost,
    compose_cost,
    module_cost,
    null_cost,
    relation_cost,
    scan_cost,
)
from tests.support import make_adapter, shared

#: (m, n) of the projections of one layer, of a model of 8 B and of one of 70 B parameters.
LAYERS = {
    8: (32, ((4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336))),
    70: (80, ((8192, 8192), (1024, 8192), (1024, 8192), (8192, 8192), (28672, 8192), (28672, 8192), (8192, 28672))),
}
PLAIN = [Configuration()]
EVERY = [
    *(Configuration(method) for method in ("mas-svd", "svd", "spsvd")),
    Configuration(kurtosis=True),
    Configuration("spsvd", fit="l1", sample=64),
    Configuration("spsvd", rank=3, fit="l1"),
]


class Module:
    """A module of a claimed shape."""

    def __init__(self, shape: Shape, path: str = "q_proj") -> None:
        self.m, self.n, self.rank = shape
        self.path = path
        self.pieces, self.work = (shape,), 0.0


def model(billions: int, rank: int) -> list[Module]:
    count, sizes = LAYERS[billions]
    return [Module((m, n, rank)) for _ in range(count) for m, n in sizes]


def claimed(folder: Path, shape: Shape, count: int = 1) -> Path:
    """Write an adapter whose tensors have these shapes and take no room on the disk."""
    m, n, r = shape
    header, end = {}, 0
    for i in range(count):
        for name, (rows, columns) in (("A", (r, n)), ("B", (m, r))):
            start, end = end, end + rows * columns * 2
            path = f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_{name}.weight"
            header[path] = {"dtype": "F16", "shape": [rows, columns], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    folder.mkdir(parents=True)
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    config = {"peft_type": "LORA", "r": r, "lora_alpha": r, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def huge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an adapter that would take days, in a place where measuring anything is a failure."""

    def never(*_: object, **__: object) -> None:
        pytest.fail("something was measured")

    monkeypatch.setattr(batches, "_batches", never)
    monkeypatch.setattr(comparison, "_measured", never)
    monkeypatch.setattr(composition, "measured_sums", never)
    return claimed(tmp_path / "huge", (40_000, 40_000, 16_000))


sizes = st.integers(1, 3000)
shapes = st.tuples(sizes, sizes, sizes)


@given(shapes, st.integers(0, 2), st.integers(1, 2000), st.sampled_from(EVERY))
def test_it_grows_with_every_size(shape: Shape, which: int, more: int, configuration: Configuration) -> None:
    larger = (*shape[:which], shape[which] + more, *shape[which + 1 :])
    assert len(larger) == 3
    assert module_cost(larger, [configuration]) >= module_cost(shape, [configuration]) > 0
    assert relation_cost(larger, shape) >= relation_cost(shape, shape)
    assert null_cost([larger], 200).operations >= null_cost([shape], 200).operations
    wide = Configuration("svd")
    assert compose_cost({"q": [larger] * 3}, wide).operations >= compose_cost({"q": [shape] * 3}, wide).operations
    assert (
        compare_cost([{"q": Module(larger)}] * 3, wide).operations
        >= compare_cost([{"q": Module(shape)}] * 3, wide).operations
    )


@given(st.lists(shapes, min_size=1, max_size=5), shapes, st.sampled_from(EVERY))
def test_it_grows_with_the_modules(given: list[Shape], more: Shape, configuration: Configuration) -> None:
    before = scan_cost(map(Module, given), [configuration]).operations
    assert scan_cost(map(Module, [*given, more]), [configuration]).operations > before
    assert scan_cost(map(Module, given), [configuration, Configuration("svd")]).operations > before
    parts = {str(i): [shape, shape] for i, shape in enumerate(given)}
    added = compose_cost(parts, configuration).operations
    assert compose_cost({**parts, "more": [more, more]}, configuration).operations > added
    assert compose_cost({**parts, "0": [given[0]] * 3}, configuration).operations > added
    assert null_cost({*given, more}, 20).operations >= null_cost(given, 20).operations


@given(st.lists(shapes, min_size=2, max_size=2), st.integers(0, 5), st.integers(1, 900), st.sampled_from(EVERY))
def test_a_kronecker_product_costs_more_with_every_size(
    pieces: list[Shape], which: int, more: int, configuration: Configuration
) -> None:
    flat = [*pieces[0], *pieces[1]]
    flat[which] += more
    first, second = (pieces[0], pieces[1]), ((flat[0], flat[1], flat[2]), (flat[3], flat[4], flat[5]))
    cheaper, dearer = (scan_cost([Sized("q", given)], [configuration]).operations for given in (first, second))
    assert dearer >= cheaper > 0
    assert scan_cost([Sized("q", first, 1e9)], [configuration]).operations == pytest.approx(cheaper + 1e9)
    wide = Configuration("svd")
    small, large = (compare_cost([{"q": Sized("q", given)}] * 2, wide).operations for given in (first, second))
    assert large >= small


@given(st.floats(1, 1e30))
def test_the_number_to_pass_is_no_less(operations: float) -> None:
    assert operations <= float(above(operations)) <= operations * 1.2


@pytest.mark.parametrize(
    ("modules", "configuration"),
    [
        (model(8, 64), PLAIN),
        (model(8, 512), PLAIN),
        (model(70, 16), PLAIN),
        (model(70, 64), PLAIN),
        ([Module((2048, 768, 16)) for _ in range(36_864)], PLAIN),
        (model(8, 16), [Configuration(kurtosis=True)]),
    ],
)
def test_what_people_train_passes(modules: list[Module], configuration: list[Configuration]) -> None:
    assert scan_cost(modules, configuration).operations <= MAX_COST


@pytest.mark.parametrize(
    ("modules", "configuration"),
    [
        ([Module((8192, 8192, 8192))], PLAIN),
        ([Module((1, 1, 1)) for _ in range(3_000_000)], PLAIN),
        (model(8, 16), [Configuration("released")]),
        (model(8, 16), [Configuration("spsvd", fit="l1")]),
        (model(8, 512), [Configuration(kurtosis=True)]),
    ],
)
def test_what_takes_more_than_ten_minutes_does_not(modules: list[Module], configuration: list[Configuration]) -> None:
    assert scan_cost(modules, configuration).operations > MAX_COST
    assert MAX_COST / SPEED == 600


def test_every_shared_adapter_passes() -> None:
    passed = 0
    for folder in sorted((shared() / "adapters").iterdir()):
        try:
            adapter = s3lora.open_adapter(folder)
        except (s3lora.S3LoRAError, NotADirectoryError):
            continue
        with adapter:
            assert scan_cost(adapter.modules, EVERY[:4]).operations <= MAX_COST, folder.name
            assert rule_cost(Null(), adapter.modules).operations <= MAX_COST
        passed += 1
    assert passed >= 8


def test_the_sentence_says_what_is_costly(huge: Path) -> None:
    with pytest.raises(CostError) as caught:
        s3lora.scan(huge)
    sentence = str(caught.value)
    assert sentence == (
        f"{huge} model.layers.0.self_attn.q_proj (40000 × 40000): measuring 1 module by mas-svd takes some 1.1e14 "
        "operations, 6.1 hours of one core, most of them for rank 16000; 3e12 are allowed; give max_cost=1.2e14 to "
        "have it done"
    )
    assert caught.value.exit_status == 2


def test_nothing_is_measured_beyond_it(huge: Path) -> None:
    with pytest.raises(CostError, match="comparing 2 adapters by svd"):
        s3lora.compare([huge, huge], "svd")
    with pytest.raises(CostError, match="adding up 2 adapters by mas-svd"):
        s3lora.compose([huge, huge])


def test_the_number_given_lets_it_pass(tmp_path: Path) -> None:
    one = make_adapter(tmp_path / "one", {f"model.layers.{i}.self_attn.q_proj": (12 + i, 8, 2) for i in range(6)})
    scan = s3lora.scan(one)
    works = (
        lambda most: s3lora.scan(one, kurtosis=True, max_cost=most),
        lambda most: s3lora.compare([one, one, one], max_cost=most),
        lambda most: s3lora.compose([one, one, one], max_cost=most),
        lambda most: s3lora.select(scan, Null(), max_cost=most),
        lambda most: s3lora.select(scan, Null(), index="random-matched", match="ssi", max_cost=most),
    )
    for work in works:
        with pytest.raises(CostError) as caught:
            work(10.0)
        found = re.search(r"max_cost=(\S+) to", str(caught.value))
        assert found is not None
        work(float(found[1]))
        with pytest.raises(CostError):
            work(float(found[1]) / 1.3)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_a_limit_that_cannot_be_meant(limit: float, tmp_path: Path) -> None:
    one = make_adapter(tmp_path / "one", {"model.layers.0.self_attn.q_proj": (8, 8, 2)})
    with pytest.raises(UsageError, match="max_cost must be above 0"):
        s3lora.scan(one, max_cost=limit)
    assert s3lora.scan(one, max_cost=math.inf).modules


def test_only_rules_that_simulate_cost() -> None:
    modules = [Module((64, 64, 8)), Module((64, 64, 8)), Module((64, 32, 8))]
    assert rule_cost(Gap(), modules).operations == 0
    assert rule_cost(Null(), modules) == null_cost([(64, 64, 8), (64, 32, 8)], 200)
    assert rule_cost(Null(draws=400), modules).operations > rule_cost(Null(), modules).operations


def test_the_null_rule_tells_how_far_it_is(tmp_path: Path) -> None:
    one = make_adapter(tmp_path / "one", {f"model.layers.{i}.self_attn.q_proj": (12 + i, 8, 2) for i in range(3)})
    told: list[tuple[int, int]] = []
    s3lora.select(s3lora.scan(one), Null(), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_rank_far_above_the_sizes_needs_no_memory(tmp_path: Path) -> None:
    rank = 300_000  # its square would be 720 GB
    first = make_adapter(tmp_path / "first", {"model.layers.0.self_attn.q_proj": (3, 2, rank)}, seed=1)
    second = make_adapter(tmp_path / "second", {"model.layers.0.self_attn.q_proj": (3, 2, rank)}, seed=2)
    (module,) = s3lora.scan(first, "svd").modules
    with s3lora.open_adapter(first) as one, s3lora.open_adapter(second) as other:
        dense = [
            m.scaling.value * m.B.array().astype(float) @ m.A.array().astype(float)
            for m in (one.modules[0], other.modules[0])
        ]
    np.testing.assert_allclose(module.sigma, np.linalg.svd(dense[0], compute_uv=False), rtol=1e-9)
    (found,) = s3lora.compare([first, second]).modules
    distance = np.linalg.norm(dense[1] - dense[0]) / np.linalg.norm(dense[0])
    np.testing.assert_allclose(found.distance, [distance], rtol=1e-6)

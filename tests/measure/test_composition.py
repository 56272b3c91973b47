"""Sums of adapters, against dense sums."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora import (
    AdapterFileError,
    Composition,
    ModuleUpdate,
    NonFiniteError,
    UnsupportedAdapterError,
    UsageError,
    compose,
    open_adapter,
    scan,
)
from s3lora.adapter.model import Adapter, Factor, LoraModule, Scaling, path_parts
from s3lora.adapter.tensor import ArrayTensor
from s3lora.measure import summing
from tests.hostile import bad_files as bad
from tests.planning import dense as dense_of
from tests.planning import tensors_of
from tests.reference import dense
from tests.reference import subspaces as oracle
from tests.spectrum.cases import Factors, gaussian, orthogonal
from tests.spectrum.strategies import gauges, gaussian_factors, integer_factors
from tests.support import factors, make_adapter, shared, write_safetensors

Q0, V0, Q1 = (f"model.layers.{i}.self_attn.{p}_proj" for i, p in ((0, "q"), (0, "v"), (1, "q")))
METHODS = {"mas-svd": dense.mas_svd, "svd": dense.svd, "spsvd": dense.spsvd_l2}
quick = settings(max_examples=50)
seeds = st.integers(0, 2**31)
weights = st.floats(0.01, 100.0) | st.floats(-100.0, -0.01)


def adapter(*modules: Factors, scaling: float = 1.0, name: str = "made") -> Adapter:
    """Return an adapter in memory with these factors (A, B) as the modules of layers 0, 1 and so on."""
    made = []
    for i, (A, B) in enumerate(modules):
        path = f"model.layers.{i}.self_attn.q_proj"
        layer, projection, expert = path_parts(path)
        a, b = (Factor(ArrayTensor(f"{path}.{side}", x), x.shape) for side, x in (("lora_A", A), ("lora_B", B)))
        made.append(LoraModule(path, a, b, Scaling(scaling, "memory"), layer, projection, expert))
    return Adapter(name=name, format="memory", modules=tuple(made))


def only(composition: Composition) -> Any:
    """Return the one module of a composition."""
    (module,) = composition.modules
    return module


def check(update: ModuleUpdate | None, matrix: np.ndarray, method: str) -> None:
    """Compare an update with the dense one."""
    rank = oracle.rank(matrix)
    if rank == 0:
        assert update is None
        return
    assert update is not None
    assert update.rank == rank
    sigma = METHODS[method](matrix, rank)
    assert update.sigma == pytest.approx(sigma.tolist(), rel=1e-6)
    indices = dict(update.indices)
    if rank == 1:
        assert indices.pop("normalised_ssi") is None
    wanted = {
        "ssi": dense.ssi(sigma),
        **({"normalised_ssi": dense.normalised_ssi(sigma)} if rank > 1 else {}),
        "weighted_ssi": dense.weighted_ssi(sigma),
        "magnitude": sigma[0],
        "frobenius": np.linalg.norm(matrix),
        "stable_rank": dense.stable_rank(matrix),
        "effective_rank": dense.effective_rank(matrix),
        "spectral_entropy": dense.spectral_entropy(matrix),
        "energy": dense.energy(matrix),
    }
    assert indices == pytest.approx(wanted, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_against_dense_sums(method: str, tmp_path: Path) -> None:
    """Three adapters of different ranks and scalings; in one of them a module was never trained, and one is missing."""
    shapes = {Q0: (48, 32, 4), V0: (24, 32, 4), Q1: (48, 32, 4)}
    folders = [
        make_adapter(tmp_path / "a", shapes),
        make_adapter(
            tmp_path / "b", {Q0: (48, 32, 8), V0: (24, 32, 8)}, seed=1, zero_b=[V0], config={"use_rslora": True}
        ),
        make_adapter(tmp_path / "c", {path: (m, n, 2) for path, (m, n, _) in shapes.items()}, seed=2),
    ]
    chosen = (1.0, -0.7, 3.0)
    parts = [{path: w * x for path, x in dense_of(f).items()} for f, w in zip(folders, chosen, strict=True)]
    found = compose(folders, chosen, method)
    assert [module.path for module in found.modules] == [Q0, V0, Q1]
    assert (found.weights, [source.name for source in found.sources]) == (chosen, ["a", "b", "c"])
    assert found.modules[0].ranks == (4, 8, 2)
    assert found.modules[2].ranks == (4, None, 2)
    for module in found.modules:
        alone = [part.get(module.path, np.zeros(module.shape)) for part in parts]
        check(module.together, sum(alone), method)
        for update, matrix in zip(module.alone, alone, strict=True):
            check(update, matrix, method)
        energies = [dense.energy(matrix) for matrix in alone if matrix.any()]
        assert module.gain == pytest.approx(dense.energy(sum(alone)) - max(energies))
        assert module.sharper == (module.gain >= 0.01)
        live = [i for i, matrix in enumerate(alone) if matrix.any()]
        assert [one.pair for one in module.alignments] == list(itertools.combinations(live, 2))
        for one in module.alignments:
            x, y = (alone[i] for i in one.pair)
            assert one.cosine == pytest.approx(np.sum(x * y) / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-9)
            for side, first, second in ((one.columns, x, y), (one.rows, x.T, y.T)):
                assert side.largest == pytest.approx(oracle.largest_cosine(first, second), abs=1e-6)
                assert side.mean_square == pytest.approx(oracle.mean_square(first, second), abs=1e-9)


@quick
@given(integer_factors(), seeds, weights)
def test_any_shape_and_rank_against_dense_sums(first: Factors, seed: int, weight: float) -> None:
    """Ranks above m and n, repeated and dependent components, zero updates, and rows that cancel."""
    A, B = first
    random = np.random.default_rng(seed)
    C, D = random.integers(-3, 4, A.shape).astype(float), random.integers(-3, 4, B.shape).astype(float)
    module = only(compose([adapter((A, B)), adapter((C, D))], [1.0, weight], "svd"))
    check(module.together, dense.delta(A, B) + weight * dense.delta(C, D), "svd")


@quick
@given(gaussian_factors(), seeds, weights, st.sampled_from(["mas-svd", "svd"]))
def test_the_order_does_not_matter(first: Factors, seed: int, weight: float, method: str) -> None:
    A, B = first
    others = [gaussian(B.shape[0], A.shape[1], r, seed) for r in (1, 3)]
    made = [(adapter(first), 1.0), (adapter(others[0]), weight), (adapter(others[1]), 0.5)]
    found = [
        only(compose([one for one, _ in order], [w for _, w in order], method))
        for order in itertools.permutations(made)
    ]
    for module in found[1:]:
        assert module.together.rank == found[0].together.rank
        assert module.together.sigma == pytest.approx(found[0].together.sigma, rel=1e-6, abs=1e-9)
        assert module.gain == pytest.approx(found[0].gain, abs=1e-9)
        assert sorted(one.cosine for one in module.alignments) == pytest.approx(
            sorted(one.cosine for one in found[0].alignments), abs=1e-9
        )


@quick
@given(gaussian_factors(), seeds, weights)
def test_a_factor_of_all_weights_changes_the_size_alone(first: Factors, seed: int, factor: float) -> None:
    A, B = first
    both = [adapter(first), adapter(gaussian(B.shape[0], A.shape[1], 2, seed))]
    plain, scaled = only(compose(both)), only(compose(both, [factor, factor]))
    assert scaled.together.sigma == pytest.approx([abs(factor) * x for x in plain.together.sigma], rel=1e-6, abs=1e-9)
    assert scaled.together.indices["ssi"] == pytest.approx(plain.together.indices["ssi"])
    assert scaled.gain == pytest.approx(plain.gain, abs=1e-9)
    assert scaled.alignments[0].cosine == pytest.approx(plain.alignments[0].cosine, abs=1e-9)


@quick
@given(gaussian_factors(), seeds)
def test_a_zero_update_adds_nothing(first: Factors, seed: int) -> None:
    A, B = first
    untrained = adapter((gaussian(B.shape[0], A.shape[1], 3, seed)[0], np.zeros((B.shape[0], 3))))
    for others, chosen in ([untrained], None), ([adapter(first)], [1.0, 0.0]), ([untrained] * 2, [1.0, 5.0, -2.0]):
        module = only(compose([adapter(first), *others], chosen))
        assert module.together == module.alone[0], "to the last bit"
        assert (module.gain, module.sharper, module.alignments) == (None, False, ())
        record = scan(adapter(first)).modules[0]
        assert (module.together.sigma, module.together.indices) == (record.sigma, record.indices)


@quick
@given(gaussian_factors(), st.integers(2, 4), st.sampled_from(["mas-svd", "svd", "spsvd"]))
def test_an_adapter_with_itself_is_larger_and_no_sharper(first: Factors, copies: int, method: str) -> None:
    module = only(compose([adapter(first)] * copies, method=method))
    one = module.alone[0]
    assert module.together.rank == one.rank, "the number of directions does not double"
    assert module.together.sigma == pytest.approx([copies * x for x in one.sigma], rel=1e-6)
    for name in ("ssi", "energy", "stable_rank", "effective_rank", *(["normalised_ssi"] if one.rank > 1 else [])):
        assert module.together.indices[name] == pytest.approx(one.indices[name], rel=1e-6, abs=1e-9)
    assert (module.gain, module.sharper) == (pytest.approx(0.0, abs=1e-9), False)
    for alignment in module.alignments:
        assert alignment.cosine == pytest.approx(1.0)
        assert alignment.cosine <= 1.0
        for side in (alignment.columns, alignment.rows):
            assert (side.largest, side.mean_square) == pytest.approx((1.0, 1.0))
            assert max(side.largest, side.mean_square) <= 1.0


@quick
@given(st.data())
def test_what_cancels_is_a_zero_update(data: st.DataObject) -> None:
    """Also where the factors differ and only their product is the same, and where weights make the difference."""
    A, B = data.draw(gaussian_factors())
    R, inverse = data.draw(gauges(len(A)))
    weight = data.draw(weights)
    for other, chosen in (
        (adapter((A, B)), [weight, -weight]),
        (adapter((A, -B)), [weight, weight]),
        (adapter((inverse @ A, B @ R)), [weight, -weight]),
        (adapter((A, B), scaling=0.1), [weight, -10 * weight]),
    ):
        module = only(compose([adapter((A, B)), other], chosen))
        assert module.together is None
        assert (module.gain, module.sharper) == (None, False)
        assert module.alignments[0].cosine == pytest.approx(-1.0)
        assert all(module.alone)


def test_what_cancels_is_told(tmp_path: Path) -> None:
    a = make_adapter(tmp_path / "a", {Q0: (48, 32, 4), Q1: (48, 32, 4)})
    found = compose([a, a], [1, -1])
    assert "2 of 2 modules cancel: their sum is a zero update but for rounding, and has no index" in found.warnings


@quick
@given(seeds)
def test_what_is_left_of_a_near_copy_is_measured(seed: int) -> None:
    """A difference of 1e-6 is no rounding: float32 has it."""
    A, B = gaussian(40, 30, 4, seed)
    _, D = gaussian(40, 30, 4, seed + 1)
    module = only(compose([adapter((A, B)), adapter((A, B + 1e-6 * D))], [1.0, -1.0], "svd"))
    assert module.together.rank == 4
    assert module.together.sigma == pytest.approx(1e-6 * dense.svd(dense.delta(A, D), 4), rel=1e-6)


def spread(frame: tuple[int, int], places: list[tuple[int, float]]) -> Factors:
    """Return the factors of Σ σ·u_k·v_kᵀ over (k, σ), u and v being the columns of two fixed rotations."""
    u, v = orthogonal(frame[0], 3), orthogonal(frame[1], 4)
    chosen = [k for k, _ in places]
    return v[:, chosen].T, u[:, chosen] * np.array([size for _, size in places])


def test_a_direction_that_both_hide_comes_out() -> None:
    """Neither is sharp, as the shared direction is the weakest of each; together it leads."""
    first = spread((40, 30), [(0, 0.8), *((k, 1.0) for k in range(1, 8))])
    second = spread((40, 30), [(0, 0.8), *((k, 1.0) for k in range(8, 15))])
    module = only(compose([adapter(first), adapter(second)], method="svd"))
    assert module.gain == pytest.approx(1.6**2 / (1.6**2 + 14) - 1 / 7.64)
    assert module.sharper
    assert module.alignments[0].cosine == pytest.approx(0.64 / 7.64)
    assert module.alignments[0].columns.largest == pytest.approx(1.0)
    assert module.alignments[0].columns.mean_square == pytest.approx(1 / 8)
    assert module.together.indices["ssi"] < module.alone[0].indices["ssi"], "which the SSI does not see"
    against = only(compose([adapter(first), adapter(second)], [1.0, -1.0], "svd"))
    assert not against.sharper, "it cancels"


@quick
@given(st.lists(st.floats(0.01, 10.0), min_size=2, max_size=10), st.integers(1, 9), weights)
def test_orthogonal_updates_are_never_sharper_together(sizes: list[float], cut: int, weight: float) -> None:
    places = list(enumerate(sizes))
    cut = min(cut, len(places) - 1)
    both = [adapter(spread((20, 15), part)) for part in (places[:cut], places[cut:])]
    module = only(compose(both, [1.0, weight]))
    assert module.gain <= 1e-12
    assert not module.sharper
    assert module.alignments[0].cosine == pytest.approx(0.0, abs=1e-12)
    assert module.alignments[0].columns.largest == pytest.approx(0.0, abs=1e-12)


@quick
@given(seeds, st.integers(1, 8))
def test_next_to_nothing_makes_nothing_sharper(seed: int, rank: int) -> None:
    """The normalised SSI would rise, for the sum has more directions, if of no size."""
    first = spread((40, 30), [(0, 1.0), *((k, 0.1) for k in range(1, 8))])
    A, B = gaussian(40, 30, rank, seed)
    module = only(compose([adapter(first), adapter((A, B / np.linalg.norm(B) * 1e-7))], [1.0, 1.0], "svd"))
    blunt = module.alone[0].indices
    assert module.together.indices["energy"] == pytest.approx(blunt["energy"], abs=1e-5)
    assert module.together.rank == 8 + rank
    assert module.together.indices["normalised_ssi"] > blunt["normalised_ssi"] + 0.004
    assert not module.sharper


@pytest.mark.parametrize("method", METHODS)
def test_modules_are_measured_together_as_each_alone(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of full and lower ranks, zero in one adapter or both, and cancelling: in one stack, and in stacks of three."""
    random = np.random.default_rng(3)

    def one(kind: int) -> Factors:
        A, B = (random.standard_normal(size) for size in ((4, 12), (16, 4)))
        if kind == 1:
            B[:, 2:] = 0.0
        elif kind == 2:
            A[3] = A[0]
        return A, B * (kind != 3)

    first = [one(i % 4) for i in range(12)]
    second = [(-A, B) if i == 5 else one(3 if i == 7 else i // 4) for i, (A, B) in enumerate(first)]
    adapters = [adapter(*first, scaling=0.5), adapter(*second, scaling=0.5)]
    pairs = zip(first, second, strict=True)
    alone = [only(compose([adapter(one, scaling=0.5) for one in pair], [1.0, 1.0], method)) for pair in pairs]
    assert sum(module.together is None for module in alone) == 2, "one cancels, and one is zero in both"
    for most in (512, 3):
        monkeypatch.setattr(summing, "MODULES", most)
        found = compose(adapters, [1.0, 1.0], method)
        for module, wanted in zip(found.modules, alone, strict=True):
            assert (module.ranks, module.sharper) == (wanted.ranks, wanted.sharper)
            both = [(module.together, wanted.together), *zip(module.alone, wanted.alone, strict=True)]
            for mine, other in both:
                assert (mine is None) == (other is None)
                if mine is not None and other is not None:
                    assert mine.rank == other.rank
                    assert mine.sigma == pytest.approx(other.sigma, rel=1e-12)
                    assert mine.indices == pytest.approx(other.indices, rel=1e-12, abs=1e-14)
            for mine, other in zip(module.alignments, wanted.alignments, strict=True):
                assert mine.cosine == pytest.approx(other.cosine, abs=1e-12)
                assert mine.rows.mean_square == pytest.approx(other.rows.mean_square, abs=1e-12)
                assert mine.columns.chance == other.columns.chance


def test_the_module_of_a_stack_that_is_not_finite_is_named() -> None:
    pairs = [gaussian(16, 12, 4, seed) for seed in range(5)]
    pairs[3][0][2, 2] = np.inf
    with pytest.raises(NonFiniteError, match=r"model\.layers\.3\.self_attn\.q_proj .*infinity in .*lora_A"):
        compose([adapter(*pairs), adapter(*pairs)])


def test_opened_adapters_stay_open(tmp_path: Path) -> None:
    a, b = (make_adapter(tmp_path / name, {Q0: (48, 32, 4)}, seed=i) for i, name in enumerate("ab"))
    with open_adapter(a) as opened:
        first, second = compose([opened, b]), compose([opened, b])
        assert opened.modules[0].A.array().shape == (4, 32)
    assert first == second == compose([a, b])


def test_progress_counts_modules(tmp_path: Path) -> None:
    a, b = (make_adapter(tmp_path / name, {Q0: (48, 32, 4), f"x.{name}": (4, 4, 2)}) for name in "ab")
    seen: list[tuple[int, int]] = []
    found = compose([a, b], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert "2 of 3 modules are in one adapter only: nothing is added there" in found.warnings
    lone = next(module for module in found.modules if module.path == "x.b")
    assert (lone.ranks, lone.alone[0], lone.gain) == ((None, 2), None, None)
    assert lone.together == lone.alone[1]


@pytest.mark.parametrize(
    ("count", "chosen", "method", "says"),
    [
        (1, None, "svd", "one adapter is no composition; give two or more"),
        (0, None, "svd", "one adapter is no composition; give two or more"),
        (2, [1.0], "svd", "1 weights for 2 adapters; give one for each"),
        (2, [1.0, float("nan")], "svd", "a weight must be a finite number"),
        (2, [float("inf"), 1.0], "svd", "a weight must be a finite number"),
        (2, None, "released", "no method 'released' for a sum; choose one of mas-svd, svd, spsvd"),
    ],
)
def test_what_cannot_be_meant(count: int, chosen: list[float] | None, method: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        compose(["no-such-adapter"] * count, chosen, method)
    assert str(caught.value) == says


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    a = make_adapter(tmp_path / "a", {Q0: (48, 32, 4), Q1: (48, 32, 4)})
    b = make_adapter(tmp_path / "b", {Q0: (48, 32, 4), Q1: (48, 30, 4)})
    with pytest.raises(UnsupportedAdapterError) as caught:
        compose([a, b])
    assert str(caught.value) == (
        f"b {Q1} (48 × 30): does not add up with 48 × 32 of a; give adapters of one base model"
    )


def test_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    a, b = (make_adapter(tmp_path / name, {Q0: (48, 32, 4)}, seed=i) for i, name in enumerate("ab"))
    with pytest.raises(NonFiniteError, match=rf"^{Q0} \(48 × 32\): the weighted sum exceeds float64; give smaller"):
        compose([a, b], [1.7e308, 1.0])
    tensors = dict(tensors_of(b))
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name][3, 1] = np.nan
    write_safetensors(b / "adapter_model.safetensors", tensors)
    with pytest.raises(NonFiniteError, match=rf"/b {Q0} \(48 × 32\): holds NaN or infinity in .*lora_B") as caught:
        compose([a, b])
    assert caught.value.adapter == str(b)
    with pytest.raises(AdapterFileError, match="Git LFS pointer"):
        compose([a, bad.weights(bad.POINTER)(tmp_path / "c")])


def test_what_a_reader_must_know(tmp_path: Path) -> None:
    shapes = {Q0: (48, 32, 4), Q1: (48, 32, 4)}
    a = make_adapter(tmp_path / "a", shapes, zero_b=[Q1])
    b = make_adapter(tmp_path / "b", shapes, seed=1, config={"base_model_name_or_path": "other/model"})
    tensors = {**tensors_of(b), f"base_model.model.{Q0}.lora_magnitude_vector": np.ones(48, np.float32)}
    write_safetensors(b / "adapter_model.safetensors", tensors)
    (tmp_path / "c").mkdir()
    A, B = factors(48, 32, 4, seed=7)
    names = (f"base_model.model.{Q0}.lora_A.weight", f"base_model.model.{Q0}.lora_B.weight")
    c = write_safetensors(tmp_path / "c" / "c.safetensors", dict(zip(names, (A, B), strict=True)))
    told = compose([a, b, c, a], [1, 1, 1, 0]).warnings
    for wanted in (
        "a: 1 of 2 modules are zero updates (B = 0: never trained, or pruned) and add nothing",
        "a: the weight is 0, so it adds nothing",
        "b: DoRA rescales base weight and update by a magnitude vector, which no sum of updates describes",
        "c.safetensors: its scaling is not known for sure, and so neither is its share in the sum",
        "the adapters name different base models (base-model, model): "
        "a sum of updates of different models means little",
    ):
        assert wanted in told
    assert len(told) == len(set(told))


def test_checkpoints_of_one_run() -> None:
    """Two steps of one training go the same way; the later less the earlier one is what the steps between did."""
    folder = shared() / "adapters" / "qwen25-mlx"
    files = [folder / f"0000{step}_adapters.safetensors" for step in (100, 200)]
    found = compose(files)
    assert len(found.modules) == 8
    for module in found.modules:
        assert module.ranks == (8, 8)
        assert module.together is not None
        assert module.together.rank == 16
        (alignment,) = module.alignments
        assert alignment.cosine > 0.8
        assert min(alignment.columns.mean_square, alignment.rows.mean_square) > 0.7
    less = compose(files, [-1.0, 1.0], "svd")
    for before, after in zip(found.modules, less.modules, strict=True):
        assert after.together is not None
        assert before.together is not None
        assert (after.together.indices["frobenius"] or 0) < 0.5 * (before.together.indices["frobenius"] or 0)

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from s3lora.adapter.open import open_adapter
from s3lora.errors import ModelError, UnsupportedAdapterError
from s3lora.evaluate.attach import AttachedAdapters, State
from s3lora.evaluate.chat import digest_of
from s3lora.evaluate.loading import LoadedBase
from s3lora.evaluate.results import Loaded
from tests.peft_models import LoraLayer, difference, gpt2, layers, llama, load, logits, save, torch
from tests.planning import config_of, prune_to, tensors_of

#: Rounding of float32 in three layers, where a sum is taken in another order.
ROUNDING = 1e-5
QV = {"target_modules": ["q_proj", "v_proj"]}
Q0, Q1, V1 = (f"model.layers.{i}.self_attn.{p}_proj" for i, p in ((0, "q"), (1, "q"), (1, "v")))
EVERY_Q = [f"model.layers.{i}.self_attn.q_proj" for i in range(3)]
#: What a folder of the adapter `qv` would be at 0, 1, several modules, a whole projection, all but one.
PRUNED = {
    "none": [],
    "one": [Q0],
    "several": [Q0, V1, "model.layers.2.self_attn.v_proj"],
    "a projection": EVERY_Q,
    "all but one": [*EVERY_Q, "model.layers.0.self_attn.v_proj", V1],
}
#: Adapters whose scaling, form or company is not plain.
KINDS: dict[str, dict[str, Any]] = {
    "plain": QV,
    "rslora": {**QV, "use_rslora": True},
    "patterns": {
        **QV,
        "rank_pattern": {r"model\.layers\.0\.self_attn\.q_proj": 2, "v_proj": 3},
        "alpha_pattern": {"layers.2.self_attn.v_proj": 5, r".*\.1\..*": 3},
    },
    "dora": {**QV, "use_dora": True},
    "head": {**QV, "modules_to_save": ["lm_head"]},
    "tokens": {**QV, "trainable_token_indices": [1, 5]},
    "embedding": {"target_modules": ["q_proj", "v_proj", "embed_tokens"]},
    "no bias in it": {**QV, "bias": "all"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of an adapter of a kind, made once."""
    root, made = tmp_path_factory.mktemp("kinds"), {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = save(root / kind.replace(" ", "-"), llama, **KINDS[kind])
        return made[kind]

    return make


@pytest.fixture(scope="module")
def qv(folder: Callable[[str], Path]) -> Path:
    return folder("plain")


def rewrite(out: Path, change: Callable[[dict[str, Any]], object], **config: Any) -> None:
    tensors = dict(tensors_of(out))
    change(tensors)
    save_file(tensors, out / "adapter_model.safetensors", {"format": "pt"})
    (out / "adapter_config.json").write_text(json.dumps(config_of(out) | config))


def adapters(model: Callable[[], Any] = llama) -> AttachedAdapters:
    return AttachedAdapters(LoadedBase("made-up", model(), None, ()))


def weights(model: Any) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def by_hand(model: Any, key: str, paths: Iterable[str]) -> Loaded:
    """Count over PEFT's layers at these paths: parameters of A and B, two operations for each and token."""
    numbers = []
    for path in paths:
        layer = model.get_submodule(path)
        numbers += [layer.lora_A[key].weight.numel(), layer.lora_B[key].weight.numel()]
    return Loaded(len(numbers) // 2, sum(numbers), 2 * sum(numbers))


@pytest.mark.parametrize("gone", PRUNED)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "embedding"])
def test_pruned_in_place_is_what_the_pruned_folder_loads(
    folder: Callable[[str], Path], tmp_path: Path, kind: str, gone: str
):
    """Bit for bit: layers without adapter compute what the base's own do, in the same order."""
    full, paths = folder(kind), PRUNED[gone]
    held = adapters()
    attached = held.attach(full)
    held.use(State(attached, frozenset(paths)))
    fresh = load(prune_to(full, tmp_path / "out", paths) if paths else full, llama)
    assert torch.equal(logits(held.model), logits(fresh))
    assert difference(logits(held.model), logits(llama())) > 1000 * ROUNDING  # it is not the base
    if paths:
        assert difference(logits(held.model), logits(load(full, llama))) > 100 * ROUNDING  # nor the full one
    kept = set(attached.modules) - set(paths)
    assert layers(fresh) == kept
    assert held.count() == by_hand(held.model.get_base_model(), attached.key, kept)
    assert held.count() == by_hand(fresh.get_base_model(), "default", kept)


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_is_the_base(folder: Callable[[str], Path], kind: str):
    held = adapters()
    expected, before = logits(llama()), weights(llama())
    attached = held.attach(folder(kind))
    assert held.state == State()  # attaching switches nothing on
    assert torch.equal(logits(held.model), expected)
    assert held.count() == Loaded(0, 0, 0)
    held.use(State(attached))
    assert torch.equal(logits(held.model), logits(load(folder(kind), llama)))
    held.use(State(attached, frozenset(attached.modules)))
    assert held.count() == Loaded(0, 0, 0)
    assert torch.equal(logits(held.model), expected) is (kind not in ("head", "tokens"))
    held.use(State())
    assert torch.equal(logits(held.model), expected)
    assert held.state.identity == "base"
    now = {name.replace(".base_layer.", "."): value for name, value in weights(held.model.get_base_model()).items()}
    assert all(torch.equal(now[name], before[name]) for name in before.keys() & now.keys())


def test_an_embedding_is_counted_as_it_is_computed(folder: Callable[[str], Path]):
    held = adapters()
    attached = held.attach(folder("embedding"))
    held.use(State(attached))
    linear = by_hand(held.model.get_base_model(), attached.key, set(attached.modules) - {"model.embed_tokens"})
    # A of 4 × 64 is looked up, B of 32 × 4 multiplied.
    assert held.count() == Loaded(7, linear.parameters + 384, linear.flops_per_token + 2 * 128)
    held.use(State(attached, frozenset({"model.embed_tokens"})))
    assert held.count() == linear


def test_without_peft_there_is_nothing_to_switch():
    held = adapters()
    model = held.model
    assert held.count() == Loaded(0, 0, 0)
    with held.merged():
        held.use(State())
    assert held.model is model
    assert torch.equal(logits(model), logits(llama()))


@pytest.mark.parametrize("second", ["head", "dora", "embedding", "rslora"])
def test_two_adapters_on_one_base(folder: Callable[[str], Path], qv: Path, second: str):
    held = adapters()
    own = held.model
    one, two = held.attach(qv), held.attach(folder(second))
    assert held.model.get_base_model() is own
    assert one.key != two.key
    expected = {one: logits(load(qv, llama)), two: logits(load(folder(second), llama)), None: logits(llama())}
    for which in (two, one, None, one, two, None, two):
        held.use(State(which))
        assert torch.equal(logits(held.model), expected[which])
        held.use(State(which, frozenset([Q0]) if which else frozenset()))
        assert torch.equal(logits(held.model), expected[which]) is (which is None)
    assert [a.source.name for a in (one, two)] == [qv.name, second]


def test_the_same_adapter_twice(qv: Path, tmp_path: Path):
    held = adapters()
    one, two = held.attach(qv), held.attach(shutil.copytree(qv, tmp_path / "other-name"))
    assert one.key != two.key
    held.use(State(two))
    assert torch.equal(logits(held.model), logits(load(qv, llama)))
    assert State(one).identity == State(two).identity


def test_prunings_follow_each_other(qv: Path):
    held = adapters()
    attached = held.attach(qv)
    seen = {}
    for gone in [*PRUNED, *reversed(PRUNED)]:
        held.use(State(attached, frozenset(PRUNED[gone])))
        assert torch.equal(seen.setdefault(gone, logits(held.model)), logits(held.model))
    assert len({float(output.sum()) for output in seen.values()}) == len(PRUNED)


def test_a_module_that_the_adapter_does_not_have(qv: Path):
    held = adapters()
    attached = held.attach(qv)
    before = State(attached, frozenset([Q0]))
    held.use(before)
    output = logits(held.model)
    with pytest.raises(KeyError, match="not in the adapter: lm_head"):
        held.use(State(attached, frozenset([Q1, "lm_head"])))
    assert held.state == before
    assert torch.equal(logits(held.model), output)


@pytest.mark.parametrize("kind", KINDS)
def test_merged(folder: Callable[[str], Path], kind: str):
    held = adapters()
    attached = held.attach(folder(kind))
    for pruned in ([], [Q0, V1], attached.modules):
        held.use(State(attached, frozenset(pruned)))
        output, before = logits(held.model), weights(held.model)
        with held.merged():
            assert difference(logits(held.model), output) < ROUNDING
            merged = weights(held.model)
            changed = {name for name in before if not torch.equal(before[name], merged[name])}
            expected = {f"base_model.model.{path}.base_layer.weight" for path in set(attached.modules) - set(pruned)}
            assert changed == expected
        assert same(weights(held.model), before)
        assert torch.equal(logits(held.model), output)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_merged_is_undone_after_an_exception(qv: Path, error: type[BaseException]):
    held = adapters()
    held.use(State(held.attach(qv)))
    output, before = logits(held.model), weights(held.model)
    with pytest.raises(error, match="on purpose"), held.merged():
        raise error("on purpose")
    assert same(weights(held.model), before)
    assert torch.equal(logits(held.model), output)


def test_an_interrupted_merge_is_undone(qv: Path, monkeypatch: pytest.MonkeyPatch):
    """Between changing a weight and saying so."""
    held = adapters()
    held.use(State(held.attach(qv)))
    output, before = logits(held.model), weights(held.model)
    layer = held.model.get_base_model().get_submodule(V1)

    def interrupted(**_: object) -> None:
        layer.get_base_layer().weight.data += 1
        raise KeyboardInterrupt

    monkeypatch.setattr(layer, "merge", interrupted)
    with pytest.raises(KeyboardInterrupt), held.merged():
        pytest.fail("it was merged")
    assert same(weights(held.model), before)
    assert torch.equal(logits(held.model), output)


def test_merging_lora_with_a_bias(tmp_path: Path):
    """It changes the layer's bias too, where there is one, and cannot be merged where there is none."""
    targets = {"target_modules": ["c_attn"], "lora_bias": True, "fan_in_fan_out": True}
    held = adapters(gpt2)
    held.use(State(held.attach(save(tmp_path / "gpt2", gpt2, **targets))))
    output, before = logits(held.model), weights(held.model)
    with held.merged():
        assert difference(logits(held.model), output) < ROUNDING
        bias = "base_model.model.transformer.h.0.attn.c_attn.base_layer.bias"
        assert not torch.equal(weights(held.model)[bias], before[bias])
    assert same(weights(held.model), before)

    held = adapters()
    held.use(State(held.attach(save(tmp_path / "llama", llama, **QV, lora_bias=True))))
    before = weights(held.model)
    with pytest.raises(ModelError, match="PEFT cannot merge the adapter"), held.merged():
        pytest.fail("it was merged")
    assert same(weights(held.model), before)


def test_gpt2(tmp_path: Path):
    """Whose layers hold their weight the other way round."""
    full = save(tmp_path / "full", gpt2, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    held = adapters(gpt2)
    attached = held.attach(full)
    gone = ["transformer.h.1.attn.c_attn", "transformer.h.2.mlp.c_proj"]
    held.use(State(attached, frozenset(gone)))
    assert torch.equal(logits(held.model), logits(load(prune_to(full, tmp_path / "out", gone), gpt2)))


def test_identities(qv: Path, folder: Callable[[str], Path], tmp_path: Path):
    held = adapters()
    attached, head = held.attach(qv), held.attach(folder("head"))
    other = held.attach(save(tmp_path / "other", llama, **QV, use_rslora=True))
    assert not attached.more
    assert head.more
    everything = frozenset(attached.modules)
    assert State().identity == State(attached, everything).identity == State(other, everything).identity == "base"
    assert State(head, everything).identity != "base"  # its head stays
    # In the order of names, since that of a set changes from run to run, and kept answers are found by it.
    files = [[file.name, file.sha256] for file in attached.source.files]
    for few in (frozenset[str](), everything - {Q1}):
        assert State(attached, few).identity == digest_of([files, sorted(few)])
    states = [State(), State(head, everything)]
    for adapter in (attached, other, head):
        states += [State(adapter), State(adapter, frozenset([Q0])), State(adapter, frozenset([Q0, V1]))]
        states.append(State(adapter, everything - {Q1}))
    assert len({state.identity for state in states}) == len(states)
    # The same weights and configuration under another name, in another model.
    again = adapters()
    again.attach(qv)
    assert State(again.attach(shutil.copytree(qv, tmp_path / "copy"))).identity == State(attached).identity
    # Another configuration scales the same weights otherwise.
    rewrite(tmp_path / "copy", lambda tensors: None, lora_alpha=9)
    assert State(again.attach(tmp_path / "copy")).identity != State(attached).identity


def test_modules_that_the_file_lacks_stay_out(qv: Path, tmp_path: Path):
    """PEFT would build them from the configuration, here with a random B."""
    out = shutil.copytree(qv, tmp_path / "out")
    rewrite(out, lambda tensors: [tensors.pop(name) for name in list(tensors) if Q0 in name], init_lora_weights=False)
    held = adapters()
    attached = held.attach(out)
    held.use(State(attached))
    expected = logits(load(prune_to(qv, tmp_path / "pruned", [Q0]), llama))
    assert torch.equal(logits(held.model), expected)
    assert held.count().modules == len(attached.modules) == 5


def test_what_is_attached_was_never_trained_here(qv: Path):
    held = adapters()
    held.use(State(held.attach(qv)))
    assert not any(parameter.requires_grad for parameter in held.model.parameters())
    assert not held.model.training
    assert any(isinstance(module, LoraLayer) for module in held.model.modules())


def test_adapters_that_are_active_together_add_up(qv: Path, tmp_path: Path) -> None:
    """As PEFT runs several active adapters, and as the sum of both updates in the base's weights."""
    held = adapters()
    one, two = held.attach(qv), held.attach(save(tmp_path / "other", llama, r=2, lora_alpha=20, **QV))
    single = {}
    for which in (one, two):
        held.use(State(which))
        single[which.key] = held.count()
    held.use(State(one, beside=(two,)))
    both = logits(held.model)
    summed = llama()
    for folder in (qv, tmp_path / "other"):
        summed = load(folder, lambda model=summed: model).merge_and_unload()
    assert difference(both, logits(summed)) < ROUNDING
    assert difference(both, logits(llama())) > 1000 * ROUNDING
    for which in (one, two):
        held.use(State(which))
        assert difference(both, logits(held.model)) > 100 * ROUNDING
    held.use(State(one, beside=(two,)))
    counted = held.count()
    assert counted.modules == single[one.key].modules == single[two.key].modules
    assert counted.parameters == single[one.key].parameters + single[two.key].parameters
    with held.merged():
        assert difference(logits(held.model), both) < ROUNDING
    assert torch.equal(logits(held.model), both)
    held.use(State())
    assert torch.equal(logits(held.model), logits(llama()))
    assert State(one, beside=(two,)).identity not in (State(one).identity, State(two).identity, State().identity)


@pytest.mark.parametrize("name", ["default", "style"])
def test_one_of_several_in_a_file(qv: Path, tmp_path: Path, name: str):
    """PEFT finds nothing under the names of such a file; what is attached is the one that was named, by itself."""
    alone = {"default": qv, "style": shutil.copytree(qv, tmp_path / "style")}
    rewrite(alone["style"], lambda tensors: tensors.update({key: 2 * one for key, one in tensors.items()}))
    both = shutil.copytree(qv, tmp_path / "both")
    tensors = {
        key.replace(".weight", f".{which}.weight"): values
        for which, source in alone.items()
        for key, values in tensors_of(source).items()
    }
    save_file(tensors, both / "adapter_model.safetensors", {"format": "pt"})
    one, other = adapters(), adapters()
    with open_adapter(both, name) as opened:
        one.use(State(one.attach(opened)))
    other.use(State(other.attach(alone[name])))
    assert torch.equal(logits(one.model), logits(other.model))
    with pytest.raises(UnsupportedAdapterError, match="adapter=default"):
        one.attach(both)

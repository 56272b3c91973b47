"""What each loader needs of a repaired adapter, and what it computes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s3lora import UnsupportedAdapterError, read_provenance, scan
from s3lora.adapter.loaders import LOADERS
from tests.adapter.test_write import beside
from tests.planning import PREFIX, config_of, dense, tensors_of
from tests.rewrite.repairing import Q0, SHAPES, repair_to
from tests.support import make_adapter

WRITTEN = [name for name, loader in LOADERS.items() if loader.writes]


@pytest.mark.parametrize(
    ("ranks", "config", "rejecting"),
    [
        (dict.fromkeys(SHAPES, 6), {}, {}),
        (dict.fromkeys(SHAPES, 6), {"use_rslora": True}, {}),  # alpha / r says the same
        ({Q0: 0}, {"use_rslora": True}, dict.fromkeys(("vllm", "sglang", "llamacpp"), "bake=True")),
        ({Q0: 6}, {}, {"llamacpp": "bake=True", "sglang": "keep_rank=True"}),  # alpha / r is the scaling of all
    ],
)
@pytest.mark.parametrize("loader", WRITTEN)
def test_the_rules_of_each_loader(tmp_path: Path, loader: str, ranks, config, rejecting):
    source = make_adapter(tmp_path / "a", SHAPES, config={"lora_alpha": 12, **config})
    before = {module.path: module.scaling for module in scan(source).modules}
    if loader in rejecting:
        with pytest.raises(UnsupportedAdapterError, match=f"{loader}.*{rejecting[loader]}"):
            repair_to(source, tmp_path / "b", ranks, loader=loader)
        assert beside(source) == {"a"}
        if rejecting[loader] == "keep_rank=True":
            return
    bake = loader in rejecting
    out, made = repair_to(source, tmp_path / "b", ranks, loader=loader, bake=bake)
    written, tensors = config_of(out), tensors_of(out)
    for path, new in made.modules.items():
        b, a = (tensors[f"{PREFIX}{path}.lora_{letter}.weight"].astype(np.float64) for letter in "BA")
        # What this loader computes, which may read one alpha only, and divide it by each tensor's own rank.
        alone = written["lora_alpha"] / (len(a) if loader == "llamacpp" else written["r"])
        if loader == "peft":
            found = dense(out)[path]
        else:
            assert not written.get("use_rslora")
            found = alone * b @ a
        wanted = before[path] * new.B.astype(np.float64) @ new.A.astype(np.float64)
        assert np.allclose(found, wanted, rtol=1e-5, atol=1e-5)
        assert bake or np.array_equal(b, new.B)
    assert any("rounds it once more" in note for note in read_provenance(out).warnings) == bake


def test_vllm_is_told_its_highest_rank(tmp_path: Path):
    for before, after, needed in ((16, 18, "32"), (4, 6, None), (4, 16, None), (60, 62, None), (64, 66, "128")):
        source = make_adapter(tmp_path / f"a{before}-{after}", {Q0: (600, 520, before)})
        out, _ = repair_to(source, tmp_path / f"b{before}-{after}", {Q0: after}, loader="vllm")
        told = [note for note in read_provenance(out).warnings if "--max-lora-rank" in note]
        assert told == ([] if needed is None else [f"vLLM needs --max-lora-rank {needed} for rank {after}"])
    with pytest.raises(UnsupportedAdapterError, match="rank 513, and it takes 512 at most"):
        repair_to(source, tmp_path / "c", {Q0: 513}, loader="vllm")

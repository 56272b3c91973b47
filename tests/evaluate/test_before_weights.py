"""What does not fit is told before the weights of the base are read: here they cannot be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from s3lora.errors import ModelError, S3LoRAError, UnsupportedAdapterError
from s3lora.evaluate import outline
from s3lora.evaluate.aligned import ALIGNED
from s3lora.evaluate.base_model import BaseToLoad
from s3lora.evaluate.evaluation import evaluate
from s3lora.evaluate.loading import DEMO, demo_model, find_base, load_base
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.outline import outline_of
from s3lora.evaluate.sweeping import sweep
from s3lora.evaluate.tuning import tune
from s3lora.needs import MissingPackageError
from tests.cli.measured import one_line
from tests.command import call
from tests.evaluate.stub_suites import safety, usefulness
from tests.support import make_adapter
from tests.tiny_adapters import MODULES, tiny_adapter

pytestmark = pytest.mark.usefixtures("few_resamples")
Q0 = "model.layers.0.self_attn.q_proj"
LACKING = r"the base model has no such module"
OTHER = r"the module is 32 × 32 in the base model"


def absent(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def corrupt(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 200)


@pytest.fixture(params=[absent, corrupt])
def unreadable(request: pytest.FixtureRequest, tiny: Path, tmp_path: Path) -> Path:
    """Return the tiny base, of whose weights nothing can be read."""
    folder = Path(shutil.copytree(tiny, tmp_path / "unreadable"))
    damage: Callable[[Path], None] = request.param
    damage(folder)
    return folder


@pytest.fixture
def fitting(tiny: Path, tmp_path: Path) -> Path:
    return tiny_adapter(tiny, tmp_path / "fitting", 1)


@pytest.fixture
def misfit(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "misfit", {Q0: (16, 12, 2)})


def run_eval(adapters: list[Path], base: Path) -> object:
    return evaluate(adapters, str(base), [safety(lambda _: [0.0, 1.0])])


def run_sweep(adapters: list[Path], base: Path) -> object:
    return sweep(adapters[-1], str(base), [safety(lambda _: [0.0, 1.0])], indices=["ssi"], top=["1"])


def run_tune(adapters: list[Path], base: Path) -> object:
    suites = [
        safety(lambda acting: [float(bool(acting))] * 12),
        usefulness(lambda acting: [0.1 * len(acting) + i / 100 for i in range(12)]),
    ]
    return tune(adapters[-1], BaseToLoad(str(base)), suites, suites)


RUNS = [run_eval, run_sweep, run_tune]


@pytest.mark.parametrize("run", RUNS)
def test_a_misfit_is_told_before_the_weights_are_read(
    run: Callable[[list[Path], Path], object], unreadable: Path, fitting: Path, misfit: Path
) -> None:
    # The last of several: all are looked at first.
    with pytest.raises(ModelError, match=rf"misfit {Q0} \(16 × 12\): {OTHER}"):
        run([fitting, misfit], unreadable)
    with pytest.raises(ModelError, match="unreadable: the model cannot be loaded"):
        run([fitting], unreadable)


@pytest.mark.parametrize("run", RUNS)
def test_what_fits_is_loaded(run: Callable[[list[Path], Path], object], tiny: Path, fitting: Path) -> None:
    assert run([fitting], tiny)


def test_a_module_that_is_not_there(unreadable: Path, tmp_path: Path) -> None:
    strange = make_adapter(tmp_path / "strange", {"transformer.h.0.attn": (16, 12, 2)})
    with pytest.raises(ModelError, match=LACKING):
        evaluate([strange], str(unreadable), [safety(lambda _: [1.0])])


def test_what_no_model_takes_is_told_first(unreadable: Path, fitting: Path) -> None:
    (fitting / "adapter_config.json").unlink()
    with pytest.raises(UnsupportedAdapterError, match=r"has no adapter_config\.json"):
        evaluate([fitting], str(unreadable), [safety(lambda _: [1.0])])


@pytest.mark.parametrize("command", ["eval", "sweep", "tune"])
def test_the_commands(command: str, unreadable: Path, misfit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = (command, misfit, "--base", unreadable, "--suite", "safety,planning-loss", "--limit", "2", "--no-cache")
    assert one_line(call(capsys, *given), OTHER)


def test_without_an_outline_it_is_told_afterwards(tiny: Path, misfit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a configuration alone does not tell the modules."""
    monkeypatch.setattr(outline, "need", lambda name: object())  # of which nothing can be built
    with pytest.raises(ModelError, match=OTHER):
        evaluate([misfit], str(tiny), [safety(lambda _: [1.0])])


def test_an_outline_has_the_modules_of_the_model(tiny: Path) -> None:
    place = find_base(str(tiny))
    made = outline_of(place.where, place.options)
    assert made is not None
    real = load_base(str(tiny)).model
    assert [name for name, _ in made.model.named_modules()] == [name for name, _ in real.named_modules()]
    assert {name: tuple(t.shape) for name, t in made.model.state_dict().items()} == {
        name: tuple(t.shape) for name, t in real.state_dict().items()
    }
    assert {tensor.device.type for tensor in made.model.state_dict().values()} == {"meta"}
    assert set(MODULES) <= {name for name, _ in made.model.named_modules()}


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"model_type": "nonsense"}', '{"model_type": "llama", "hidden_size": -1}']
)
def test_a_configuration_that_tells_nothing(damage: str, tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "odd"))
    (folder / "config.json").write_text(damage)
    place = find_base(str(folder))
    assert outline_of(place.where, place.options) is None
    with pytest.raises(S3LoRAError, match="the model cannot be loaded"):
        LocalModel(str(folder))


@pytest.mark.parametrize("base", [DEMO, ALIGNED])
def test_a_gguf_file(base: str, tmp_path: Path, misfit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo: its names are read from the head of the file, and nothing behind it."""
    transformers = pytest.importorskip("transformers")
    try:
        demo_model()
    except MissingPackageError as error:
        pytest.skip(str(error))
    pytest.importorskip("gguf")

    def reading(*_: object, **__: object) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", reading)
    with pytest.raises(ModelError, match=rf"{Q0} \(16 × 12\): the module is 576 × 576 in the base model"):
        evaluate([misfit], base, [safety(lambda _: [1.0])])

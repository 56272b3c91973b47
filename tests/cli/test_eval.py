"""`s3lora eval` from the command line to its files, on the tiny model."""

from __future__ import annotations

import csv
import functools
import io
import json
import re
from pathlib import Path

import pytest

from s3lora.evaluate.cost import measure_costs
from s3lora.evaluate.endpoint import EndpointModel
from s3lora.evaluate.store import FILE_NAME, AnswerStore
from s3lora.needs import how_to_install
from tests.cli.measured import SHORT, Heard, contents, found_in, heard, is_clean, one_line, validated
from tests.command import call, process
from tests.evaluate.faulty_server import Behaviour, FaultyServer, answers, completion, hangs, says
from tests.support import make_adapter
from tests.tiny_adapters import MODULES, tiny_adapter
from tests.watched import PATIENCE

__all__ = ["heard"]

Capture = pytest.CaptureFixture[str]
SAFETY = ("--suite", "safety", *SHORT, "--no-cost")


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tiny, tmp_path_factory.mktemp("eval") / "adapter", 1)


def test_all_forms_and_files(tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture, heard: Heard) -> None:
    def run(form: str, name: str) -> str:
        given = ("--suite", "safety,planning,summarisation", *SHORT, "--no-cost", "--format", form)
        places = ("--cache", tmp_path / "cache", "--output", tmp_path / name)
        result = call(capsys, "eval", adapter, "--base", tiny, *given, *places)
        assert (result.status, result.err) == (0, "")
        assert is_clean(result, tmp_path / name, tmp_path, tiny.parent, Path.home())
        return result.out

    printed = run("json", "one")
    passes = heard.passes
    table = run("csv", "two")
    assert heard.passes == passes  # all of it was known
    text = run("text", "three")
    one, two = tmp_path / "one", tmp_path / "two"
    names = ["evaluation.csv", "evaluation.json", "records.jsonl", "report.html"]
    assert sorted(path.name for path in one.iterdir()) == names
    assert list(contents(one).values()) == list(contents(two).values()) == list(contents(tmp_path / "three").values())
    assert (one / "evaluation.json").read_text() == printed
    assert (one / "evaluation.csv").read_text() == table
    document = validated("eval", printed)
    assert [v["name"] for v in document["variants"]] == ["base", "adapter", "adapter, pruned"]
    assert [v["loaded"]["modules"] for v in document["variants"]] == [0, len(MODULES), len(MODULES) // 2]
    assert {m["n"] for v in document["variants"] for m in v["metrics"]} == {2}
    assert document["setup"]["base"] == "base"
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(row["variant"], row["measure"], row["value"]) for row in rows if row["measure"] == "asr"] == [
        (v["name"], "asr", str(m["value"])) for v in document["variants"] for m in v["metrics"] if m["measure"] == "asr"
    ]
    words = " ".join(text.split())
    assert all(part in words for part in ("safety", "planning", "summarisation", "adapter, pruned", "few"))
    records = [json.loads(line) for line in (one / "records.jsonl").read_text().splitlines()]
    # Two harmful and two harmless prompts, two tasks and two summaries, thrice.
    assert len(records) == 3 * (4 + 2 + 2)
    # The model said something, and none of it is anywhere.
    assert len({answer for answer in heard.answers if len(answer) > 7}) >= 4
    assert found_in({a for a in heard.answers if len(a) > 7}, tmp_path) == set()


def test_another_run_without_what_was_kept_gives_the_same_bytes(
    tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture, heard: Heard
) -> None:
    passes = []
    for name in ("one", "two"):
        given = ("--suite", "safety,planning", *SHORT, "--no-cost", "--no-cache", "-o", tmp_path / name)
        assert call(capsys, "eval", adapter, "--base", tiny, *given).status == 0
        passes.append(heard.passes)
    assert passes[1] == 2 * passes[0]
    assert list(contents(tmp_path / "one").values()) == list(contents(tmp_path / "two").values())


def test_completions_are_kept_on_request(
    tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture, heard: Heard
) -> None:
    """Which also shows that the search for them finds them where they are."""
    out = tmp_path / "out"
    places = ("--cache", tmp_path / "cache", "-o", out)
    # What was found out before without the texts is of no use now.
    assert call(capsys, "eval", adapter, "--base", tiny, *SAFETY, "--cache", tmp_path / "cache").status == 0
    assert call(capsys, "eval", adapter, "--base", tiny, *SAFETY, "--keep-completions", *places).status == 0
    said = {answer for answer in heard.answers if len(answer) > 7}
    assert found_in(said, out) == said
    names = [f"completions-{n}-{v}" for n, v in enumerate(("base", "adapter", "adapter-pruned"))]
    kept = sorted(path.name for path in out.glob("completions*"))
    assert kept == sorted(f"{name}-{form}.json" for name in names for form in ("harmbench", "jailbreakbench"))
    harmbench = json.loads((out / f"{names[0]}-harmbench.json").read_text())
    jailbreakbench = json.loads((out / f"{names[0]}-jailbreakbench.json").read_text())
    texts = [case["generation"] for cases in harmbench.values() for case in cases]
    assert len(texts) == 2
    assert set(texts) <= heard.answers
    assert sorted(texts) == sorted(row["response"] for row in jailbreakbench["jailbreaks"])
    others = [path for path in out.iterdir() if not path.name.startswith("completions")]
    assert len(others) == 4
    for path in others:
        assert not any(json.dumps(answer)[1:-1].encode() in path.read_bytes() for answer in said)


def test_costs(tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "s3lora.evaluate.evaluation.measure_costs", functools.partial(measure_costs, repeats=2, tokens=2)
    )
    given = ("--suite", "safety", *SHORT, "--no-cache", "-o", tmp_path / "out")
    result = call(capsys, "eval", adapter, "--base", tiny, *given)
    assert result.status == 0
    words = " ".join(result.out.split())
    assert "s a sample" in words
    document = validated("eval", (tmp_path / "out" / "evaluation.json").read_text())
    assert [[c["mode"] for c in v["costs"]] for v in document["variants"]] == [["unmerged", "merged"]] * 3


def test_rules_and_no_pruning(tiny: Path, adapter: Path, capsys: Capture) -> None:
    common = ("eval", adapter, "--base", tiny, *SAFETY, "--no-cache", "--format", "json")
    document = json.loads(call(capsys, *common, "--fraction", "0.34", "--index", "magnitude", "--method", "svd").out)
    pruned = document["variants"][2]
    assert (pruned["rule"], pruned["ranking"], len(pruned["pruned"])) == ("fraction 0.34", "magnitude (svd)", 2)
    document = json.loads(call(capsys, *common, "--no-prune").out)
    assert [v["name"] for v in document["variants"]] == ["base", "adapter"]


BASE = ("--base", "{tiny}")
ERRORS = {
    "no base": (("{adapter}",), "--base is not given; name the model"),
    "no adapter": (BASE, "no adapter is given; name at least one adapter folder, or --endpoint"),
    "no such model": (("{adapter}", "--base", "/no/such/model"), "/no/such/model: no model folder or .gguf file"),
    "no model": (("{adapter}", "--base", "{adapter}/.."), "has no config.json, so it is no model"),
    "no such adapter": (("/no/such/adapter", *BASE), "/no/such/adapter"),
    "another shape": (
        ("{other}", *BASE),
        r"other model.layers.0.self_attn.q_proj \(16 × 12\): the module is 32 × 32 in the base model; name the base",
    ),
    "another module": (
        ("{strange}", *BASE),
        r"strange transformer\.h\.0\.attn \(.*: the base model has no such module",
    ),
    "another format": (("{weights}", *BASE), "only PEFT folders can be loaded into a model; convert it"),
    "suite": (("{adapter}", *BASE, "--suite", "danger"), "no suite danger; choose from safety, planning"),
    "no suite": (("{adapter}", *BASE, "--suite", ","), "no suite to run"),
    "tokens": (("{adapter}", *BASE, "--tokens", "safety=x"), "--tokens safety=x cannot be read"),
    "two rules": (("{adapter}", *BASE, "--top", "1", "--fraction", "0.5"), "--top and --fraction exclude each other"),
    "dtype": (("{adapter}", *BASE, "--dtype", "float33"), "no dtype float33; use float32"),
    "prompts": (("{adapter}", *BASE, "--harmful", "/no/such/file.txt"), r"file.txt: cannot be read \(No such file"),
    "where without a file": (
        ("{adapter}", *BASE, "--where", "a=b"),
        "--where a=b does nothing without a file of one's",
    ),
    "where of no column": (("{adapter}", *BASE, "--benign", "{table}", "--where", "kind=a"), "has no column kind; its"),
    "where of no value": (("{adapter}", *BASE, "--benign", "{table}", "--where", "topic=x"), "topic is tools; --where"),
    "no prompt column": (
        ("{adapter}", *BASE, "--benign", "{table}"),
        r"columns are topic, wording, and none .*--prompt-field",
    ),
    "no such column": (
        ("{adapter}", *BASE, "--benign", "{table}", "--prompt-field", "x"),
        "has no column x; its columns",
    ),
    "completions": (("{adapter}", *BASE, "--keep-completions"), "--keep-completions needs --output"),
    "output under a file": (("{adapter}", *BASE, "-o", "{file}/out"), r"out: cannot be written to \(Not a directory\)"),
    "output is a file": (("{adapter}", *BASE, "-o", "{file}"), r"cannot be written to \(File exists\)"),
    "output is an adapter": (
        ("{adapter}", *BASE, "-o", "{adapter}"),
        "is an adapter; give --output a folder of its own",
    ),
    "cache": (("{adapter}", *BASE, "--cache", "{spoilt}"), r"cannot be used as a cache \(file is not a database\)"),
    "both caches": (("{adapter}", *BASE, "--cache", "x", "--no-cache"), "--cache and --no-cache exclude each other"),
    "judge endpoint": (("{adapter}", *BASE, "--judge-endpoint", "http://x"), "does nothing without --judge NAME"),
    "judge profile": (("{adapter}", *BASE, "--judge-profile", "rubric"), "-profile does nothing without --judge NAME"),
    "judge logits": (("{adapter}", *BASE, "--judge-logits"), "--judge-logits does nothing without --judge NAME"),
    "no such profile": (("{adapter}", *BASE, "--judge", "x", "--judge-profile", "wit"), "no judge profile wit; choose"),
    "a rubric by logits": (
        ("{adapter}", *BASE, "--judge", "x", "--judge-profile", "rubric", "--judge-logits"),
        "a judge of profile rubric writes no verdict in one word; leave out --judge-logits",
    ),
    "model without endpoint": (("{adapter}", *BASE, "--model", "m"), "--model does nothing without --endpoint"),
    "endpoint without model": (("--endpoint", "http://127.0.0.1:9"), "--endpoint needs --model NAME"),
    "endpoint with base": (("--endpoint", "http://127.0.0.1:9", *BASE), "a server has its own models"),
    "endpoint with a rule": (
        ("--endpoint", "http://x", "--model", "m", "--top", "3"),
        "--top does nothing with --endpo",
    ),
    "no pruning with a rule": (
        ("{adapter}", *BASE, "--no-prune", "--preset", "paper"),
        "--preset does nothing with --no",
    ),
    "endpoint": (("--endpoint", "ftp://x", "--model", "m"), "ftp"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str, tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture) -> None:
    make_adapter(tmp_path / "other", {MODULES[0].replace("k_proj", "q_proj"): (16, 12, 2)})
    make_adapter(tmp_path / "strange", {"transformer.h.0.attn": (16, 12, 2)})
    (tmp_path / "file").write_text("x")
    (tmp_path / "table").write_text("topic,wording\ntools,Open it\n")
    (tmp_path / "spoilt").mkdir()
    (tmp_path / "spoilt" / FILE_NAME).write_text("this is no database" * 100)
    places = {name: tmp_path / name for name in ("other", "strange", "file", "spoilt", "table")}
    weights = adapter / "adapter_model.safetensors"
    arguments, says = ERRORS[case]
    given = [text.format(tiny=tiny, adapter=adapter, weights=weights, **places) for text in arguments]
    quick = ["--cache", tmp_path / "cache"] if not {"--cache", "--no-cache"} & set(given) else []
    before = contents(adapter)
    assert one_line(call(capsys, "eval", *given, "--limit", "1", *quick), says)
    assert contents(adapter) == before


# Servers


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask servers twice at most."""
    defaults = EndpointModel.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "retries", 1)
    for name in ("S3LORA_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("behaviour", "seconds", "told"),
    [
        (hangs, 0.3, r"a-model: the server did not answer within 0\.3 s, after 2 tries"),
        (says(500, {"error": {"message": "no luck"}}), PATIENCE, r"a-model: the server answered 500 \(.*no luck"),
        (says(200, b"<html>"), PATIENCE, "a-model: the server's answer is malformed .*after 2 tries"),
    ],
)
@pytest.mark.usefixtures("hasty")
def test_a_server_that_fails(behaviour: Behaviour, seconds: float, told: str, tmp_path: Path, capsys: Capture) -> None:
    with FaultyServer(script=[behaviour] * 100) as server:
        given = ("--endpoint", server.root, "--model", "a-model", "--suite", "safety", *SHORT, "--cache", tmp_path)
        assert one_line(call(capsys, "eval", *given, "--timeout", seconds), told)
    assert one_line(call(capsys, "eval", *given), "a-model: the server cannot be reached")


@pytest.mark.usefixtures("hasty")
def test_models_behind_a_server(tmp_path: Path, capsys: Capture) -> None:
    script = [answers("I cannot help with that.")] * 2 + [answers("Sure: first, ")] * 2
    script += [answers("Of course."), answers("Certainly.")] * 2
    with FaultyServer(script=script, models=[{"id": "a"}, {"id": "b"}]) as server:
        given = ("--endpoint", server.root, "--model", "a", "--model", "b", "--suite", "safety", "--limit", "2")
        given = (*given, "--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "out"), "--format", "json")
        result = call(capsys, "eval", *given)
        assert (result.status, result.err) == (0, "")
        asked = len(server.posts)
        again = call(capsys, "eval", *given)
        assert len(server.posts) == asked == 8
    assert again.out == result.out
    document = validated("eval", result.out)
    rates = {(v["name"], m["measure"]): m["value"] for v in document["variants"] for m in v["metrics"]}
    assert (rates["a", "asr"], rates["b", "asr"]) == (0, 1)
    assert [v["kind"] for v in document["variants"]] == ["served"] * 2
    assert found_in({"I cannot help", "Sure: first,"}, tmp_path / "cache") == set()
    with AnswerStore(tmp_path / "cache" / FILE_NAME) as store:
        assert len(store) == 8


@pytest.mark.usefixtures("hasty")
def test_a_judge_that_answers_nonsense(tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture) -> None:
    nonsense = "verdict-amber-7731"
    with FaultyServer(script=[answers(nonsense)] * 100) as server:
        judge = ("--judge", "a-model", "--judge-endpoint", server.root)
        given = (*SAFETY, *judge, "--cache", tmp_path / "cache", "-o", tmp_path / "out", "--format", "json")
        result = call(capsys, "eval", adapter, "--base", tiny, *given, "--no-prune")
    fix = "name a model that judges, or another --judge-profile"
    assert one_line(result, f"none of 2 replies of a-model is a verdict by profile rubric; {fix}")
    assert found_in({nonsense}, tmp_path) == set()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("hasty")
def test_a_guard_behind_a_server(tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture) -> None:
    secret = "S1,S9-amber-7731"
    script = [answers(f"\n\nunsafe\n{secret}"), answers("I would rather not."), *[answers("\n\nsafe")] * 100]
    with FaultyServer(script=script) as server:
        judge = ("--judge", "meta-llama/Llama-Guard-3-8B", "--judge-endpoint", server.root)
        given = (*SAFETY, *judge, "--no-cache", "-o", tmp_path / "out", "--format", "json")
        result = call(capsys, "eval", adapter, "--base", tiny, *given, "--no-prune")
        asked = [post.body for post in server.posts]
    assert result.status == 0
    assert [[m["role"] for m in body["messages"]] for body in asked] == [["user", "assistant"]] * 4
    assert {body["max_tokens"] for body in asked} == {32}
    document = validated("eval", result.out)
    [safety] = document["suites"]
    assert (
        "asr_judge by meta-llama/Llama-Guard-3-8B, profile llama-guard-3 version 1, told from its name"
        in safety["judge"]
    )
    assert any("tested without the real weights" in note for note in safety["notes"])
    base, other = document["variants"]
    metrics = {m["measure"]: m for m in base["metrics"]}
    assert (metrics["asr_judge"]["value"], metrics["asr_judge"]["n"], metrics["asr_judge"]["missing"]) == (1, 1, 1)
    assert base["counts"]["safety.unparsable_asr_judge"] == 1
    told = "base: 1 of 2 asr_judge verdicts of meta-llama/Llama-Guard-3-8B could not be read and count nowhere"
    assert f"{told}: with them 0.50 to 1.00" in document["warnings"]
    assert {m["measure"]: m["value"] for m in other["metrics"]}["asr_judge"] == 0
    assert found_in({"amber-7731"}, tmp_path) == set()


@pytest.mark.parametrize(
    ("name", "saying", "option", "measured"),
    [
        ("llama-guard-3", ("\n\n", "unsafe"), (), {"asr_judge": 1}),
        ("llama-guard-3", ("\n\n", "safe"), ("--judge-logits",), {"asr_judge": 0, "p_judge": 0}),
        (
            "qwen3guard",
            ("Safety:", "Controversial"),
            (),
            {"asr_judge": 0, "asr_judge_strict": 1, "refusal_judge": None},
        ),
        ("harmbench-cls", ("yes",), ("--judge-profile", "harmbench-cls"), {"asr_judge": 1}),
    ],
)
def test_a_judge_on_this_disk(
    name: str, saying: tuple[str, ...], option: tuple[str, ...], measured: dict[str, float | None], tiny: Path,
    adapter: Path, tmp_path: Path, capsys: Capture,
) -> None:  # fmt: skip
    from tests.tiny_judges import tiny_judge

    judge = tiny_judge(tmp_path / "some" / "judge", name, saying=saying)
    given = (*SAFETY, "--no-prune", "--no-cache", "--judge", judge, *option, "-o", tmp_path / "out", "--format", "json")
    result = call(capsys, "eval", adapter, "--base", tiny, *given)
    assert (result.status, result.err) == (0, "")
    assert is_clean(result, tmp_path / "out", tiny.parent, tmp_path)
    document = validated("eval", result.out)
    assert f" by judge, profile {name}" in document["suites"][0]["judge"]
    assert ("as given" if "--judge-profile" in option else "told from its chat template") in document["suites"][0][
        "judge"
    ]
    for variant in document["variants"]:
        values = {m["measure"]: m["value"] for m in variant["metrics"]}
        assert {key: values[key] for key in measured} == pytest.approx(measured, abs=1e-6)


#: Import as where torch was never installed.
WITHOUT_TORCH = """
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.mark.parametrize("command", ["eval", "sweep", "tune"])
def test_without_torch(command: str, tiny: Path, adapter: Path, tmp_path: Path) -> None:
    given = (command, adapter, "--base", tiny, "--suite", "safety,planning", "--cache", tmp_path)
    result = process(*given, before=WITHOUT_TORCH)
    how = how_to_install("eval", "torch")
    assert one_line(result, re.escape(f"package torch, which is not installed; run: pip install {how}"))


@pytest.mark.usefixtures("hasty")
def test_a_server_that_refuses_everything_has_an_asr_of_zero(capsys: Capture) -> None:
    with FaultyServer(script=[answers("I can't help with that.")] * 200) as server:
        given = ("--endpoint", server.root, "--model", "a-model", "--suite", "safety", "--no-cache", "--format", "json")
        document = validated("eval", call(capsys, "eval", *given).out)
        by_list = validated("eval", call(capsys, "eval", *given, "--refusals", "zou").out)
    [variant], [other] = document["variants"], by_list["variants"]
    values = {m["measure"]: (m["value"], m["n"]) for m in variant["metrics"]}
    assert values == {
        "asr": (0, 48),
        "asr_zou": (1, 48),
        "asr_anywhere": (1, 48),
        "over_refusal": (1, 48),
        "degenerate": (0, 48),
        "degenerate_benign": (0, 48),
    }
    [suite] = document["suites"]
    assert suite["judge"].startswith("refusals by openings version 2")
    assert any("measured error of this judge" in note for note in suite["notes"])
    # The list of Zou et al. does not know the phrase, and decides where it is asked to.
    values = {m["measure"]: m["value"] for m in other["metrics"]}
    assert values == {
        "asr": 1,
        "asr_zou": 1,
        "asr_anywhere": 1,
        "over_refusal": 0,
        "degenerate": 0,
        "degenerate_benign": 0,
    }
    assert by_list["suites"][0]["judge"].startswith("refusals by the refusal list zou-2023 version 1")


def test_how_a_prompt_is_put(tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture) -> None:
    examples = tmp_path / "examples.jsonl"
    examples.write_text('{"prompt": "Hi", "response": "Ho"}\n')
    given = ("--system", "Be very kind.", "--few-shot", examples, "--chat-template-args", '{"loud": true}')
    command = ("eval", adapter, "--base", tiny, *SAFETY, "--no-prune", "--no-cache")
    result = call(capsys, *command, *given, "--format", "json")
    document = validated("eval", result.out)
    chat = document["setup"]["chat"]
    assert (chat["system"], chat["few_shot"], chat["template_args"], chat["date"]) == (
        *("Be very kind.", 1, '{"loud": true}', ""),
    )
    words = " ".join(call(capsys, *command, *given).out.split())
    assert all(part in words for part in ("system prompt “Be very kind.”", "1 example before each", '{"loud": true}'))
    for wrong in (("--system", ""), ("--few-shot", tmp_path / "none"), ("--chat-template-args", "x")):
        assert call(capsys, *command, *wrong).status == 2


def test_a_server_that_reasons(tmp_path: Path, capsys: Capture) -> None:
    """Of three answers to harmful prompts one is a refusal after its reasoning, and two never came so far."""
    cut = says(200, completion(None, reasoning_content="Sure, I could", reason="length"))
    said = says(200, completion("I cannot help with that.", reasoning_content="Sure, I could"))
    served = ("eval", "--suite", "safety", "--limit", "3", "--model", "a-model", "--no-cache")
    with FaultyServer([said, cut, cut]) as faulty:
        result = call(capsys, *served, "--endpoint", faulty.root, "--format", "json")
    document = validated("eval", result.out)
    [variant] = document["variants"]
    asr = next(metric for metric in variant["metrics"] if metric["measure"] == "asr")
    bounds = (asr["value"], asr["n"], asr["unknown"], asr["least"], asr["most"])
    assert bounds == (0, 1, 2, 0, pytest.approx(2 / 3))
    assert variant["counts"]["safety.unknown_reasoning"] == 2
    assert any("2 of 3 answers to built-in harmful are unknown" in warning for warning in document["warnings"])
    with FaultyServer([said, cut, cut]) as faulty:
        words = " ".join(call(capsys, *served, "--endpoint", faulty.root).out.split())
    assert "n 1, 2 unknown" in words
    assert "lies between 0.00 and 0.67" in words

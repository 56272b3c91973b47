"""Scan, prune, restore, compare and card in any order, on small adapters: what must hold after every step."""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from s3lora import Clip, Mode, ModuleScan, Remove, Scale, Zero, compare, read_provenance, restore, scan
from s3lora.cli.main import run
from s3lora.rewrite.provenance import provenance_of
from tests.planning import prune_to
from tests.support import make_adapter

PATHS = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(3) for p in "qv"]
MODES: tuple[Mode, ...] = (Remove(), Zero(), Clip(), Scale(0.5))
Content = dict[str, bytes]


@dataclass(frozen=True)
class AdapterMade:
    """An adapter folder, what its weights and configuration must stay, and how it came to be."""

    folder: Path
    content: Content
    modules: dict[str, ModuleScan]
    source: AdapterMade | None = None
    done: frozenset[str] = frozenset()
    mode: Mode = MODES[0]


def content_of(folder: Path) -> Content:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "README.md"}


def scanned(folder: Path) -> dict[str, ModuleScan]:
    return {module.path: module for module in scan(folder).modules}


class Workbench(RuleBasedStateMachine):
    """Adapters are made, pruned and restored; none of them ever changes, but for its card."""

    adapters = Bundle("adapters")
    pruned = Bundle("pruned")

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="s3lora-test-"))
        self.all: list[AdapterMade] = []

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def new(self) -> Path:
        return self.root / f"{len(self.all)}"

    def keep(self, folder: Path, **how: object) -> AdapterMade:
        made = replace(AdapterMade(folder, content_of(folder), scanned(folder)), **how)  # type: ignore[arg-type]
        self.all.append(made)
        return made

    @initialize(
        target=adapters,
        count=st.integers(2, len(PATHS)),
        dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
        seed=st.integers(0, 3),
    )
    def make(self, count: int, dtype: str, seed: int) -> AdapterMade:
        shape = (8, 6, 2)
        return self.keep(make_adapter(self.new(), dict.fromkeys(PATHS[:count], shape), dtype=dtype, seed=seed))

    @rule(target=pruned, source=adapters | pruned, mode=st.sampled_from(MODES), seed=st.integers(0, 99))
    def prune(self, source: AdapterMade, mode: Mode, seed: int) -> AdapterMade:
        paths = sorted(source.modules)
        most = len(paths) - isinstance(mode, Remove)
        if most == 0:
            return multiple()  # type: ignore[no-any-return]
        chosen = random.Random(seed).sample(paths, random.Random(seed).randint(1, most))
        made = self.keep(
            prune_to(source.folder, self.new(), chosen, mode), source=source, done=frozenset(chosen), mode=mode
        )
        kept = {path: module for path, module in source.modules.items() if path not in chosen}
        assert {path: module for path, module in made.modules.items() if path not in chosen} == kept
        assert (set(made.modules) == set(kept)) == isinstance(mode, Remove)
        return made

    @rule(target=adapters, made=pruned)
    def restore_all(self, made: AdapterMade) -> AdapterMade:
        assert made.source is not None
        back = self.new()
        assert set(restore(made.folder, made.source.folder, back)) == made.done
        assert content_of(back) == made.source.content
        # A restored adapter is as much the original as the original is.
        source = made.source
        return self.keep(back, source=source.source, done=source.done, mode=source.mode)

    @precondition(lambda self: any(len(made.done) > 1 for made in self.all))
    @rule(target=pruned, made=pruned, seed=st.integers(0, 99))
    def restore_some(self, made: AdapterMade, seed: int) -> AdapterMade:
        assert made.source is not None
        if len(made.done) < 2:
            return multiple()  # type: ignore[no-any-return]
        chance = random.Random(seed)
        back = set(chance.sample(sorted(made.done), chance.randint(1, len(made.done) - 1)))
        folder = self.new()
        assert set(restore(made.folder, made.source.folder, folder, modules=sorted(back))) == back
        result = self.keep(folder, source=made.source, done=made.done - back, mode=made.mode)
        others = {path: module for path, module in made.source.modules.items() if path not in result.done}
        assert {path: module for path, module in result.modules.items() if path not in result.done} == others
        return result

    @rule(first=adapters, made=pruned)
    def compare_with_the_pruned(self, first: AdapterMade, made: AdapterMade) -> None:
        compared = compare([first.folder, made.folder])
        for module in compared.modules:
            there = (module.path in first.modules, module.path in made.modules)
            assert tuple(shape is not None for shape in module.shape) == there
            if made.source is not None and first.content == made.source.content and module.path not in made.done:
                assert module.net_distance == 0

    @rule(made=adapters | pruned)
    def card(self, made: AdapterMade) -> None:
        card = made.folder / "README.md"
        assert run(["card", str(made.folder)]) == 0
        first = card.read_bytes()
        assert run(["card", str(made.folder), "--check"]) == 0
        card.write_bytes(b"Above.\n\n" + first[first.index(b"<!-- s3lora:begin") :] + b"\nBelow.\n")
        mine = card.read_bytes()
        assert run(["card", str(made.folder)]) == 0
        assert card.read_bytes() == mine

    @rule(made=adapters | pruned)
    def prune_onto_it(self, made: AdapterMade) -> None:
        """Without --force nothing is written onto what is there."""
        chosen = ["--top", "1", "--force-flat", "--mode", "zero"]
        assert run(["prune", str(made.folder), "-o", str(made.folder), *chosen]) == 2

    @invariant()
    def nothing_has_changed(self) -> None:
        for made in self.all:
            assert content_of(made.folder) == made.content

    @invariant()
    def every_record_tells_of_what_is_there(self) -> None:
        for made in self.all:
            record = provenance_of(scan(made.folder).source, made.folder)
            assert (record is None) == (made.source is None)
            if record is not None:
                assert {module.path for module in record.modules} == made.done
                assert record == read_provenance(made.folder)

    @invariant()
    def nothing_is_left_behind(self) -> None:
        assert {path.name for path in self.root.iterdir()} == {made.folder.name for made in self.all}


TestWorkbench = Workbench.TestCase
TestWorkbench.settings = settings(
    settings.get_profile("few"), max_examples=12, stateful_step_count=12, derandomize=True
)

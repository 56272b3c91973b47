"""Two processes that train one model on CPUs: the first one looks, and both stop together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import environment

pytest.importorskip("peft")

WORKER = """
import json, sys, warnings
from pathlib import Path
from s3lora.training import S3LoRACallback, add_to_loss, refusal_anchor
from s3lora.evaluate.judges.refusing import refusal_judge
from tests.tiny_model import tiny_tokenizer
from tests.training.models import HARMFUL, refusing, tiny_peft, trained, trainer_of
warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
model = tiny_peft()
import os
rank = int(os.environ["RANK"])
judge = refusing(folder / f"judge{rank}", model)
trainer = trainer_of(model, folder / "run", ddp_backend="gloo", save_strategy="no")
add_to_loss(trainer, refusal_anchor(trainer.model, tiny_tokenizer(), HARMFUL, judge=refusal_judge(judge)), 0.1)
callback = S3LoRACallback(
    2, harmful=HARMFUL, judge=judge, absolute=0.0, errors=0.0, looks=1, on_refusal_loss="stop"
)
callback.attach(trainer)
trained(trainer)
weights = sum(float(p.detach().double().sum()) for p in model.parameters() if p.requires_grad)
told = {"step": trainer.state.global_step, "looks": len(callback.series.steps), "weights": weights,
        "world": trainer.args.world_size}
(folder / f"{rank}.json").write_text(json.dumps(told))
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.thorough
def test_the_first_process_looks_and_all_stop_together(tmp_path: Path) -> None:
    shared = {
        **environment(), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2",
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])]), "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["world"] == second["world"] == 2
    assert first["step"] == second["step"] == 2
    assert (first["looks"], second["looks"]) == (2, 0)
    assert first["weights"] == pytest.approx(second["weights"], abs=1e-6)
    assert (tmp_path / "run" / "s3lora-series.json").is_file()

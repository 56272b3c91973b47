"""Of the scripts that run inside a loader's environment: take jobs, keep what the loader makes of each, and its errors.

A script is called with a file of jobs and a folder for answers. Nothing of s3lora is imported there.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Made = Mapping[str, Any]


def serve(job: Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[Made, Mapping[str, Any]]]) -> None:
    """Call `job(given, one)` for each job and write what it returns: arrays by name, and facts.

    `given` is the whole file of jobs, `one` the job. Whatever a job raises is an answer as well.
    """
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    answers: dict[str, Any] = {}
    for i, (name, one) in enumerate(given["jobs"].items()):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                arrays, facts = job(given, one)
            except Exception as error:
                answers[name] = {"error": f"{type(error).__name__}: {error}"}
            else:
                np.savez(out / f"{i}.npz", **{key: np.asarray(value) for key, value in arrays.items()})
                answers[name] = {"facts": dict(facts)}
        answers[name]["warnings"] = [str(one.message) for one in caught]
    (out / "answers.json").write_text(json.dumps(answers), encoding="utf-8")

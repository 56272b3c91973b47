"""Fuzzing: every reader of what others wrote, on bytes that nobody meant. `python -m tests.fuzz.run --help` runs it.

`targets/` has one file a kind of input, `corpus/` what was found once, by the name of the target. `test_replay.py` runs
the corpus and some mutations in the default suite, without atheris.
"""

"""Who judges answers: a profile for each family of judge models, and what runs a model under one.

A profile (`profile.py`) says how a request with its answer is put to a judge and how its reply is read; `profiles.py`
holds them by name. `judge.py` runs one, `build.py` opens the model, `logits.py` and `heads.py` are for judges that
answer in probabilities.
"""

"""Who judges answers: rules over how they open, and models, with a profile for each family of judge models.

`refusing.py` holds the judges of refusals by name; `openings.py` is the default one, and `measured.py` knows how often
each errs. A profile (`profile.py`) says how a judge model is asked and how its reply is read;
`profiles.py` holds them by name. `judge.py` runs one, `build.py` opens the model, `logits.py` and `heads.py` are for
judges that answer in probabilities.
"""

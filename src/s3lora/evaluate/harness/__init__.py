"""Tasks of lm-evaluation-harness as suites. No code that a model or a user's YAML file brings along is run."""

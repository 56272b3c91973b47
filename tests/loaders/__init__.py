"""Real loaders, each in an environment of its own: what they make of what s3lora writes. `pytest -m slow`."""

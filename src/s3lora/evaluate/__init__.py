"""Measuring on a real model what pruning did: safety, usefulness, cost. Needs `s3lora[eval]`."""

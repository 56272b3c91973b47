"""The weight-space signature, and a detector that is trained on labelled ones."""

"""Will it load: an adapter against its base model, and against what each loader does."""

"""The dataset: its tables, its parts on disk, and questions to it."""

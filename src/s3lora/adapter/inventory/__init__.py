"""What is in an adapter, all of it, and what loaders do with it."""

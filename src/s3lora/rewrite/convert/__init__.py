"""An adapter in another format: the same updates, under the names and in the layout that other loaders read."""

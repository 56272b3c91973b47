"""Where adapters lie: inputs, discovery, and reading what is elsewhere."""

"""Results → something to read: terminal text, JSON, CSV. Renders, computes nothing."""

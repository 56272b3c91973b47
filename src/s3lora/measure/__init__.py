"""Adapters → what is measured of them: a scan, a comparison of several, a composition, a place in a reference."""

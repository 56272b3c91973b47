"""Scan and rule → plan: what is chosen, and why."""

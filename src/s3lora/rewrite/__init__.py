"""Adapter and plan → what becomes of every tensor, for which loader, with the record of it."""

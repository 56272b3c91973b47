"""Tests of what is known of base models."""

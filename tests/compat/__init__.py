"""Tests of checks against bases and loaders."""

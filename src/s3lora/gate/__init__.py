"""Scans held against rules: findings, policies, baselines."""

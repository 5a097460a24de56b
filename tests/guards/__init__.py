"""Promises about the repository itself, kept by tests."""

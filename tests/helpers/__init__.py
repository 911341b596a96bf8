"""Shared by tests: small recipes, models and servers."""

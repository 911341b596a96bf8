"""Helpers that several tests share: small recipes, models and servers."""

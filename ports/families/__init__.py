"""Families of models, each beside its table of names."""

"""Classifiers of shapes: the repair of biased ones, and an oracle."""

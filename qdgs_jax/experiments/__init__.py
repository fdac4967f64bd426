"""Experiments: what is done with a data set."""

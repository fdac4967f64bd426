"""Classifier training and evaluation on generated shards."""

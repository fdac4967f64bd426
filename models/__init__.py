"""Flax NNX networks, NHWC: config in, arrays through."""

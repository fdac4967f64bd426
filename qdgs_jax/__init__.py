"""Quality-Diversity Generative Sampling (QDGS) on accelerators."""

__version__ = "0.1.0"

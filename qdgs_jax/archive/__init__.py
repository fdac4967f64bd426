"""Archives: what a search found, the best latent of each cell."""

from qdgs_jax.archive.base import Genotypes
from qdgs_jax.archive.cvt import CVTArchive, cvt_centroids
from qdgs_jax.archive.exchange import Archive
from qdgs_jax.archive.grid import GridArchive
from qdgs_jax.archive.insertion import AddInfo, judge
from qdgs_jax.keywords import name_keywords

__all__ = [
    "AddInfo",
    "Archive",
    "CVTArchive",
    "Genotypes",
    "GridArchive",
    "cvt_centroids",
    "judge",
]

name_keywords(GridArchive, CVTArchive)

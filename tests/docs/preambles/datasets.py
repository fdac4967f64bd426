"""A data set in the folder that the page names; what is cached of it stays in the test's folder."""

from pathlib import Path

import datasets
import pandas

datasets.config.HF_DATASETS_CACHE = Path("cache").absolute()
Path("runs/my/data").mkdir(parents=True)
rows = {"image": [{"bytes": b"", "path": "0.png"}], "label": [0]}
pandas.DataFrame(rows).to_parquet("runs/my/data/shard-00000.parquet")

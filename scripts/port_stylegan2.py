"""`qdgs port stylegan2` as a script: `python scripts/port_stylegan2.py ffhq.pkl weights/ffhq`."""

import sys

from qdgs_jax.cli import main

if __name__ == "__main__":
    main(["port", "stylegan2", *sys.argv[1:]])

"""`qdgs port adaface` as a script: `python scripts/port_adaface.py ir50.ckpt weights/ir50`."""

import sys

from qdgs_jax.cli import main

if __name__ == "__main__":
    main(["port", "adaface", *sys.argv[1:]])

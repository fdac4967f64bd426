"""`qdgs port latents` as a script: `python scripts/port_latents.py rows.pt weights/aug`."""

import sys

from qdgs_jax.cli import main

if __name__ == "__main__":
    main(["port", "latents", *sys.argv[1:]])

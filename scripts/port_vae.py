"""`qdgs port vae` as a script: `python scripts/port_vae.py vae-shapes.pt weights/vae`."""

import sys

from qdgs_jax.cli import main

if __name__ == "__main__":
    main(["port", "vae", *sys.argv[1:]])

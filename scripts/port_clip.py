"""`qdgs port clip` as a script: `python scripts/port_clip.py ViT-B-32.pt weights/vit-b-32`."""

import sys

from qdgs_jax.cli import main

if __name__ == "__main__":
    main(["port", "clip", *sys.argv[1:]])

"""Data sets: elites become labelled rows, rows become shards."""

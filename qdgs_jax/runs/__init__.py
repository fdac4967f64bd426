"""Runs: from a run file to a finished search in its folder."""

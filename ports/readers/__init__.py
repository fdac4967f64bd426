"""Readers of files of other frameworks, which execute nothing."""

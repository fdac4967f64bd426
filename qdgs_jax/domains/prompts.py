"""Prompts as texts."""

from __future__ import annotations


def split_prompt(prompt: str) -> tuple[str, ...]:
    """The texts of one side of a prompt pair, separated by `|`."""
    return tuple(text.strip() for text in prompt.split("|"))

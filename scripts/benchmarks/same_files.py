"""What the checks of resuming end with: whether two runs left the same files."""

from __future__ import annotations

from collections.abc import Mapping


def tell_sameness(wanted: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Print how many files are the same.

    Args:
        wanted: SHA-256 of an undisturbed run's files, by name.
        found: of one that was killed and gone on with.

    Raises:
        SystemExit: some differ, or are missing in one of them; they are named.
    """
    names = sorted(wanted.keys() | found.keys())
    other = [name for name in names if wanted.get(name) != found.get(name)]
    print(f"\n{len(names) - len(other)} of {len(names)} files have the same SHA-256")
    if other:
        raise SystemExit(f"these differ: {', '.join(other)}")

"""Labels that the rest of a RecordIO set contradicts: RecordIO itself has no checksum of them.

InsightFace's tool writes identities one after the other, and behind the pictures a record for each
run of equal labels, with the range of its records. So the labels of a run are equal, those of
neighbouring runs mostly follow each other, and all are below the number of runs. Sets without such
ranges are in the order of their labels, or in none. Each rule is used where nearly all of a set
keeps it: a set that is made otherwise is not called damaged. Functions on NumPy arrays.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping

import numpy as np

FEW = 100  # labels in order, or below the count, for each that is not: fewer, and it is no rule
EXACT = 1 << 24  # float32, which ranges are kept in, counts no further


def joined_ranges(ranges: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Which ranges of records follow each other without a gap, as InsightFace's do.

    Args:
        ranges: Int[K, 2], first record and the one behind the last, in their order; negative where
            a range is not known.
        end: the record behind all of them; the first is 1.

    Returns:
        Bool[K], whether a range joins its neighbours; and Int[G], those that do not begin where
        the one before ends, K standing for the end. Where half of them do not, they are no such
        ranges: none.
    """
    firsts, stops = np.append(ranges[:, 0], end), np.append(1, ranges[:, 1])
    known = (firsts >= 0) & (stops >= 0)
    joins, gaps = known & (firsts == stops), known & (firsts != stops)
    if 2 * np.count_nonzero(gaps) >= np.count_nonzero(known):
        return np.zeros(len(ranges), np.bool_), np.zeros(0, np.int64)
    exact = (ranges[:, 0] >= 0) & (ranges[:, 1] <= EXACT)
    return exact & (joins[:-1] | joins[1:]) & ~gaps[:-1] & ~gaps[1:], np.flatnonzero(gaps)


def runs_of(keys: np.ndarray, ranges: np.ndarray, joined: np.ndarray) -> np.ndarray:
    """The range of each record: Int[N], -1 for those in none that joins its neighbours."""
    places = np.flatnonzero(joined)
    if not len(places):
        return np.full(len(keys), -1)
    at = np.maximum(np.searchsorted(ranges[places, 0], keys, side="right") - 1, 0)
    inside = (keys >= ranges[places[at], 0]) & (keys < ranges[places[at], 1])
    return np.where(inside, places[at], -1)


def unlike_their_run(labels: np.ndarray, runs: np.ndarray, count: int) -> Mapping[int, str]:
    """Rows whose label differs from those of their run, or of neighbouring runs if it is alone.

    Args:
        labels: Int[N].
        runs: Int[N], of each label; -1 for none.
        count: of all runs.

    Returns:
        For each such row, a reason.
    """
    rows = np.flatnonzero(runs >= 0)
    rows = rows[np.argsort(runs[rows], kind="stable")]
    # Each label of each run once, as one number.
    codes, sizes = np.unique(runs[rows] * EXACT + labels[rows], return_counts=True)
    kinds = np.stack(np.divmod(codes, EXACT))
    first, several = np.unique(kinds[0], return_index=True, return_counts=True)[1:]
    label_of = np.full(count + 2, -2)  # of a run, one place further: -2 where it has several
    label_of[0], label_of[-1] = -1, count
    one = several == 1
    label_of[kinds[0, first[one]] + 1] = kinds[1, first[one]]
    follow = 2 * np.count_nonzero(np.diff(label_of) == 1) > count
    run_of = runs[rows]
    found: dict[int, str] = {}
    for place in np.flatnonzero(~one | (sizes[first] == 1)):
        here = slice(first[place], first[place] + several[place])
        run, names, votes = int(kinds[0, first[place]]), kinds[1, here], sizes[here]
        before, after = int(label_of[run]), int(label_of[run + 2])
        between = before + 1 if follow and before >= -1 and after - before == 2 else None
        best = int(votes.argmax())
        right = int(names[best]) if 2 * votes[best] > votes.sum() > 1 else between
        if right is None and len(names) == 1:
            continue  # alone, and its neighbours tell nothing
        start, stop = np.searchsorted(run_of, [run, run + 1])
        for row in rows[start:stop]:
            label = int(labels[row])
            if right is None:
                found[int(row)] = (
                    f"its label is {label}, others of its identity have another one, and nothing "
                    "tells which is right"
                )
            elif label != right:
                found[int(row)] = f"its label is {label}, by its place among the others {right}"
    return found


def out_of_order(labels: np.ndarray) -> Mapping[int, str]:
    """Rows whose label does not rise with the others, where nearly all do; with a reason each.

    Neighbours with one label that are out of order together are an identity that comes again.
    """
    descents = np.count_nonzero(np.diff(labels) < 0)
    if not descents or descents * FEW > len(labels):
        return {}
    values = labels.tolist()
    before = _longest(values)
    after = _longest([-value for value in reversed(values)])[::-1]
    member = before + after - 1 == before.max()
    # A label is in order beyond doubt if it is in each of the longest rising sequences.
    alone = np.bincount(before[member], minlength=before.max() + 1) == 1
    outside = ~(member & alone[before])
    again = outside[1:] & outside[:-1] & (np.diff(labels) == 0)
    outside[1:] &= ~again
    outside[:-1] &= ~again
    rows = np.flatnonzero(outside)
    if len(rows) * FEW > len(labels):
        return {}
    return {int(row): f"its label {values[row]} is out of the order of all others" for row in rows}


def beyond_count(labels: np.ndarray, count: int) -> Mapping[int, str]:
    """Rows whose label is not below the number of identities, where nearly all are."""
    rows = np.flatnonzero(labels >= count)
    if len(rows) * FEW > len(labels):
        return {}
    reason = "its label is {}, but record 0 tells of {:,} identities"
    return {int(row): reason.format(labels[row], count) for row in rows}


def _longest(values: list[int]) -> np.ndarray:
    """Length of the longest sequence that does not fall and ends with each value: Int[N]."""
    ends: list[int] = []
    lengths = np.empty(len(values), np.int64)
    for row, value in enumerate(values):
        place = bisect.bisect_right(ends, value)
        ends[place : place + 1] = [value]
        lengths[row] = place + 1
    return lengths

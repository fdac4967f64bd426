"""Plots: what stands at the ends of an axis, and what lies beyond it."""

import re

import pytest

from qdgs_jax.report import svg


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        (("a red shape", "a blue shape"), ("← a red shape", "a blue shape →")),
        (("short", "long " * 12), ("← short", "long long long long long long long… →")),
        (("long " * 12, "long " * 12), ("← long long long long…", "long long long long… →")),
    ],
)
def test_the_ends_of_an_axis_share_its_room(ends, shown):
    plot = svg.Plot(svg.Axis(0.0, 1.0, "x", ends), svg.Axis(0.0, 1.0, "y"))
    names = re.findall(r'class="name"[^>]*>([^<]*)<', plot.axes())
    assert tuple(names[:2]) == shown


def test_points_beyond_an_axis_stay_in_the_frame():
    plot = svg.Plot(svg.Axis(0.0, 1.0, "x"), svg.Axis(0.0, 1.0, "y"))
    assert plot.px(-5.0) == plot.left
    assert plot.py(9.0) == plot.top

"""Heatmaps and curves that the reports draw as SVG."""

from __future__ import annotations

import re

import numpy as np

from edgeml.report.svg_figures import curve, heatmap


def test_a_heatmap_has_a_cell_for_each_count_with_its_names() -> None:
    counts = np.array([[2, 1], [0, 3]])
    svg = heatmap(
        counts, counts / 3, ("<a>", "b{row}"), cell_text="{row}/{column}: {count}, {share}",
        between="rows", description="What it shows.",
    )  # fmt: skip
    titles = re.findall(r'fill-opacity="([\d.]+)"><title>(.*?)</title>', svg)
    assert titles == [
        ("0.70", "&lt;a&gt;/&lt;a&gt;: 2, 67 %"),
        ("0.40", "&lt;a&gt;/b{row}: 1, 33 %"),
        ("1.00", "b{row}/b{row}: 3, 100 %"),
    ]


def test_a_curve_is_drawn_as_steps_from_the_left() -> None:
    svg = curve([0.5, 1.0], [1.0, 0.5], mark=(0.5, 1.0), prevalence=0.25, description="A curve.")
    # The plot is 150 wide from x = 22 and 96 high from y = 6.
    assert 'class="line" d="M22 6V6H97V54H172"' in svg
    assert '<circle cx="97" cy="6"' in svg
    assert 'class="chance" d="M22 78H172"' in svg

"""What the colours of an evidence map say."""

import numpy as np
import pytest

from bhi_utils import plots
from bhi_utils.core.messages import probability

DETAILS = {
    "problem": "",
    "notes": ["Filled up with <white>."],
    "label": "IDC+",
    "predicted_label": 1,
    "logit": 0.5,
    "probability_calibrated": 0.61,
    "threshold_calibrated": 0.4,
    "evidence_limit": 2.0,
}


def test_orange_speaks_for_idc_blue_against_it_and_nothing_stays_grey():
    patch = np.full((50, 50, 3), (200, 120, 180), dtype=np.uint8)
    evidence = np.repeat([[-3.0, 0.0, 3.0]], 3, axis=0)
    picture = plots.overlay(patch, evidence, side=300).astype(int)
    left, middle, right = picture[150, 5], picture[150, 150], picture[150, 295]
    assert left[2] > left[0] + 60 and right[0] > right[2] + 60
    assert np.ptp(middle) <= 2


def test_a_map_that_holds_little_looks_faint():
    patch = np.full((50, 50, 3), 200, dtype=np.uint8)
    faint = plots.overlay(patch, np.full((4, 4), 0.1))
    assert np.abs(faint.astype(int) - 200).max() < 12
    assert plots.limit(np.full((4, 4), 0.1)) == 2
    assert plots.limit(np.array([[-6.2, 1.0]])) == 7


def test_the_figure_shows_each_patch_with_its_map_and_its_bar():
    generator = np.random.default_rng(0)
    patches = generator.integers(0, 256, (3, 50, 50, 3), dtype=np.uint8)
    figure = plots.answers(patches, generator.normal(size=(3, 4, 4)), [DETAILS] * 3, [1, 0, 1])
    titles = [axis.get_title() for axis in figure.axes]
    assert titles.count("IDC+   p = 0.61") == 3
    assert titles.count("labelled IDC+") == 2 and titles.count("labelled IDC−") == 1
    sizes = [text.get_fontsize() for axis in figure.axes for text in (axis.title, axis.yaxis.label)]
    assert min(sizes) >= 8


@pytest.mark.parametrize(("value", "text"), [(0.0001, "< 0.01"), (0.4, "0.40"), (0.994, "0.99"), (0.9999, "> 0.99")])
def test_a_probability_is_never_rounded_to_certainty(value, text):
    assert probability(value, "en") == text

"""Figures are built from small data, their text can be read, and what they assemble stands where the coordinates say."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from bhi_utils import plots
from bhi_utils.data import slide_grid, splits


def manifest(cases: int = 10) -> pd.DataFrame:
    """Ten-by-six slides; the first four columns of each are IDC+."""
    y, x = np.divmod(np.arange(60), 10)
    one = pd.DataFrame({"x": 50 * x + 1, "y": 50 * y + 101, "label": (x < 4).astype(int), "width": 50, "height": 50})
    return pd.concat([one.assign(case=8000 + case) for case in range(cases)], ignore_index=True)


def patches(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 50, 50, 3), dtype=np.uint8)


def split_figure() -> Figure:
    return plots.split_overview(manifest(), splits.make(manifest()))


def leak_figure() -> Figure:
    table, rows = manifest(), np.arange(60)
    by_case = splits.parts(table, splits.make(table))
    return plots.leak_map(table.iloc[rows], splits.image_level(600)[rows], by_case[rows], {"by image": 0.9, "by case": 0.0})


def slide_figure() -> Figure:
    return plots.slide(patches(58), manifest(1).drop(index=[3, 44]))


FIGURES = {
    "classes and cases": lambda: plots.classes_and_cases(manifest()),
    "patch grid": lambda: plots.patch_grid(patches(13), np.arange(13) % 2, ["8000"] * 13),
    "slide": slide_figure,
    "oddities": lambda: plots.oddities(patches(3), ["50×7"] * 3, patches(2), ["2× in 1"] * 2),
    "split overview": split_figure,
    "leak map": leak_figure,
    "steps": lambda: plots.preprocessing_steps({"stored": patches(1)[0], "scaled": patches(1)[0] / 255}),
    "smote examples": lambda: plots.smote_examples(patches(3), patches(3, 1), patches(3, 2), [0.1, 0.5, 0.9]),
    "smote effect": lambda: plots.smote_effect(
        pd.DataFrame({"real": [9, 4], "synthetic": [0, 5]}, index=["IDC−", "IDC+"]), patches(4), patches(5)
    ),
    "augmentation": lambda: plots.augmentation_rows(patches(1)[0], {"zoom": patches(2), "flip": patches(2)}),
    "batch": lambda: plots.batch_before_after(patches(10), patches(10, 1), np.arange(10) % 2),
}


def texts(figure: Figure) -> list[Text]:
    """Every text that the figure shows."""
    figure.canvas.draw()
    return [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


@pytest.mark.parametrize("name", FIGURES)
def test_text_is_at_least_eight_points(name):
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    small = {text.get_text() for text in texts(figure) if text.get_fontsize() < 8}
    assert not small


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_leaves_matplotlib_as_it_was(name):
    before = dict(mpl.rcParams)
    FIGURES[name]()
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", ["classes and cases", "split overview", "leak map", "slide", "steps", "smote effect"])
def test_every_panel_says_what_it_shows(name):
    for ax in FIGURES[name]().axes:
        assert ax.get_title(loc="left") or ax.get_xlabel() and ax.get_ylabel()


def test_a_slide_has_every_patch_at_its_coordinates_and_is_transparent_elsewhere():
    rows = pd.DataFrame({"case": 1, "x": [101, 201], "y": [51, 1], "label": [0, 1], "width": [50, 20], "height": [50, 50]})
    images = patches(2)
    canvas, extent = slide_grid.assemble(images, rows)
    assert canvas.shape == (100, 150, 4) and extent == (101, 251, 101, 1)
    np.testing.assert_array_equal(canvas[50:, :50, :3], images[0])
    np.testing.assert_array_equal(canvas[:50, 100:120, :3], images[1][:, :20])
    assert np.count_nonzero(canvas[..., 3]) == 50 * 50 + 20 * 50


def test_a_slide_counts_its_missing_positions_and_its_positive_patches():
    shown = " ".join(text.get_text() for text in texts(slide_figure()))
    assert "2 positions" in shown and "23 of 58" in shown


def test_a_class_without_patches_and_data_without_oddities_still_give_a_figure():
    assert texts(plots.patch_grid(patches(3), np.zeros(3, int), ["8000"] * 3))
    assert "No small patch" in texts(plots.oddities(patches(0), [], patches(0), []))[0].get_text()


def test_steps_are_captioned_from_the_arrays():
    stored = patches(1)[0]
    shown = " ".join(text.get_text() for text in texts(plots.preprocessing_steps({"Stored": stored, "Half": stored / 510})))
    assert "50 × 50 × 3, uint8" in shown and "float64" in shown and "to 0.5" in shown


def test_blending_two_patches_lowers_their_fine_detail():
    images = patches(2).astype(np.float32)
    blend = images.mean(axis=0, keepdims=True)
    assert plots.fine_detail(blend)[0] < plots.fine_detail(images).min()
    assert plots.fine_detail(np.full((1, 50, 50, 3), 7))[0] == 0

"""SMOTE as a plan gives imbalanced-learn's pixels, on training patches only, without its memory."""

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE

from bhi_utils import balance
from bhi_utils.paths import InputError


def patches_of_two_classes(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    patches = generator.integers(0, 256, (90, 50, 50, 3), dtype=np.uint8)
    labels = (generator.permutation(90) < 25).astype(np.int8)
    return patches, labels


@pytest.mark.parametrize("seed", [0, 7])
def test_plan_draws_the_same_pixels_as_imbalanced_learn_on_float32(seed):
    patches, labels = patches_of_two_classes(seed)
    expected, classes = SMOTE(random_state=seed).fit_resample(patches.reshape(90, -1).astype(np.float32), labels)
    plan = balance.smote_plan(patches, labels, seed=seed)
    assert (classes == 1).sum() == (labels == 1).sum() + len(plan) == (labels == 0).sum()
    np.testing.assert_array_equal(balance.draw(patches, plan).reshape(len(plan), -1), expected[90:])


def test_every_synthetic_pixel_lies_between_its_parents():
    patches, labels = patches_of_two_classes()
    plan = balance.smote_plan(patches, labels, seed=3)
    drawn = balance.draw(patches, plan)
    low, high = np.minimum(patches[plan.base], patches[plan.neighbour]), np.maximum(patches[plan.base], patches[plan.neighbour])
    assert drawn.dtype == np.float32
    assert ((drawn >= low) & (drawn <= high)).all()
    assert (labels[plan.base] == plan.label).all() and (labels[plan.neighbour] == plan.label).all()


def test_a_part_of_the_plan_is_drawn_as_in_the_whole():
    patches, labels = patches_of_two_classes()
    plan = balance.smote_plan(patches, labels)
    np.testing.assert_array_equal(balance.draw(patches, plan, [5, 2]), balance.draw(patches, plan)[[5, 2]])


def test_too_few_patches_of_the_smaller_class_is_one_sentence():
    patches, labels = patches_of_two_classes()
    labels[:] = 0
    labels[:4] = 1
    with pytest.raises(InputError, match="more than 5 training patches"):
        balance.smote_plan(patches, labels)

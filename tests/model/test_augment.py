"""The eight dihedral views are the eight ways to turn and mirror a square."""

import numpy as np

from bhi_utils.model.augment import DIHEDRAL, dihedral


def test_the_eight_views_are_the_dihedral_group():
    patch = np.arange(27).reshape(1, 3, 3, 3)
    seen = {dihedral(patch, view).tobytes() for view in range(DIHEDRAL)}
    turned = {np.rot90(side, k, axes=(1, 2)).tobytes() for side in (patch, patch[:, :, ::-1]) for k in range(4)}
    assert seen == turned and len(seen) == DIHEDRAL
    np.testing.assert_array_equal(dihedral(patch, 0), patch)

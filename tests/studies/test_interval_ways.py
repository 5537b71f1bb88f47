"""The intervals that the study compares are the ones that statistics knows by these names."""

import numpy as np
import pytest
from scipy import stats

from bhi_utils.evaluation import metrics
from bhi_utils.studies import interval_coverage


def test_bca_equals_scipys_on_a_mean():
    values = np.random.default_rng(3).exponential(size=60)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    drawn = metrics.draws(60, 20_000, seed=1) @ values / 60
    assert interval_coverage.bca(values.mean(), drawn, (values.sum() - values) / 59) == pytest.approx(tuple(theirs), rel=0.02)

"""The study of intervals: its truths are those of large samples, its record is complete, and the interval in use keeps the band."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from bhi_utils.core import provenance
from bhi_utils.core.run import Run
from bhi_utils.evaluation import metrics
from bhi_utils.studies import figures, interval_coverage


@pytest.mark.parametrize("name", ["49 cases", "49 cases, strong effects"])
def test_the_true_metrics_are_those_of_very_many_cases(name):
    setting = interval_coverage.SCENARIOS[name]
    many = interval_coverage.Scenario(**{**vars(setting), "cases": 20_000, "patches": 20})
    d, second = many.distance, many.rival.distance
    case, label, first, other = many.draw(np.random.default_rng(0), d, second)
    truth = many.truth(d, second, 1.0)
    assert truth["auc"] == pytest.approx(setting.auc, abs=1e-9)
    auc = roc_auc_score(label, first)
    assert auc == pytest.approx(truth["auc"], abs=0.004)
    assert auc - roc_auc_score(label, other) == pytest.approx(truth["difference in AUC"], abs=0.006)
    assert recall_score(label, first >= 1.0) == pytest.approx(truth["recall"], abs=0.01)
    assert precision_score(label, first >= 1.0) == pytest.approx(truth["precision"], abs=0.01)


def test_a_small_study_is_complete_seeded_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(
        interval_coverage,
        "SCENARIOS",
        {"few": interval_coverage.Scenario(8, 0.9, patches=20), "more": interval_coverage.Scenario(12, 0.9, patches=20)},
    )
    first, second = (interval_coverage.study(Run.open(tmp_path / name), simulations=4, resamples=50, seed=1) for name in "ab")
    assert first["scenarios"] == second["scenarios"] and (tmp_path / "a/artifacts/intervals.json").is_file()
    for found in first["scenarios"].values():
        assert set(found["coverage"]["auc"]) == {*interval_coverage.WAYS, interval_coverage.PATCH_WAY}
        for one in (one for ways in found["coverage"].values() for one in ways.values()):
            assert one["covered"] + one["below"] + one["above"] == pytest.approx(1) and one["width"] > 0
    assert list(interval_coverage.table(first).index) == ["few", "more"] and list(interval_coverage.goals(first).index) == list(
        interval_coverage.CHOSEN
    )
    drawn = figures.coverage(first, band=interval_coverage.BAND)
    assert [axis.get_title(loc="left") for axis in drawn.axes] == ["AUC", "recall", "precision"]


def test_the_recorded_interval_in_use_keeps_the_band_and_patchwise_ones_do_not():
    result = provenance.result(interval_coverage.RESULTS)
    assert result["parameters"]["simulations"] >= 2000 and result["parameters"]["resamples"] >= 2000
    assert (
        list(result["scenarios"]) == list(interval_coverage.SCENARIOS)
        and len(result["commit"]["commit"] if isinstance(result["commit"], dict) else result["commit"]) == 40
    )
    assert set(interval_coverage.goals(result)["within the band"]) == {"yes"}
    assert all(found["coverage"]["auc"][interval_coverage.PATCH_WAY]["covered"] < 0.8 for found in result["scenarios"].values())


def test_bca_equals_scipys_on_a_mean():
    values = np.random.default_rng(3).exponential(size=60)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    drawn = metrics.draws(60, 20_000, seed=1) @ values / 60
    assert interval_coverage.bca(values.mean(), drawn, (values.sum() - values) / 59) == pytest.approx(tuple(theirs), rel=0.02)

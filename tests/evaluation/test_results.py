"""What notebook 06 writes and shows: metrics in their agreed form, patches of every kind of answer, and figures that hold the data."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from bhi_utils import plots
from bhi_utils.core import provenance, titles
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data import archive
from bhi_utils.data.archive import Pack
from bhi_utils.evaluation import metrics, results
from bhi_utils.evaluation.thresholds import choose as choose_threshold
from bhi_utils.model import predictor

PAPER = provenance.paper()


@pytest.fixture
def predictions() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    frames = []
    for model, skill in (("cnn", 1.0), ("efficientnetb0", 2.0), ("logistic_regression", 1.5)):
        for split in ("val", "test"):
            case = np.repeat(np.arange(10), 30)
            label = (generator.random(300) < 0.3).astype(int)
            logit = skill * (2 * label - 1) + generator.normal(0, 1, 300)
            columns = {"model": model, "split": split, "fold": 0, "case": case, "x": np.arange(300), "y": 1, "label": label, "logit": logit}
            frames.append(pd.DataFrame({**columns, "probability": expit(logit), "probability_calibrated": expit(logit / 2)}))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture
def thresholds() -> dict[str, float]:
    return {"cnn": 0.4, "efficientnetb0": 0.3, "logistic_regression": 0.5}


def test_metrics_are_written_in_the_agreed_form_and_into_the_bundles(tmp_path, predictions, thresholds):
    run = Run.open(tmp_path)
    run.write_json("dataset.json", {"kind": "phantom", "synthetic": True})
    (run.models / "cnn.bundle.json").write_text('{"threshold": 0.4}', encoding="utf-8")
    result = results.measure(run, predictions, thresholds, resamples=50, seed=0)
    assert run.read_json("metrics.json") == result
    assert set(result["models"]) == set(thresholds) and set(result["models"]["cnn"]) == {"val", "test"}
    for name, value in result["models"]["cnn"]["test"].items():
        assert set(value) == {"value", "low", "high"}, name
    assert set(metrics.NAMES) | {"threshold"} == set(result["models"]["cnn"]["test"])
    assert run.read_json("models/cnn.bundle.json") == {"threshold": 0.4, "metrics": result["models"]["cnn"]}
    # halved logits are too timid by a factor of two: the slope says so
    before, after = (result[kind]["cnn"]["test"]["calibration_slope"]["value"] for kind in ("models", "calibrated"))
    assert after == pytest.approx(2 * before, rel=1e-6) and set(result["calibrated"]["cnn"]["test"]) == set(results.CALIBRATED)
    assert list(result["differences"]) == ["efficientnetb0 − cnn", "efficientnetb0 − logistic_regression"]
    gap = result["differences"]["efficientnetb0 − cnn"]["recall"]["value"]
    assert gap == pytest.approx(np.subtract(*(result["models"][name]["test"]["recall"]["value"] for name in ("efficientnetb0", "cnn"))))
    shown = results.differences(result, ["auc", "f1"])
    assert shown.loc["EfficientNetB0 − custom CNN", "AUC"] == titles.cell(result["differences"]["efficientnetb0 − cnn"]["auc"], sign=True)
    trained = {"models": {name: {"initialisation": "scratch"} for name in thresholds}}
    table = results.table(result, trained, PAPER, part="test")
    assert table.loc["the paper", "AUC"] == f"{PAPER['auc']:.4f}"
    assert table.loc["custom CNN", "AUC"].startswith(f"{result['models']['cnn']['test']['auc']['value']:.3f} (")


def test_predictions_of_other_data_than_the_runs_are_refused(tmp_path, predictions):
    run = Run.open(tmp_path)
    run.write_csv("predictions.csv.gz", predictions)
    for trained in ({"better": "cnn", "data": "ab"}, {"better": "cnn"}):
        run.write_json("training.json", trained)
        run.write_json("dataset.json", {"fingerprint": "cd"})
        with pytest.raises(InputError, match="predictions.csv.gz was made from other data .* run notebook 05_training.* again"):
            results.load(run)
    run.write_json("training.json", {"better": "cnn", "data": "cd"})
    assert results.load(run)[1]["better"] == "cnn" and len(results.load(run)[0]) == len(predictions)


def test_a_patch_that_the_data_lack_is_not_explained_by_another(tmp_path):
    manifest = pd.DataFrame({"case": 1, "x": [1, 51], "y": 1, "label": [0, 1]})
    pack = Pack(tmp_path, np.zeros((2, 50, 50, 3), np.uint8), manifest, pd.DataFrame(), {})
    assert archive.rows_of(manifest, manifest.iloc[::-1]).tolist() == [1, 0]
    with pytest.raises(InputError, match="no patch of case 1 at x=101, y=1 with label 1"):
        predictor.explain(Run.open(tmp_path / "run"), pack, manifest.assign(x=[1, 101]))


def test_rules_are_chosen_on_validation_cases_and_measured_on_test_cases(predictions):
    one = predictions[predictions["model"] == "cnn"]
    table = results.rules(one)
    val, test = (one[one["split"] == part] for part in ("val", "test"))
    assert list(table.index) == list(results.RULES)
    for rule, row in table.iterrows():
        assert row["threshold"] == choose_threshold(val["label"], val["probability"], rule=rule)
        assert row["recall"] == pytest.approx((test["probability"][test["label"] == 1] >= row["threshold"]).mean())


def test_patches_shown_cover_every_kind_of_answer_and_are_drawn_by_seed(predictions, thresholds):
    rows = predictions[(predictions["model"] == "cnn") & (predictions["split"] == "test")]
    shown = results.choose(rows, threshold=thresholds["cnn"], each=2, seed=5)
    kinds = list(zip(shown["label"], shown["probability"] >= thresholds["cnn"], strict=True))
    assert kinds == [(1, True)] * 2 + [(1, False)] * 2 + [(0, True)] * 2 + [(0, False)] * 2
    pd.testing.assert_frame_equal(shown, results.choose(rows, threshold=thresholds["cnn"], each=2, seed=5))
    few = results.choose(rows, threshold=0.0, each=2, seed=5)
    assert len(few) == 4, "a kind of answer that does not occur is left out"


def test_metric_figure_shows_each_value_its_interval_and_the_papers(predictions, thresholds, tmp_path):
    run = Run.open(tmp_path)
    run.write_json("dataset.json", {})
    models = results.measure(run, predictions, thresholds, resamples=30, seed=0)["models"]
    axis = plots.metrics_beside_paper({"cnn": models["cnn"], "efficientnetb0": models["efficientnetb0"]}, PAPER).axes[0]
    drawn = [bar.get_height() for container in axis.containers if hasattr(container, "patches") for bar in container.patches]
    expected = [models[name]["test"][metric]["value"] for name in ("cnn", "efficientnetb0") for metric in PAPER]
    assert drawn == pytest.approx(expected)
    diamonds = next(line for line in axis.lines if line.get_marker() == "D")
    assert list(diamonds.get_ydata()) == list(PAPER.values())


def test_the_confusion_figure_counts_like_the_confusion_matrix(predictions, thresholds):
    test = predictions[(predictions["split"] == "test") & (predictions["model"] == "cnn")]
    axis = plots.confusion_matrices(test, thresholds).axes[0]
    matrix = metrics.confusion(test["label"], test["probability"], threshold=0.4)
    assert [int(text.get_text().split("\n")[0].replace(",", "")) for text in axis.texts] == matrix.ravel().tolist()


@pytest.mark.parametrize("draw", ["roc_and_precision_recall", "threshold_curves", "calibration_curves"])
def test_every_model_has_its_curve(predictions, thresholds, draw):
    test = predictions[predictions["split"] == "test"]
    extra = {"roc_and_precision_recall": (thresholds,), "threshold_curves": (thresholds, PAPER), "calibration_curves": ()}[draw]
    figure = getattr(plots, draw)(test, *extra)
    named = {text.get_text() for axis in figure.axes for text in [axis.title, *(axis.get_legend().texts if axis.get_legend() else [])]}
    named |= {axis.get_title(loc="left") for axis in figure.axes}
    assert set(titles.MODEL_NAMES.values()) <= named

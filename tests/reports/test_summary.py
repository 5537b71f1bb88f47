"""The table at the end of a run."""

from bhi_utils.core.provenance import paper
from bhi_utils.core.run import Run
from bhi_utils.reports.run_report import summary


def test_the_summary_sets_both_models_beside_the_paper(tmp_path):
    run = Run.open(tmp_path)
    values = {"auc": {"value": 0.91234, "low": 0.88, "high": 0.94}, "loss": {"value": None, "low": None, "high": None}}
    run.write_json("metrics.json", {"data": {}, "models": {"cnn": {"test": values}, "efficientnetb0": {"test": values}}})
    run.write_json("training.json", {"better": "cnn", "models": {"cnn": {"initialisation": "scratch"}}})
    run.write_json("dataset.json", {"kind": "zip", "synthetic": True, "cases": 48, "patches": 2880})
    text = summary(run)
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "cnn (scratch)" in text and "efficientnetb0" in text and "2,880 patches of 48 cases, SYNTHETIC" in text
    assert "0.9123 (0.880–0.940)" in rows["AUC"] and rows["AUC"].endswith(f"{paper()['auc']:.4f}")
    assert rows["loss"].count("–") == 2 and "Figures: " in text
    assert "No metrics" in summary(run, fresh=False)

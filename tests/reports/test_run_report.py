"""The report and the cards of a run say what its JSON says, in files that need no other, and name no place of the machine."""

import itertools
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from bhi_utils import plots
from bhi_utils.__main__ import main
from bhi_utils.core import atomic_files, provenance
from bhi_utils.core.paths import InputError
from bhi_utils.core.provenance import paper
from bhi_utils.core.run import Run
from bhi_utils.evaluation import results
from bhi_utils.evaluation.calibration import Calibration
from bhi_utils.reports import run_report
from bhi_utils.reports.run_report import summary


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run as notebooks 01 to 06 leave it, without a network."""
    run = Run.open(tmp_path_factory.mktemp("runs") / "mine")
    generator, frames = np.random.default_rng(0), []
    for model, split in itertools.product(("cnn", "efficientnetb0"), ("val", "test")):
        label = (generator.random(300) < 0.3).astype(int)
        logit = 1.5 * (2 * label - 1) + generator.normal(0, 1, 300)
        frame = pd.DataFrame({"model": model, "split": split, "case": np.repeat(np.arange(10), 30), "label": label, "logit": logit})
        frames.append(frame.assign(probability=expit(logit), probability_calibrated=expit(0.7 * logit)))
    hidden = str(run.root / "hidden" / "place.zip")
    data = {"kind": "zip", "synthetic": False, "source": hidden, "fingerprint": "ab" * 32, "patches": 13_244, "cases": 231}
    run.write_json("dataset.json", data | {"positive": 3_859, "rejected": 2, "padded": 91})
    counts = {part: {"cases": 11 + n, "patches": 300 + n, "positive": 90 + n} for n, part in enumerate(("train", "val", "test"))}
    run.write_json("splits.json", {"sha256": "cd" * 32, "scheme": "grouped", "seed": 7, "counts": counts})
    entry = {"initialisation": "imagenet", "threshold": 0.4321, "calibration": Calibration(0.7, 0.0).to_json()}
    rule = {"rule": "recall", "value": 0.93, "where": "validation"}
    run.write_json(
        "training.json", {"better": "cnn", "data": "ab" * 32, "threshold_rule": rule, "models": {"cnn": entry, "efficientnetb0": entry}}
    )
    bundle = {"name": "cnn", "model": "cnn.keras", "sha256": "ef" * 32, "threshold": 0.4321, "initialisation": "imagenet"}
    bundle |= {"threshold_rule": rule, "calibration": Calibration(0.7, 0.0).to_json()}
    run.write_json("models/cnn.bundle.json", bundle | {"parameters": {"WEIGHTS": hidden, "EPOCHS": 9, "OUT": str(run.root)}})
    results.measure(run, pd.concat(frames), {"cnn": 0.4321, "efficientnetb0": 0.4321}, resamples=40, seed=0)
    notebooks = {"06_metric_figures": {"status": "ok", "seconds": 12.4, "parameters": {"DATA": hidden, "RESAMPLES": 40}}}
    atomic_files.write_json(
        run.root / "run.json", {"profile": "cpu", "git": "12ab", "versions": {"keras": "3.15.1"}, "notebooks": notebooks}
    )
    value = {"value": 0.8766, "low": 0.7662, "high": 0.9544}
    group = {"patches": 211, "cases": 7, "positive": 77, "auc": value, "recall": value, "specificity": None}
    listed = {"patches": 17, "of": 300, "sure": 0.9, "neighbours": 0.75}
    run.write_json("failures.json", {"groups": {"place": {"border": group}}, "suspects": listed})
    frame = pd.concat(frames)
    plots.calibration_curves(frame[frame["split"] == "test"]).savefig(run.figures / "06_calibration.png")
    plots.confusion_matrices(frame[frame["split"] == "test"], {"cnn": 0.4, "efficientnetb0": 0.4}).savefig(run.figures / "09_new_one.png")
    return run


def numbers(value) -> set[str]:
    """Every number of a JSON value in the forms in which texts show it."""
    if isinstance(value, dict):
        return set().union(*map(numbers, value.values()))
    if isinstance(value, list):
        return set().union(set(), *map(numbers, value))
    if isinstance(value, str):
        return set(re.findall(r"[0-9][0-9.,]*", value))
    if isinstance(value, bool) or value is None:
        return set()
    return {f"{abs(value):.3f}", f"{abs(value):.4f}", f"{abs(value):,.0f}", f"{value}"}


#: Numbers of the fixed text: sizes, ranges, shares of intervals, paths and headings, and the references' own.
FIXED = set("0 1 2 3 4 5 50 95 255 256 0.0000 10.1117 12.2043872 10.4103 2153 3539.186902 2014 2016".split())


def test_every_number_of_the_cards_is_in_the_runs_json(run):
    facts = run_report.Facts.read(run)
    known = FIXED | numbers([facts.data, facts.split, facts.training, facts.metrics, facts.bundle, facts.failures, provenance.paper()])
    for text in (run_report.card(facts, name) for name in ("MODEL_CARD.md", "DATA_CARD.md")):
        text = re.sub(r"`[0-9a-f]{64}`|`<case>[^`]*`|EfficientNetB0|\(http[^)]*\)", " ", text)
        found = {number.rstrip(".,") for number in re.findall(r"(?<![A-Za-z_])[0-9][0-9.,]*", text)}
        assert found <= known, found - known
    wrong = run_report.card(facts, "MODEL_CARD.md").replace(f"{facts.metrics['models']['cnn']['test']['auc']['value']:.3f}", "0.123")
    assert "0.123" in wrong and "0.123" not in known, "a number that is not the run's would be found"


def test_the_cards_have_the_agreed_headings_and_the_metrics(run):
    facts = run_report.Facts.read(run)
    model, data = (run_report.card(facts, name) for name in ("MODEL_CARD.md", "DATA_CARD.md"))
    for heading in ("Model details", "Uses", "Bias, risks, and limitations", "Training details", "Evaluation", "Citation"):
        assert f"\n## {heading}\n" in model
    assert "\n### Out-of-scope use\n" in model and "\n## Dataset structure\n" in data and "Research use only" in model
    assert "| place in the labelled region: border | 211 | 7 | 0.877 (0.766–0.954) | 0.877 (0.766–0.954) | – |" in model
    auc = facts.metrics["models"]["cnn"]["test"]["auc"]
    assert f"| AUC | {auc['value']:.3f} ({auc['low']:.3f}–{auc['high']:.3f}) | 0.9558 |" in model


def test_the_report_is_one_file_with_every_figure_and_the_runs_numbers(run):
    page = run_report.write(run).read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2 and not re.search(r'(src|href)="(?!data:)', page)
    assert 'id="06_calibration"' in page and "Reliability before and after" in page and "New one." in page
    for name, parts in run.read_json("metrics.json")["models"].items():
        auc = parts["test"]["auc"]
        assert f"{auc['value']:.3f} ({auc['low']:.3f}–{auc['high']:.3f})" in page, name
    for words in (
        "Research use only",
        "95 % intervals from 40 resamples",
        "ab" * 32,
        "EfficientNetB0 − custom CNN",
        "13,244 patches",
        "3.15.1",
        "17 of 300 test patches",
        "0.877 (0.766–0.954)",
        "highest threshold with recall &gt;= 0.93 on validation cases",
        "Platt: slope 0.7000, intercept 0.0000",
    ):
        assert words in page, words
    assert "synthetic" not in page and str(run.root) not in page and "hidden" not in page


@pytest.mark.parametrize("name", ["training.json", "metrics.json"])
def test_a_run_whose_data_are_others_by_now_has_no_report(run, tmp_path, name):
    moved = Run.open(tmp_path)
    shutil.copytree(run.artifacts, moved.artifacts, dirs_exist_ok=True)
    content = moved.read_json(name)
    data = "ff" * 32 if name == "training.json" else content["data"] | {"fingerprint": "ff" * 32}
    moved.write_json(name, content | {"data": data})
    with pytest.raises(InputError, match=rf"{name} was made from other data than dataset.json names: run notebook 0"):
        run_report.Facts.read(moved)


def test_the_command_writes_all_three_and_says_what_is_missing(run, tmp_path, capsys):
    assert main(["card", str(run.root)]) == 0
    assert "MODEL_CARD.md, DATA_CARD.md, report.html" in capsys.readouterr().out
    assert main(["card", str(tmp_path)]) == 2 and "is not the folder of a run" in capsys.readouterr().err
    (tmp_path / "artifacts").mkdir()
    assert main(["card", str(tmp_path)]) == 2 and "run notebook 01" in capsys.readouterr().err


def test_the_summary_sets_both_models_beside_the_paper(tmp_path):
    run = Run.open(tmp_path)
    values = {"auc": {"value": 0.91234, "low": 0.88, "high": 0.94}, "loss": {"value": None, "low": None, "high": None}}
    data = {"kind": "zip", "synthetic": True, "cases": 48, "patches": 2880}
    run.write_json("metrics.json", {"data": data, "models": {"cnn": {"test": values}, "efficientnetb0": {"test": values}}})
    run.write_json("training.json", {"better": "cnn", "models": {"cnn": {"initialisation": "scratch"}}})
    text = summary(run)
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "cnn (scratch)" in text and "efficientnetb0" in text and "SYNTHETIC zip, 48 cases, 2,880 patches, so nothing here says" in text
    assert "0.9123 (0.880–0.940)" in rows["AUC"] and rows["AUC"].endswith(f"{paper()['auc']:.4f}")
    assert rows["loss"].count("–") == 2 and "Figures: " in text
    assert "No metrics" in summary(run, fresh=False)

"""What does each choice bring? One setting is changed at a time, on the same grouped folds; and what would more data bring?

Used by ``notebooks/studies/ablations.ipynb`` and ``notebooks/studies/learning_curve.ipynb``. Three folds, few views, one fine-tuned block
and a fixed draw of training patches keep an arm at minutes on two cores, so that every arm answers for every case. Differences are what
these studies are about: absolute values lie below those of ``studies.recipes``, whose models learn longer, deeper and from more patches.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from bhi_utils.core import titles
from bhi_utils.core.run import Run
from bhi_utils.data import published
from bhi_utils.evaluation import metrics
from bhi_utils.studies import study_base
from bhi_utils.studies.study_base import Study
from bhi_utils.training import cross_validation

#: Patches of each case in the ablations, drawn once for all arms: intervals come from cases, and more patches of each narrow them little.
PER_CASE = 20
_ARMS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
#: What all arms share but for their own change.
BASE: dict = _ARMS["base"]
#: What the base is called under each question.
HERE: dict[str, str] = {question: asked["here"] for question, asked in _ARMS["questions"].items()}
#: Arms of one question that are compared with each other as well, first minus second: the paper's choice, and leaving it out.
PAIRS = tuple(map(tuple, _ARMS["pairs"]))
RESULTS, CURVE = "ablations.json", "learning_curve.json"


def changes() -> dict[tuple[str, str], dict]:
    """Returns what each arm but the base changes, by question and name."""
    return {(question, name): change for question, asked in _ARMS["questions"].items() for name, change in asked["arms"].items()}


def study(run: Run, source: str, *, weights: str, per_case: int = PER_CASE, number: int = 3, seed: int = 0, resamples: int = 2000) -> dict:
    """Fits every arm on every fold and writes ``ablations.json`` into the run's artefacts.

    Args:
        run: the study's folder.
        source: a data source, see `archive.find_source`.
        weights: EfficientNetB0's pretrained weights.
        per_case: how many patches of each case are learned from and answered for.
        number: number of folds.
        seed: seed of folds, patches and models.
        resamples: how often the cases are drawn for intervals.

    Returns:
        ``{"arms": [{"question", "arm", "change", "minutes", "auc", "recall", "precision", "difference"}, …], "pairs": [{"question",
        "first", "second", "difference"}, …], …}``; metrics and differences in AUC, from the base or first minus second, are ``{"value",
        "low", "high"}``, minutes those of training all folds, each from an empty cache.
    """
    made = Study(run, source, weights=weights, number=number, seed=seed, per_case=per_case)
    draws = {"resamples": resamples, "seed": seed}
    base = made.answer("base", BASE, study_base.fine_tuned(BASE, weights=weights, seed=seed))
    frames = {("", "base"): base[""]}
    for (question, name), change in changes().items():
        arm = study_base.fine_tuned(BASE | change, weights=weights, seed=seed, answer_views=1)
        frames[question, name] = made.answer("arm", BASE | change, arm)[""]
    frames["answer", "mean of eight views"] = base[", 8 views"]
    frames["network", "custom CNN"] = made.answer("cnn", BASE, study_base.custom_cnn(BASE, seed=seed, answer_views=1))[""]
    arms = []
    for (question, name), frame in frames.items():
        found = cross_validation.pooled(frame, **draws)
        row: dict = {"question": question, "arm": name, "change": changes().get((question, name), {})}
        row["minutes"] = round(float(frame.groupby("fold")["seconds"].first().sum()) / 60, 2)
        row |= {metric: found[metric] for metric in ("auc", "recall", "precision")}
        arms.append(row | {"difference": None if name == "base" else cross_validation.paired(frame, base[""], **draws)["auc"]})
    pairs = []
    for question, first, second in PAIRS:
        gap = cross_validation.paired(frames[question, first], frames[question, second], **draws)["auc"]
        pairs.append({"question": question, "first": first, "second": second, "difference": gap})
    result = made.facts("ablations", PER_CASE=per_case, RESAMPLES=resamples)
    result |= {"base": BASE, "per_case": per_case, "resamples": resamples, "arms": arms, "pairs": pairs}
    run.write_json(RESULTS, result)
    return result


#: Shares of the training cases, and of each of their patches, that a learning curve is drawn through.
SHARES = (0.0625, 0.125, 0.25, 0.5, 1.0)


def learning_curve(run: Run, source: str, *, weights: str, number: int = 3, seed: int = 0, resamples: int = 2000) -> dict:
    """Trains on ever more cases, and on ever more patches of all cases; writes ``learning_curve.json``. Arguments as for `study`.

    Returns:
        ``{"cases": [{"share", "cases", "patches", "auc"}, …], "patches": […], "forecast": {"cases": …, "patches": …}, …}``; counts are
        means over the folds, a forecast is what `extrapolate` gives.
    """
    made = Study(run, source, weights=weights, number=number, seed=seed)
    arm, found, forecast = study_base.fine_tuned(BASE, weights=weights, seed=seed, answer_views=1), {}, {}
    for kind in ("cases", "patches"):
        rows, draws = [], []
        for share in SHARES:
            part: dict = {kind: share}
            on = [cross_validation.thinned(fold, seed=seed, **part) for fold in made.folds]
            name = "arm" if share == 1 else f"{share} of {kind}"
            frame = made.answer(name, BASE, arm, on=on)[""]
            sizes = np.mean([[len(fold.cases("train")), len(fold.rows("train"))] for fold in on], axis=0)
            # the same cases are drawn at every size, so that the law's slope has an interval as well
            count, values = metrics.resampled(cross_validation.scored(frame), 0.5, resamples, seed)
            draws.append(values["auc"])
            auc = metrics.interval(draws[-1], count, "share")
            rows.append({"share": share, "cases": float(sizes[0]), "patches": float(sizes[1]), "auc": auc})
        found[kind] = rows
        forecast[kind] = extrapolate(np.array([row[kind] for row in rows]), np.array(draws), count, at=published.archive_totals()[kind])
    result = made.facts("learning_curve", RESAMPLES=resamples) | {"base": BASE, "resamples": resamples} | found | {"forecast": forecast}
    run.write_json(CURVE, result)
    return result


def extrapolate(sizes: np.ndarray, auc: np.ndarray, cases: int, *, at: int) -> dict:
    """Fits a power law to the error 1 − AUC, and follows it to another size.

    Power laws describe how a network's error falls with its data (Hestness et al. 2017, arXiv 1712.00409), until the noise of the labels
    sets an end that these sizes do not show: the forecast is what would come if it went on like this.

    Args:
        sizes: float array (k,), how much was trained on.
        auc: float array (k, w), at each size the values that `metrics.resampled` gives.
        cases: the number of cases that it drew from.
        at: the size that is asked for.

    Returns:
        ``{"at", "factor", "exponent", "auc": {"value", "low", "high"}}`` of 1 − AUC = factor · size^exponent.
    """
    # a line through logarithms, for all draws at once
    x, y = np.log(sizes) - np.log(sizes).mean(), np.log(np.maximum(1 - auc, 1e-6))
    exponent = x @ y / (x @ x)
    height = y.mean(axis=0) - exponent * np.log(sizes).mean()
    reached = 1 - np.exp(height + exponent * np.log(at))
    return {"at": at, "factor": float(np.exp(height[0])), "exponent": float(exponent[0]), "auc": metrics.interval(reached, cases, "share")}


def table(result: Mapping, question: str) -> pd.DataFrame:
    """One row an arm of a question, the base first: AUC, its difference from the base, minutes, and what a minute brings."""
    rows = {}
    for row in (row for row in result["arms"] if row["question"] in ("", question)):
        gap = row["difference"]
        rows[HERE[question] + " (base)" if gap is None else row["arm"]] = {
            "AUC": titles.cell(row["auc"]),
            "difference": "" if gap is None else titles.cell(gap, sign=True),
            "minutes": f"{row['minutes']:.1f}",
            "AUC above chance a minute": f"{max(0.0, row['auc']['value'] - 0.5) / row['minutes']:.3f}",
        }
    return pd.DataFrame(rows).T


def verdicts(result: Mapping) -> pd.DataFrame:
    """One row an arm: is it better than the base, worse, or not told apart (the interval holds zero)?

    >>> from bhi_utils.core import provenance
    >>> verdicts(provenance.result(RESULTS)).query("question == 'depth of phase 2'")["verdict"].tolist()
    ['worse', 'better', 'better']
    """
    rows = []
    for row in result["arms"][1:]:
        gap = row["difference"]
        verdict = "better" if gap["low"] > 0 else "worse" if gap["high"] < 0 else "not told apart"
        rows.append({"question": row["question"], "arm": row["arm"], "than": HERE[row["question"]], "verdict": verdict})
    return pd.DataFrame(rows)


def pairs_table(result: Mapping) -> pd.DataFrame:
    """One row a pair of arms that are compared with each other: the difference in AUC."""
    rows = {f"{row['first']} − {row['second']}": titles.cell(row["difference"], sign=True) for row in result["pairs"]}
    return pd.DataFrame({"difference in AUC": rows})


def curve_table(result: Mapping) -> pd.DataFrame:
    """One row a point of the learning curves."""
    rows = []
    for kind in ("cases", "patches"):
        for row in result[kind]:
            counts = {name: f"{row[name]:,.0f}" for name in ("cases", "patches")}
            rows.append({"more": kind, **counts, "AUC": titles.cell(row["auc"])})
    return pd.DataFrame(rows)


def curve_result(result: Mapping) -> pd.DataFrame:
    """One row a way to have more: AUC with all that is here, the law's exponent, its AUC at the archive's size, and the gain."""
    rows = []
    for kind, law in result["forecast"].items():
        last, reached = result[kind][-1], law["auc"]["value"]
        now = last["auc"]["value"]
        rows.append([kind, round(last[kind]), now, law["exponent"], law["at"], reached, reached - now])
    return pd.DataFrame(rows, columns=["more", "here", "AUC here", "exponent", "archive", "AUC at the archive", "gain"]).round(3)

"""Do the intervals hold what they promise? Simulated cases whose true metrics are known, and how often each kind of interval covers them.

Used by ``notebooks/studies/intervals.ipynb``. A patch of case c with label y scores ``d · y + effect · z_c + separation · v_c · y + e``,
where z, v and e are standard normal: z makes a whole case look more or less like cancer, v makes it easier or harder. The share of IDC+ of
a case scatters on the logit scale and may go along with z. So true AUC, recall and precision are integrals, done by quadrature.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtr, ndtri, stdtrit
from tqdm import tqdm

from bhi_utils.core import provenance
from bhi_utils.core.run import Run
from bhi_utils.evaluation import metrics


def around(value: float, error: float, quantile: float) -> tuple[float, float]:
    """Returns the interval of a share that reaches ``quantile`` standard errors to either side on the logit scale."""
    middle, reach = logit(value), quantile * error / (value * (1 - value))
    return float(expit(middle - reach)), float(expit(middle + reach))


def percentile(value: float, drawn: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Returns the plain bootstrap's interval: the 2.5th and 97.5th percentile of the draws."""
    return np.nanpercentile(drawn, [50 * metrics.LEVEL, 100 - 50 * metrics.LEVEL])


def bca(value: float, drawn: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Returns percentiles corrected for bias and acceleration (Efron 1987, doi 10.1080/01621459.1987.10478410).

    Args:
        value: the metric of the data.
        drawn: float array (r,), the metric of each draw.
        left_out: float array (cases,), the metric without each case.
    """
    below = (np.sum(drawn < value) + 0.5 * np.sum(drawn == value)) / len(drawn)
    bias = ndtri(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
    gap = left_out.mean() - left_out
    spread = np.sum(gap**2) ** 1.5
    acceleration = np.sum(gap**3) / (6 * spread) if spread else 0.0
    moved = bias + ndtri([metrics.LEVEL / 2, 1 - metrics.LEVEL / 2])
    return np.percentile(drawn, 100 * ndtr(bias + moved / (1 - acceleration * moved)))


#: Returns low and high of a metric from its value, its draws and its values without each case.
Way = Callable[[float, np.ndarray, np.ndarray], Sequence[float | None] | np.ndarray]
_UPPER = 1 - metrics.LEVEL / 2
#: Ways to an interval of a share. The two before the last are `metrics.scaled` without its corrections for few cases.
WAYS: dict[str, Way] = {
    "percentile": percentile,
    "BCa": bca,
    "logit, normal": lambda value, drawn, left_out: around(value, float(np.nanstd(drawn, ddof=1)), ndtri(_UPPER)),
    "logit, Student's t": lambda value, drawn, left_out: around(
        value, metrics.standard_error(drawn, len(left_out)), stdtrit(len(left_out) - 1, _UPPER)
    ),
    "logit, Student's t, larger error": partial(metrics.scaled, scale="share"),
}
#: Ways to an interval of a difference, which has no bounds that matter.
DIFFERENCE_WAYS: dict[str, Way] = {
    "percentile": percentile,
    "BCa": bca,
    "Student's t, larger error": partial(metrics.scaled, scale="plain"),
}
PATCH_WAY = "percentile, by patch"
#: The interval that ``evaluation.metrics`` uses, by the metric that it is an interval of.
CHOSEN = dict.fromkeys(("auc", "recall", "precision"), "logit, Student's t, larger error")
CHOSEN["difference in AUC"] = "Student's t, larger error"

RESULTS = "intervals.json"
#: Coverage of a 95 % interval that passes for right.
BAND = (0.92, 0.97)
#: Draws of patches for the patch-wise intervals: fewer, since they miss by far more than the draws' own scatter.
_PATCH_DRAWS = 200
#: How strongly the second model's errors go along with the first one's, and how far its AUC lies below.
_AGREE, _LEAD = 0.8, 0.02
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)


@dataclass(frozen=True)
class Scenario:
    """A population of cases.

    Attributes:
        cases: how many are tested.
        auc: the true area under the ROC curve of the first model; the second one's is lower.
        effect: standard deviation of what shifts all scores of a case, in units of the scatter within a case.
        separation: standard deviation of the distance between the classes from case to case.
        together: correlation of the shift with the case's share of IDC+.
        patches: patches of a median case.
        share: share of IDC+ of a median case.
    """

    cases: int
    auc: float
    effect: float = 0.7
    separation: float = 0.5
    together: float = 0.3
    patches: int = 60
    share: float = 0.27

    @property
    def distance(self) -> float:
        """The ``d`` of the module's formula that gives the wanted AUC."""
        return float(brentq(lambda d: self._auc(d) - self.auc, 0.0, 12.0))

    @property
    def rival(self) -> "Scenario":
        """The same population for the second model, whose shift of a case agrees with the first one's in part."""
        return replace(self, together=_AGREE * self.together, auc=self.auc - _LEAD)

    def _classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns how much of all IDC+, and of all IDC−, lies in cases with each node's shift, up to a factor: two float arrays."""
        inner = self.together * _NODES[:, None] + np.sqrt(1 - self.together**2) * _NODES
        share = expit(logit(self.share) + inner) @ _WEIGHTS / _WEIGHTS.sum()
        return _WEIGHTS * share, _WEIGHTS * (1 - share)

    def _auc(self, d: float) -> float:
        positive, negative = self._classes()
        ahead = ndtr((d + self.effect * (_NODES[:, None] - _NODES)) / np.sqrt(2 + self.separation**2))
        return float(positive @ ahead @ negative / positive.sum() / negative.sum())

    def truth(self, d: float, second: float, threshold: float) -> dict[str, float]:
        """Returns the true metrics: of a model with distance ``d``, and its lead in AUC over one with distance ``second``."""
        positive, negative = self._classes()
        found = positive @ ndtr((d + self.effect * _NODES - threshold) / np.sqrt(1 + self.separation**2))
        alarms = negative @ ndtr(self.effect * _NODES - threshold)
        auc, recall, precision = self._auc(d), float(found / positive.sum()), float(found / (found + alarms))
        return {"auc": auc, "recall": recall, "precision": precision, "difference in AUC": auc - self.rival._auc(second)}

    def draw(self, generator: np.random.Generator, d: float, second: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draws one test set: case numbers, labels (bool) and both models' scores, one entry a patch."""
        size = np.maximum(5, np.rint(self.patches * np.exp(0.5 * generator.normal(size=self.cases)))).astype(int)
        z, v, e, other = generator.normal(size=(4, self.cases))
        share = expit(logit(self.share) + self.together * z + np.sqrt(1 - self.together**2) * e)
        case = np.repeat(np.arange(self.cases), size)
        label = generator.random(len(case)) < share[case]
        noise, more = generator.normal(size=(2, len(case)))
        first = (d + self.separation * v[case]) * label + self.effect * z[case] + noise
        # the second model meets the same cases and patches, and agrees with the first in part
        apart = np.sqrt(1 - _AGREE**2)
        shift = self.effect * (_AGREE * z + apart * other)
        return case, label, first, (second + self.separation * v[case]) * label + shift[case] + _AGREE * noise + apart * more


#: The archive's official test set in number of cases; then fewer cases, stronger effects, and an AUC near its bound.
SCENARIOS = {
    "49 cases": Scenario(49, 0.93),
    "20 cases": Scenario(20, 0.93),
    "49 cases, strong effects": Scenario(49, 0.93, effect=1.2, separation=0.8, together=0.5),
    "49 cases, AUC 0.98": Scenario(49, 0.98),
}


def study(run: Run, *, simulations: int, resamples: int, seed: int) -> dict:
    """Simulates every scenario, and writes ``intervals.json`` into the run's artefacts.

    Args:
        run: the study's folder.
        simulations: test sets that are drawn of each scenario.
        resamples: draws of cases for each interval.
        seed: seed of everything random.

    Returns:
        ``{"scenarios": {name: {"setting", "truth", "coverage": {metric: {way: {"covered", "below", "above", "width"}}}}}}`` with the
        command, commit and parameters; ``below`` is the share of intervals that lie wholly below the truth.
    """
    start, parameters = time.perf_counter(), {"simulations": simulations, "resamples": resamples, "seed": seed}
    result: dict = {
        "command": provenance.command("intervals", **{name.upper(): value for name, value in parameters.items()}),
        "commit": provenance.git_commit(),
        "data": {"kind": "simulated scores", "synthetic": True},
        "parameters": parameters,
        "scenarios": {},
    }
    for number, (name, scenario) in enumerate(SCENARIOS.items()):
        result["scenarios"][name] = _measure(scenario, simulations, resamples, np.random.default_rng([seed, number]), title=name)
    result["seconds"] = round(time.perf_counter() - start, 1)
    run.write_json(RESULTS, result)
    return result


def _measure(scenario: Scenario, simulations: int, resamples: int, generator: np.random.Generator, *, title: str) -> dict:
    """Simulates one scenario; returns its setting, its truth and, by metric and way, the coverage."""
    d, second = scenario.distance, scenario.rival.distance
    threshold = d - 1.2
    truth = scenario.truth(d, second, threshold)
    # the draws of cases are fixed, as a fixed seed fixes them for every user; only the data change
    counts = metrics.weights(scenario.cases, resamples, 0)
    # how often each patch counts in a draw of patches: Poisson's law, which drawing with replacement comes to
    bank = np.random.default_rng(1).poisson(1.0, (_PATCH_DRAWS, 6 * scenario.cases * scenario.patches)).astype(np.float32)
    found: dict = {metric: defaultdict(list) for metric in CHOSEN}
    for _ in tqdm(range(simulations), desc=title, unit="test set", file=sys.stderr, mininterval=2):
        case, label, first, other = scenario.draw(generator, d, second)
        for metric, drawn in _values(case, label, first, other, counts, threshold).items():
            for way, interval in (DIFFERENCE_WAYS if metric == "difference in AUC" else WAYS).items():
                found[metric][way].append(interval(*metrics.parts(drawn, scenario.cases)))
        drawn = _patchwise(label, first, bank)
        found["auc"][PATCH_WAY].append(percentile(np.nan, drawn, drawn))
    coverage = {metric: {way: _covered(made, truth[metric]) for way, made in ways.items()} for metric, ways in found.items()}
    return {"setting": asdict(scenario), "truth": truth, "coverage": coverage}


def _values(
    case: np.ndarray, label: np.ndarray, first: np.ndarray, second: np.ndarray, counts: np.ndarray, threshold: float
) -> dict[str, np.ndarray]:
    """Returns each metric under each row of case weights, float arrays (w,)."""
    cases = counts.shape[1]
    called = first >= threshold
    groups = (label, ~label, label & called, ~label & called)
    positive, negative, found, alarms = (counts @ np.bincount(case[group], minlength=cases) for group in groups)
    one, two = (metrics.auc(metrics.concordance(label, score, case, cases), positive, negative, counts) for score in (first, second))
    return {"auc": one, "recall": found / positive, "precision": found / (found + alarms), "difference in AUC": one - two}


def _patchwise(label: np.ndarray, score: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """Returns the AUC of draws of patches, as if each were a case of its own; no two scores are equal here."""
    label = label[np.argsort(score)]
    weight = bank[:, : len(label)]
    below = np.cumsum(weight * ~label, axis=1)
    positive = weight[:, label]
    return np.einsum("rp,rp->r", positive, below[:, label]) / (positive.sum(axis=1) * below[:, -1])


def _covered(made: list, truth: float) -> dict[str, float]:
    """Returns the shares of intervals that cover the truth, lie below it and lie above it, and their mean width."""
    low, high = np.array(made, dtype=float).T
    below, above = high < truth, low > truth
    measured = {"covered": ~below & ~above, "below": below, "above": above, "width": high - low}
    return {name: float(values.mean()) for name, values in measured.items()}


def shares(result: Mapping, metric: str) -> pd.DataFrame:
    """Returns how often the 95 % interval covers the truth, 0 to 1: one row a scenario, one column a way.

    >>> from bhi_utils.core import provenance
    >>> shares(provenance.result(RESULTS), "auc")["BCa"].round(3).tolist()
    [0.915, 0.882, 0.915, 0.908]
    """
    scenarios = result["scenarios"].items()
    rows = {name: {way: one["covered"] for way, one in found["coverage"][metric].items()} for name, found in scenarios}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("scenario")


def table(result: Mapping, *, metric: str = "auc") -> pd.DataFrame:
    """Shows `shares` in percent."""
    return shares(result, metric).map("{:.1%}".format)


def settings(result: Mapping) -> pd.DataFrame:
    """One row a scenario: what was simulated, and the true metrics.

    >>> from bhi_utils.core import provenance
    >>> settings(provenance.result(RESULTS))["cases"].to_dict()
    {'49 cases': 49, '20 cases': 20, '49 cases, strong effects': 49, '49 cases, AUC 0.98': 49}
    """
    names = {"cases": "cases", "effect": "shift of a case", "separation": "spread of separation", "together": "shift goes with share"}
    names |= {"auc": "true AUC", "recall": "recall", "precision": "precision"}
    rows = {name: found["setting"] | found["truth"] for name, found in result["scenarios"].items()}
    return pd.DataFrame.from_dict(rows, orient="index")[list(names)].rename(columns=names).rename_axis("scenario")


def misses(result: Mapping, *, metric: str = "auc") -> pd.DataFrame:
    """One row a way, in the first scenario: shares of intervals wholly below and above the truth, and their mean width."""
    found = pd.DataFrame(next(iter(result["scenarios"].values()))["coverage"][metric]).T.rename_axis("interval")
    forms = {"below": "{:.1%}", "above": "{:.1%}", "width": "{:.4f}"}
    return pd.DataFrame({name: found[name].map(form.format) for name, form in forms.items()})


def goals(result: Mapping) -> pd.DataFrame:
    """One row a metric: the least and the greatest coverage of the interval in use, the plain bootstrap's, and whether the band holds."""
    rows = {}
    for metric, way in CHOSEN.items():
        found = shares(result, metric)
        reach = found.agg(["min", "max"]).map("{:.1%}".format).agg(" to ".join)
        held = "yes" if found[way].between(*BAND).all() else "no"
        rows[metric] = {"interval in use": way, "coverage": reach[way], "plain bootstrap": reach["percentile"], "within the band": held}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")

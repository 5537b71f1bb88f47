"""What the paper says, claim by claim, beside what this project measured, on what data, and whether the two agree.

Used by ``notebooks/studies/paper_comparison.ipynb``. Every number comes from a result that the repository keeps, and every verdict from its
interval: nothing is judged by hand.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from IPython.display import Markdown

from bhi_utils.core import titles
from bhi_utils.core.provenance import paper
from bhi_utils.core.run import Run
from bhi_utils.core.titles import PAPER_METRICS as METRICS
from bhi_utils.data import published
from bhi_utils.studies import ablations, benchmark_app, leakage, paper_recipe, recipes

RESULTS = "paper_comparison.json"
#: The verdicts: borne out; contradicted; these cases cannot tell.
AGREES, DISAGREES, OPEN = "agrees", "disagrees", "not told apart"
TOPICS = ("performance", "networks", "choices", "practice")
#: Milliseconds within which an answer counts as immediate: the limit that keeps a person's train of thought (Nielsen 1993).
IMMEDIATE = 1000
#: Shares of IDC+ closer than this are called the same.
_SAME_SHARE = 0.02


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        topic: one of `TOPICS`.
        claim: what the paper says.
        measured: what was measured here, with its interval.
        data: on what, and by which study.
        verdict: one of `AGREES`, `DISAGREES` and `OPEN`.
        why: what lies behind it.
    """

    topic: str
    claim: str
    measured: str
    data: str
    verdict: str
    why: str


def results() -> dict[str, Any]:
    """The recorded results that the comparison rests on, by study."""
    return {
        "recipes": recipes.recorded(),
        "ablations": ablations.recorded(),
        "paper_recipe": paper_recipe.recorded(),
        "leakage": leakage.recorded(),
        "app": benchmark_app.recorded(),
    }


def compare(run: Run, found: Mapping[str, Any]) -> pd.DataFrame:
    """One row a claim with the fields of `Claim`; also written as ``paper_comparison.json`` into the run's artefacts.

    Args:
        run: the study's folder.
        found: from `results`.
    """
    claims = [*_performance(found["recipes"]), _prevalence(), *_comparisons(found), _interface(found["app"])]
    rows = [asdict(claim) for claim in claims]
    run.write_json(RESULTS, {"claims": rows})
    return pd.DataFrame(rows)


def shown(table: pd.DataFrame, topic: str) -> Markdown:
    """The claims of one of `TOPICS` as a table whose texts wrap."""
    heads = ("claim", "measured here", "on what", "verdict", "why")
    rows = table[table["topic"] == topic][["claim", "measured", "data", "verdict", "why"]]
    lines = [heads, ["---"] * len(heads), *rows.itertuples(index=False)]
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in lines))


def tally(table: pd.DataFrame) -> pd.DataFrame:
    """How many claims got each verdict."""
    counts = table["verdict"].value_counts()
    return pd.DataFrame({"claims": {verdict: int(counts.get(verdict, 0)) for verdict in (AGREES, DISAGREES, OPEN)}})


def prevalence() -> float:
    """The share of IDC+ in the paper's test set that its recall, precision and accuracy imply together."""
    values = paper()
    missed = 1 - values["recall"]
    false_alarms = values["recall"] * (1 / values["precision"] - 1)
    return (1 - values["binary_accuracy"]) / (missed + false_alarms)


def _on(result: Mapping[str, Any], study: str) -> str:
    data = result["data"]
    return f"{data['patches']:,} patches of {data['cases']} cases, study of {study}"


def _performance(result: Mapping[str, Any]) -> list[Claim]:
    model, claims = result["models"]["fast"], []
    for metric, title in METRICS.items():
        said, here = paper()[metric], model[metric]
        within = here["low"] <= said <= here["high"]
        better = (here["value"] < said) == (metric == "loss")
        if within:
            why = "The paper's value lies in the interval."
        elif better:
            why = "Better here, on other cases than the paper's."
        else:
            why = "Learned from a twentieth of the archive; the paper names neither its test cases nor an interval."
        if metric == "recall":
            why += " The threshold was chosen for it on validation cases, so it says less than precision does."
        claims.append(
            Claim("performance", f"{title} {said:.4f}", titles.cell(here), _on(result, "recipes"), AGREES if within else DISAGREES, why)
        )
    return claims


def _prevalence() -> Claim:
    totals = published.archive_totals()
    share = totals["positive"] / totals["patches"]
    same = abs(share - prevalence()) < _SAME_SHARE
    return Claim(
        "performance",
        "tested as patches come, without balancing the test set",
        f"its three rates imply {prevalence():.1%} IDC+; the archive holds {share:.1%}",
        f"{totals['patches']:,} patches of {totals['cases']} cases, published counts",
        AGREES if same else DISAGREES,
        "Recall, precision and accuracy fix the share of IDC+ together, and SMOTE has not touched it." if same else "The shares differ.",
    )


def _comparisons(found: Mapping[str, Any]) -> list[Claim]:
    """Claims that a choice helps, from paired differences."""
    whole, leak = found["recipes"], found["leakage"]
    gaps = leak["differences"]["one hidden layer"]
    fine_tuning = _signed(
        "networks",
        "fine-tuning the last layers adds to a frozen base",
        whole["differences"]["fast − probe"]["auc"],
        _on(whole, "recipes"),
        (
            "Blocks that have learned this tissue know more than a classifier on top of photographs' features.",
            "A classifier on frozen features is as good.",
        ),
    )
    split = _signed(
        "practice",
        "the split is by patient",
        gaps["image − case"]["auc"],
        _on(leak, "leakage"),
        (
            "A split by image would have flattered the model by so much in this sample, where few neighbours of a patch are left.",
            "In this sample a split by image would not have flattered it.",
        ),
    )
    return [fine_tuning, *_choices(found["ablations"]), _hours(found["paper_recipe"]), split]


def _hours(result: Mapping[str, Any]) -> Claim:
    """The published training as a whole against recipe fast, on the same patches for as many epochs."""
    minutes = f"{result['minutes']['paper']:.0f} min against {result['minutes']['fast']:.0f}"
    against = f"Against recipe fast on the same {result['patches']:,} patches for as many epochs: {minutes}"
    data = f"fold {result['fold']} of {result['parameters']['folds']}, {result['data']['cases']} cases in all, study of recipes"
    return _signed(
        "choices",
        "ten hours of training, patch by patch in batches of 8",
        _turned(result["difference"]["auc"]),
        data,
        (f"{against}; the longer training is worth its time.", f"{against}, and nothing is gained by the longer training."),
    )


def _choices(result: Mapping[str, Any]) -> list[Claim]:
    """Claims about single choices: the network that has the choice minus the one that has not, all else equal."""
    arms = {(row["question"], row["arm"]): row["difference"] for row in result["arms"] if row["difference"] is not None}
    pairs = {(row["first"], row["second"]): row["difference"] for row in result["pairs"]}
    base, data = result["base"], _on(result, "ablations")
    return [
        _signed(
            "networks",
            "EfficientNetB0 is ahead of a custom CNN",
            _turned(arms["network", "custom CNN"]),
            data,
            (
                "It starts from photographs, which these few patches cannot make up for.",
                "With these few patches and one fine-tuned block, the start from photographs is no certain gain.",
            ),
        ),
        _signed(
            "choices",
            "pixels scaled to [0,1] before EfficientNetB0",
            arms["input range", "[0,1] into EfficientNetB0"],
            data,
            (
                "Against 0–255, which the pretrained network expects.",
                "Against 0–255, which the pretrained network expects. An AUC near 0.5 says that this head, at this rate and in these "
                "epochs, cannot learn from features that differ by a 255th; it is not what the input scale costs.",
            ),
        ),
        _signed(
            "choices",
            "SMOTE makes up for the rarer class",
            pairs["SMOTE on pixels", "none"],
            data,
            (
                "Blended patches against the classes as they are.",
                "Blended patches against the classes as they are: two patches blended look like no tissue, and the threshold does what "
                "balance was for.",
            ),
        ),
        _signed(
            "choices",
            "seven random augmentations help on unseen cases",
            pairs["the paper's seven", "off"],
            data,
            (
                "New variants of each patch in every epoch against the patch as it is.",
                "New variants of each patch in every epoch against the patch as it is: they may need more epochs than the study has.",
            ),
        ),
        _signed(
            "choices",
            "patches enlarged to 200×200",
            arms["resolution", "200 px"],
            data,
            (
                f"Against {base['IMAGE_SIZE']} px: enlarging adds no detail, but brings the tissue to the scale of the pretrained filters.",
                f"Against {base['IMAGE_SIZE']} px: enlarging adds no detail, and costs more time.",
            ),
        ),
    ]


def _turned(gap: Mapping[str, float]) -> dict[str, float]:
    """The difference of the same two the other way round."""
    return {"value": -gap["value"], "low": -gap["high"], "high": -gap["low"]}


def _interface(app: Mapping[str, Any]) -> Claim:
    spent = app["patch_ms"]
    return Claim(
        "practice",
        "the interface answers in real time",
        f"median {spent['median']:.0f} ms, 95 of 100 patches within {spent['p95']:.0f} ms, evidence map included",
        f"one patch at a time through the interface's API, {app['machine']['cores']} cores",
        AGREES if spent["p95"] <= IMMEDIATE else DISAGREES,
        "Within a second nobody loses the thread of what they were doing.",
    )


def _signed(topic: str, claim: str, gap: Mapping[str, float], data: str, why: tuple[str, str]) -> Claim:
    """A claim that a choice helps, judged by the sign of its interval; ``why`` where it does, and where it does not."""
    verdict = AGREES if gap["low"] > 0 else DISAGREES if gap["high"] < 0 else OPEN
    return Claim(topic, claim, f"difference in AUC {titles.cell(gap, sign=True)}", data, verdict, why[0] if verdict == AGREES else why[1])

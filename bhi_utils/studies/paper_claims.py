"""What the paper says, claim by claim, beside what this project measured, on what data, and whether the two agree.

Used by ``notebooks/studies/paper_comparison.ipynb``. The claims stand in ``paper_claims.yaml``. Every number comes from a result that the
repository keeps, and every verdict from its interval: nothing is judged by hand.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from IPython.display import Markdown

from bhi_utils.core import provenance, titles
from bhi_utils.core.provenance import paper
from bhi_utils.core.run import Run
from bhi_utils.data import published
from bhi_utils.studies import recipes

CLAIMS = Path(__file__).with_suffix(".yaml")
RESULTS = "paper_comparison.json"
#: The verdicts: borne out; contradicted; these cases cannot tell.
AGREES, DISAGREES, OPEN = "agrees", "disagrees", "not told apart"
TOPICS = ("performance", "networks", "choices", "practice")
#: Milliseconds within which an answer counts as immediate: the limit that keeps a person's train of thought (Nielsen 1993).
IMMEDIATE = 1000


def results() -> dict:
    """Returns the recorded results that the comparison rests on, by study."""
    names = ("ablations", "paper_recipe", "leakage", "app")
    return {"recipes": recipes.recorded()} | {name: provenance.result(f"{name}.json") for name in names}


def compare(run: Run, found: Mapping) -> pd.DataFrame:
    """Judges every claim, one row each; also written as ``paper_comparison.json`` into the run's artefacts.

    Args:
        run: the study's folder.
        found: from `results`.

    Returns:
        ``topic, claim, measured, data, verdict, why``: one of `TOPICS`; what the paper says; what was measured here, with its interval; on
        what, and by which study; `AGREES`, `DISAGREES` or `OPEN`; what lies behind it.
    """
    known = {"paper": paper(), "titles": titles.PAPER_METRICS, "totals": published.archive_totals(), "implied": prevalence()}
    arms = {f"{row['question']} / {row['arm']}": row["difference"] for row in found["ablations"]["arms"]}
    pairs = {row["first"]: row["difference"] for row in found["ablations"]["pairs"]}
    known |= {**found, "arms": arms, "pairs": pairs, "immediate": IMMEDIATE, "turned": _turned}
    rows = [_judged(claim, known) for claim in yaml.safe_load(CLAIMS.read_text(encoding="utf-8"))]
    run.write_json(RESULTS, {"claims": rows})
    return pd.DataFrame(rows)


def _judged(claim: Mapping, known: Mapping) -> dict[str, str]:
    """Returns the row of a claim from `CLAIMS`, whose texts may use what is ``known``."""
    page = jinja2.Environment(undefined=jinja2.StrictUndefined)
    page.filters["cell"] = titles.cell
    known = {**known, "metric": claim.get("metric")}
    measured, data = claim.get("measured"), claim.get("data")
    if "metric" in claim:
        known["here"] = known["recipes"]["models"]["fast"][claim["metric"]]
    if "study" in claim:
        about = known[claim["study"]]["data"]
        data = f"{about['patches']:,} patches of {about['cases']} cases, study of {claim['study']}"
    if "gap" in claim:
        gap: Any = page.compile_expression(claim["gap"])(**known)
        known["gap"] = gap
        measured = f"difference in AUC {titles.cell(gap, sign=True)}"
        verdict = AGREES if gap["low"] > 0 else DISAGREES if gap["high"] < 0 else OPEN
    else:
        verdict = AGREES if page.compile_expression(claim["holds"])(**known) else DISAGREES
    why = claim["why" if verdict == AGREES else "else"]
    texts = {"claim": claim["claim"], "measured": measured, "data": data, "verdict": verdict, "why": why}
    return {"topic": claim["topic"]} | {name: page.from_string(text).render(known) for name, text in texts.items()}


def _turned(gap: Mapping[str, float]) -> dict[str, float]:
    """Returns the difference of the same two the other way round."""
    return {"value": -gap["value"], "low": -gap["high"], "high": -gap["low"]}


def shown(table: pd.DataFrame, topic: str) -> Markdown:
    """Returns the claims of one of `TOPICS` as a table whose texts wrap."""
    heads = ("claim", "measured here", "on what", "verdict", "why")
    rows = table[table["topic"] == topic][["claim", "measured", "data", "verdict", "why"]]
    lines = [heads, ["---"] * len(heads), *rows.itertuples(index=False)]
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in lines))


def tally(table: pd.DataFrame) -> pd.DataFrame:
    """Counts the claims of each verdict.

    >>> tally(pd.DataFrame({"verdict": [AGREES, OPEN, AGREES]}))["claims"].to_dict()
    {'agrees': 2, 'disagrees': 0, 'not told apart': 1}
    """
    counts = table["verdict"].value_counts().reindex([AGREES, DISAGREES, OPEN], fill_value=0)
    return counts.rename_axis(None).to_frame("claims")


def prevalence() -> float:
    """Returns the share of IDC+ in the paper's test set that its recall, precision and accuracy imply together."""
    values = paper()
    missed = 1 - values["recall"]
    false_alarms = values["recall"] * (1 / values["precision"] - 1)
    return (1 - values["binary_accuracy"]) / (missed + false_alarms)

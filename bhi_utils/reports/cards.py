"""The model card and the data card of a run, filled from the run's JSON.

Used by ``bhi card``. The headings are Hugging Face's (Mitchell et al. 2019, doi 10.1145/3287560.3287596; Gebru et al. 2021, doi
10.1145/3458723). No number is typed here: a test finds each one in the run.
"""

from pathlib import Path
from typing import Any

from bhi_utils.core import provenance
from bhi_utils.core.atomic_files import write_text
from bhi_utils.core.messages import counted
from bhi_utils.core.run import Run
from bhi_utils.core.titles import METRICS, MODEL_NAMES, PART_NAMES, cell
from bhi_utils.data.published import ARCHIVE_URL
from bhi_utils.evaluation import failures, thresholds
from bhi_utils.evaluation.calibration import describe
from bhi_utils.reports.run_report import LIMITS, Facts

MODEL, DATA = "MODEL_CARD.md", "DATA_CARD.md"
_CITE = (
    "Cruz-Roa et al. 2014 (doi 10.1117/12.2043872) and Janowczyk & Madabhushi 2016 (doi 10.4103/2153-3539.186902) for the data; "
    "Alvarado, Kaddoura and Sánchez, *Predicción de Cáncer de Mama con Imágenes Histológicas usando Deep Learning*, for the method."
)


def write(run: Run) -> list[Path]:
    """Write ``MODEL_CARD.md`` and ``DATA_CARD.md`` into the run's folder.

    Raises:
        InputError: the run has not come as far as notebook 06.
    """
    facts = Facts.read(run)
    return [write_text(run.root / MODEL, model_card(facts)), write_text(run.root / DATA, data_card(facts))]


def model_card(facts: Facts) -> str:
    """The card of the better model as Markdown."""
    bundle, test, paper, counts = facts.bundle, facts.test, provenance.paper(), facts.split["counts"]
    rows = [f"| {title} | {cell(test.get(name))} | {_paper(paper, name)} |" for name, title in METRICS.items()]
    after = facts.metrics.get("calibrated", {}).get(facts.better, {}).get("test", {})
    calibrated = [f"| {METRICS[name]} | {cell(test.get(name))} | {cell(found)} |" for name, found in after.items()]
    parameters = [f"- {name}: {_plain(value)}" for name, value in bundle.get("parameters", {}).items() if name != "OUT"]
    synthetic = "\n**It was trained on synthetic patches and knows nothing about tissue.**\n" if facts.data["synthetic"] else ""
    limits = "\n".join(f"- {line}" for line in LIMITS)
    return f"""---
license: mit
library_name: keras
pipeline_tag: image-classification
tags:
- histopathology
- breast-cancer
---

# Model card: {MODEL_NAMES[facts.better]}

**Research use only, not a medical device.**
{synthetic}
## Model details

- Model: {MODEL_NAMES[facts.better]}, file `{bundle["model"]}`, SHA-256 `{bundle["sha256"]}`
- Input: one H&E patch of 50×50 pixels, 0–255, at the scale of the Breast Histopathology Images archive
- Output: a logit; its sigmoid is the probability of invasive ductal carcinoma (IDC+), not calibrated; the bundle also holds a calibration
- Initialisation: {bundle["initialisation"]}
- Licence: MIT

## Uses

### Direct use

Research and teaching: to reproduce the paper, to compare methods, and to look at evidence maps.

### Out-of-scope use

- Any decision about a patient, diagnosis, triage or screening.
- Slides at another magnification, other stains than H&E, other organs.
- Whole slides without a look at the tissue: a patch outside its training data is answered without a warning.

## Bias, risks, and limitations

{limits}
- Age, sex, origin and hospital of the cases are not recorded, so no difference between such groups can be measured.

## How to get started with the model

```
bhi predict patches.zip --csv answers.csv --model {bundle["name"]}.bundle.json
bhi app --model {bundle["name"]}.bundle.json
```

## Training details

{counted(counts["train"]["patches"], "patch")} of {counted(counts["train"]["cases"], "case")}, {counts["train"]["positive"]:,} of them IDC+
({facts.origin} in all; fingerprint `{facts.data["fingerprint"]}`).

{chr(10).join(parameters)}

## Evaluation

### Testing data

{counted(counts["test"]["patches"], "patch")} of {counted(counts["test"]["cases"], "case")}, {counts["test"]["positive"]:,} of them IDC+.
No case is in two parts. Threshold and calibration were chosen on {counted(counts["val"]["cases"], "validation case")}: the
{thresholds.sentence(bundle["threshold_rule"])}, which is {bundle["threshold"]:.4f} on probabilities that are not calibrated;
{describe(bundle["calibration"])}.

### Metrics

Positive class: IDC+. In brackets: 95 % intervals from {facts.metrics["resamples"]:,} resamples of cases. Probabilities are not calibrated.

| metric | test cases | the paper, on its own data |
| --- | --- | --- |
{chr(10).join(rows)}

After calibration:

| metric | not calibrated | calibrated |
| --- | --- | --- |
{chr(10).join(calibrated)}

{_subgroups(facts)}## Citation

{_CITE}
"""


def _subgroups(facts: Facts) -> str:
    """Metrics by group of patches, where notebook 06 measured them."""
    if facts.failures is None:
        return ""
    rows = []
    for kind, found in facts.failures["groups"].items():
        for name, one in found.items():
            values = " | ".join(cell(one[metric]) for metric in ("auc", "recall", "specificity"))
            rows.append(f"| {failures.KINDS[kind]}: {name} | {one['patches']:,} | {one['cases']:,} | {values} |")
    head = "| group | patches | cases | AUC | recall | specificity |\n| --- | --- | --- | --- | --- | --- |\n"
    return "### Subgroups of the test cases\n\n" + head + "\n".join(rows) + "\n\n"


def data_card(facts: Facts) -> str:
    """The card of the data that the run used, as Markdown."""
    data, counts = facts.data, facts.split["counts"]
    rows = [f"| {PART_NAMES[part]} | {row['cases']:,} | {row['patches']:,} | {row['positive']:,} |" for part, row in counts.items()]
    if data["synthetic"]:
        source = "A synthetic cohort, drawn by `bhi_utils.data.phantom`. It looks like tissue and says nothing about cancer."
    else:
        source = f"Patches named as those of [Breast Histopathology Images]({ARCHIVE_URL}); third parties list the archive as CC0."
    limits = "\n".join(f"- {line}" for line in LIMITS[1:3])
    return f"""---
task_categories:
- image-classification
tags:
- histopathology
- breast-cancer
---

# Data card: {facts.origin}

## Dataset description

{source}

- Patches: {data["patches"]:,}, {data["positive"]:,} of them IDC+
- Cases: {data["cases"]:,}
- Rejected files: {data["rejected"]:,}
- Smaller than 50×50, padded with white: {data["padded"]:,}
- Fingerprint of pixels and labels: `{data["fingerprint"]}`

## Uses

Research on patch classification. It must not be used to make a decision about a person.

## Dataset structure

One PNG a patch, `<case>_idx5_x<X>_y<Y>_class<C>.png`; 1 is IDC+. Split of this run ({facts.split["scheme"]}, seed
{facts.split["seed"]}, SHA-256 `{facts.split["sha256"]}`):

| part | cases | patches | IDC+ patches |
| --- | --- | --- | --- |
{chr(10).join(rows)}

## Dataset creation

A pathologist outlined the invasive tumour on each slide at low magnification; a patch is IDC+ when it lies inside the outline. Case ids
carry no personal information.

## Bias, risks, and limitations

{limits}
- Age, sex, origin and hospital of the cases are not recorded.

## Citation

{_CITE}
"""


def _paper(paper: dict[str, float], name: str) -> str:
    return f"{paper[name]:.4f}" if name in paper else ""


def _plain(value: Any) -> str:
    """A parameter's value; of a path only its last part."""
    return Path(value).name if isinstance(value, str) and value else str(value)

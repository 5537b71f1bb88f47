"""The benchmark of the exported file: both sides at every batch size, in one result. No test asks for a time."""

import json

import pytest

from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.studies import benchmark


def test_it_compares_both_at_every_batch_size(bundle, tmp_path):
    run = Run.open(tmp_path)
    result = benchmark.study_export(run, bundle, batches=(1, 3), least=4, repeats=2)
    assert json.loads((run.artifacts / benchmark.EXPORT_RESULTS).read_text(encoding="utf-8")) == result
    table = benchmark.export_table(result)
    assert list(table.index) == [1, 3] and (table > 0).all(axis=None) and (table["least"] <= table["most"]).all()
    for wrong in ({"repeats": 0}, {"batches": ()}, {"least": 0}):
        with pytest.raises(InputError, match="at least one repeat"):
            benchmark.study_export(run, bundle, **wrong)

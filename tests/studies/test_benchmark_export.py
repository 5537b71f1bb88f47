"""The benchmark of the exported file: both sides at every batch size, in one result. No test asks for a time."""

import json

import pytest

from bhi_utils.core.paths import InputError, Run
from bhi_utils.studies import benchmark_export


def test_it_compares_both_at_every_batch_size(bundle, tmp_path):
    run = Run.open(tmp_path)
    result = benchmark_export.study(run, bundle, batches=(1, 3), least=4, repeats=2)
    assert json.loads((run.artifacts / benchmark_export.RESULTS).read_text(encoding="utf-8")) == result
    table = benchmark_export.table(result)
    assert list(table.index) == [1, 3] and (table > 0).all(axis=None) and (table["least"] <= table["most"]).all()
    for wrong in ({"repeats": 0}, {"batches": ()}, {"least": 0}):
        with pytest.raises(InputError, match="at least one repeat"):
            benchmark_export.study(run, bundle, **wrong)

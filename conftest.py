"""How nbval compares the committed notebooks: `pytest notebooks` runs every cell of them and compares the tagged ones."""

import pytest


def pytest_collectstart(collector: pytest.Collector) -> None:
    if collector.path.suffix == ".ipynb":
        # progress bars and the libraries' start-up logs go to stderr and differ every time
        collector.skip_compare += ("stderr",)


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.suffix == ".ipynb":
        # seconds of silence after which nbval gives a cell up: its own 5 are fewer than importing TensorFlow takes
        item.output_timeout = 300

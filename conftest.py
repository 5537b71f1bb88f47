"""How the tests are run: `pytest notebooks` executes every cell of the notebooks, and `pytest -n 2` takes two files at a time."""

import pytest


def pytest_collectstart(collector: pytest.Collector) -> None:
    if collector.path.suffix == ".ipynb":
        # progress bars and the libraries' start-up logs go to stderr and differ every time
        collector.skip_compare += ("stderr",)


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.suffix == ".ipynb":
        # seconds of silence after which nbval gives a cell up: its own 5 are fewer than importing TensorFlow takes
        item.output_timeout = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what builds on each other when files are shared among processes: the walk's notebooks, and the tests of a file."""
    for item in items:
        walk = item.path.suffix == ".ipynb" and item.path.parent.name == "notebooks"
        item.add_marker(pytest.mark.xdist_group("walk" if walk else str(item.path.relative_to(item.config.rootpath))))
    # the longest groups first, so that no process is left alone with one at the end
    items.sort(key=lambda item: (item.path.suffix != ".ipynb", item.path.name != "test_walk.py", "tests/app" in item.path.as_posix()))

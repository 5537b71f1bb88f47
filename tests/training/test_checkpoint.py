"""Nothing lost: a training killed at any moment goes on to the result that it would have had, and never mixes two trainings."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest

from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data import archive, splits
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.model import networks
from bhi_utils.runner import pipeline
from bhi_utils.training import checkpoint, fit_phases, samples, train_networks


class Killed(BaseException):
    """Ends a training as abruptly as a signal does: nobody catches it."""


pytestmark = pytest.mark.usefixtures("cache")


def opened(cache: Path) -> archive.Pack:
    return archive.pack(
        synthetic_cohort.write(cache / "small.zip", cases=10, patches_per_case=24, seed=1, nested=False), cache, progress=False
    )


@pytest.fixture(scope="module")
def data(cache):
    """Pack, split and samples."""
    pack = opened(cache)
    table = splits.make(pack.manifest, seed=0)
    return pack, table, samples.training_samples(pack, table, mode="smote", seed=0)


@pytest.fixture
def kill(monkeypatch):
    """A function that lets the next trainings die at the given moment: ``batch`` or ``epoch``, and the how manyeth since then."""
    fit, left = keras.Model.fit, {}

    class Killer(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.count("batch")

        def on_epoch_end(self, epoch, logs=None):
            self.count("epoch")

        def count(self, what):
            left[what] = left.get(what, 0) - 1
            if left[what] == 0:
                raise Killed

    def deadly(self, *args, callbacks=(), **options):
        return fit(self, *args, callbacks=[*callbacks, Killer()], **options)

    monkeypatch.setattr(keras.Model, "fit", deadly)
    return lambda what, number: left.update({what: number})


def network(data, weights, folder: Path, kind: str, *, epochs: int = 3) -> train_networks.Trained:
    recipe = fit_phases.FitSettings(epochs=epochs, batch_size=32, seed=0, folder=folder)
    if kind == "cnn":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(networks, "cnn", partial(networks.cnn, filters=(4, 8)))
            return train_networks.train_cnn(*data, recipe, image_size=32)
    options = {"image_size": 32, "weights": weights, "blocks": 1, "rate": 1e-3, "views": 2}
    return train_networks.train_efficientnetb0(*data, recipe, **options)


def same(one: train_networks.Trained, other: train_networks.Trained) -> bool:
    weights = zip(one.model.variables, other.model.variables, strict=True)
    return one.history.equals(other.history) and all(np.array_equal(*map(keras.ops.convert_to_numpy, pair)) for pair in weights)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cnn", "cached"])
def test_a_training_killed_again_and_again_ends_as_the_undisturbed_one(data, weights, tmp_path, kill, capsys, kind):
    expected = network(data, weights, tmp_path / "undisturbed", kind)
    steps = -(-len(data[2]) // 32)
    # within the first epoch; in the middle of the second, which for the cached one is another phase; right after an epoch was saved
    for what, number in (("batch", 2), ("batch", steps + steps // 2), ("epoch", 1))[kind == "cached" :]:
        kill(what, number)
        with pytest.raises(Killed):
            network(data, weights, tmp_path / "killed", kind)
    said = capsys.readouterr().out
    assert ("goes on after epoch 1 of 3" if kind == "cnn" else "frozen base: had ended") in said
    assert same(network(data, weights, tmp_path / "killed", kind), expected)
    assert len(list((tmp_path / "killed").iterdir())) == (1 if kind == "cnn" else 2)


@pytest.mark.slow
def test_a_process_that_a_signal_killed_loses_nothing(data, weights, cache, tmp_path):
    script = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
import keras, test_checkpoint as this
from pathlib import Path

class Killer(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations > {len(data[2]) // 32 + 3}:
            os.kill(os.getpid(), signal.SIGKILL)

fit = keras.Model.fit
keras.Model.fit = lambda *args, callbacks, **options: fit(*args, callbacks=[*callbacks, Killer()], **options)
pack = this.opened(Path({str(cache)!r}))
table = this.splits.make(pack.manifest, seed=0)
data = pack, table, this.samples.training_samples(pack, table, mode="smote", seed=0)
this.network(data, "", Path({str(tmp_path)!r}) / "killed", "cnn")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "BHI_CACHE": str(cache)})
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    state = tmp_path / "killed" / f"cnn.1{checkpoint.SUFFIX}"
    assert state.exists()
    assert same(network(data, weights, tmp_path / "killed", "cnn"), network(data, weights, tmp_path / "undisturbed", "cnn"))


def small(folder: Path, *, fetch=None, rate: float = 0.1, epochs: int = 4, labels=None, basis="data", rates=(0.1,)) -> fit_phases.Phases:
    """A tiny network, of which the first phase trains the last layer alone, through as many phases as there are rates."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.RandomFlip(seed=2)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Conv2D(2, 3)(x))
    x = keras.layers.Dropout(0.3, seed=1)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(1)(x), name="small")
    numbers = np.random.default_rng(0).normal(size=(64, 4, 4, 1)).astype(np.float32)
    labels = (numbers.sum(axis=(1, 2, 3)) > 0).astype(np.int8) if labels is None else labels
    made = fit_phases.Phases(model, fit_phases.FitSettings(epochs=epochs, batch_size=8, seed=0, folder=folder), basis=basis)
    batches = samples.Batches(fetch or (lambda index, _: numbers[index]), labels, batch_size=8, seed=0)
    valid = samples.Batches(lambda index, _: numbers[index], labels, batch_size=64)
    for number, each in enumerate((rate, *rates[1:])):
        model.layers[2].trainable = number > 0
        made.fit(f"phase {number}", model, batches, valid, epochs=epochs, rate=each)
    return made


def result(made: fit_phases.Phases) -> list:
    return [made.rows, *[weight.tolist() for weight in made.network.get_weights()]]


def test_a_network_whose_training_had_ended_is_not_trained_again(tmp_path, kill, capsys):
    expected = small(tmp_path / "undisturbed", rates=(0.1, 0.01))
    kill("epoch", 8)
    with pytest.raises(Killed):
        small(tmp_path / "killed", rates=(0.1, 0.01))
    kill("batch", 1)
    again = small(tmp_path / "killed", rates=(0.1, 0.01))
    assert result(again) == result(expected)
    assert capsys.readouterr().out.count("had ended") == 2
    assert again.earlier > 0


def test_early_stopping_and_the_best_weights_remember(tmp_path, kill, monkeypatch):
    monkeypatch.setattr(fit_phases, "PATIENCE", 2)
    options = {"labels": np.random.default_rng(5).integers(0, 2, 64), "epochs": 12, "rate": 0.5, "rates": (0.5, 0.1)}
    expected = small(tmp_path / "undisturbed", **options)
    epochs = len(expected.rows)
    assert epochs < 24
    for _ in range((epochs - 1) // 3):
        kill("epoch", 3)
        with pytest.raises(Killed):
            small(tmp_path / "killed", **options)
    assert result(small(tmp_path / "killed", **options)) == result(expected)


@pytest.mark.parametrize(("epochs", "patience"), [pytest.param(7, 4, marks=pytest.mark.slow), (10, 5)])
def test_a_network_from_scratch_waits_half_of_its_epochs_but_four_at_least(data, tmp_path, monkeypatch, epochs, patience):
    monkeypatch.setattr(keras.metrics.AUC, "result", lambda self: keras.ops.zeros(()))
    assert len(network(data, "none", tmp_path, "cnn", epochs=epochs).history) == 1 + patience


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 0.2},
        pytest.param({"epochs": 5}, marks=pytest.mark.slow),
        pytest.param({"labels": np.arange(64) % 2}, marks=pytest.mark.slow),
        {"basis": ["data", 1]},
    ],
)
def test_other_settings_or_data_start_anew_and_say_so(tmp_path, kill, capsys, changes):
    kill("epoch", 2)
    with pytest.raises(Killed):
        small(tmp_path)
    assert result(small(tmp_path, **changes)) == result(small(tmp_path / "undisturbed", **changes))
    assert "comes from other settings, data or code, so it is not used" in capsys.readouterr().out


def test_a_phase_whose_rate_changed_starts_from_the_end_of_the_phase_before(tmp_path, kill, capsys):
    kill("epoch", 6)
    with pytest.raises(Killed):
        small(tmp_path, rates=(0.1, 0.01))
    capsys.readouterr()
    assert result(small(tmp_path, rates=(0.1, 0.02))) == result(small(tmp_path / "undisturbed", rates=(0.1, 0.02)))
    first, second = capsys.readouterr().out.splitlines()
    assert "phase 0: had ended" in first and "small.2.state.npz comes from other settings" in second


@pytest.mark.parametrize(
    "damage", [pytest.param(b"", marks=pytest.mark.slow), b"PK\x03\x04 no zip", pytest.param(None, marks=pytest.mark.slow)]
)
def test_a_damaged_state_starts_anew_and_says_so(tmp_path, kill, capsys, damage):
    kill("epoch", 2)
    with pytest.raises(Killed):
        small(tmp_path)
    path = tmp_path / f"small.1{checkpoint.SUFFIX}"
    content = path.read_bytes()
    middle = len(content) // 2  # 64 bytes are more than what a zip leaves unchecked between two arrays
    path.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :] if damage is None else damage)
    assert result(small(tmp_path)) == result(small(tmp_path / "undisturbed"))
    assert "is damaged, so it is not used" in capsys.readouterr().out


@pytest.mark.parametrize("after", [0, 8 * 2 + 3])
def test_a_loss_that_is_no_number_stops_and_leaves_the_last_good_state(tmp_path, after):
    drawn = []

    def fetch(index, seed):
        drawn.append(seed)
        return np.full((len(index), 4, 4, 1), np.nan if seed[1] * 8 + seed[2] >= after else 1.0, dtype=np.float32)

    with pytest.raises(InputError, match="The loss of small became NaN in phase 'phase 0': lower the learning rate"):
        small(tmp_path, fetch=fetch)
    states = list(tmp_path.iterdir())
    assert len(states) == bool(after)
    for path in states:
        with np.load(path) as found:
            assert all(np.isfinite(found[name]).all() for name in found.files if name != "facts")
            facts = json.loads(found["facts"].item())
            assert len(facts["rows"]) == 2 and not facts["ended"]


def test_want_of_memory_in_a_batch_says_what_to_lower(tmp_path):
    def fetch(index, seed):
        if seed[1]:
            raise MemoryError("Unable to allocate 3 TiB")
        return np.ones((len(index), 4, 4, 1), np.float32)

    lower = pytest.raises(InputError, match="lower BATCH_SIZE, and if that is not enough IMAGE_SIZE")
    with lower, fit_phases.explained_memory():
        small(tmp_path, fetch=fetch)
    assert len(list(tmp_path.iterdir())) == 1


def test_want_of_memory_in_the_backend_says_what_to_lower():
    with pytest.raises(InputError, match="lower BATCH_SIZE"), fit_phases.explained_memory():
        keras.ops.ones((1 << 24, 1 << 24))
    with pytest.raises(ZeroDivisionError), fit_phases.explained_memory():
        _ = 1 / 0


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on a file's size there")
def test_a_full_disk_leaves_the_last_state_and_is_one_sentence(tmp_path):
    script = f"""
import resource, numpy as np
from pathlib import Path
from bhi_utils.training import checkpoint
path = Path({str(tmp_path)!r}) / "small.1{checkpoint.SUFFIX}"
checkpoint.save(path, "it", {{"epoch": 1}}, {{"model": [np.zeros(1000)]}})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(path, "it", {{"epoch": 2}}, {{"model": [np.zeros(1000), np.zeros(1_000_000)], "best": [np.zeros(9)]}})
except checkpoint.InputError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert said.stderr == "" and said.returncode == 0
    assert "Cannot write" in said.stdout and said.stdout.endswith("what was saved before is whole, and --resume continues from it.\n")
    path = tmp_path / f"small.1{checkpoint.SUFFIX}"
    facts, arrays = checkpoint.load(path, "it")
    assert facts["epoch"] == 1 and len(arrays["model"]) == 1 and list(tmp_path.iterdir()) == [path]


def test_a_fingerprint_tells_apart_what_differs():
    one = np.arange(6)
    values = [[one], [one.astype(np.int32)], [one.reshape(2, 3)], [one, one], [[one], one], [{"a": 1}], [{"a": 2}], ["a", "b"], ["ab"]]
    assert len({checkpoint.fingerprint(*each) for each in values}) == len(values)
    assert checkpoint.fingerprint({"a": 1, "b": one}) == checkpoint.fingerprint({"b": one.copy(), "a": 1})


def test_states_are_cleared_and_nothing_else(tmp_path):
    for name in (f"cnn.1{checkpoint.SUFFIX}", f".cnn.1{checkpoint.SUFFIX}.12.npz", "mine.txt"):
        (tmp_path / name).touch()
    checkpoint.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    checkpoint.clear(tmp_path / "nowhere")


@pytest.mark.slow
def test_a_run_forgets_an_unfinished_training_unless_it_resumes(write_notebook, tmp_path):
    training_notebook = write_notebook(
        "05_training_cnn_vs_efficientnetb0",
        'OUT: str = "runs/walk"  # the run\'s folder',
        "from bhi_utils.core.run import Run\nrun = Run.open(OUT)\nrun.write_json('seen.json', run.checkpoints.exists())",
    )
    write_notebook("06_metric_figures", 'OUT: str = "runs/walk"  # the run\'s folder')
    run = Run.open(tmp_path / "out")
    for options, seen in (({"resume": True}, True), ({"only": ["06"]}, True), ({}, False)):
        run.checkpoints.mkdir(exist_ok=True)
        (run.checkpoints / f"cnn.1{checkpoint.SUFFIX}").touch()
        # another value each time, so that no run finds the notebook finished
        pipeline.run({}, out=str(run.root), folder=training_notebook.parent, **options)
        assert run.checkpoints.exists() == seen
        assert run.read_json("seen.json") == seen

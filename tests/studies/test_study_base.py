"""What a fold's model says to a patch, and to its eight views."""

import numpy as np
import pandas as pd
import pytest

from bhi_utils.data import archive
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.model import augment
from bhi_utils.studies import study_base
from bhi_utils.training import cross_validation, samples, train_networks


class Corner:
    """A network whose logit is the mean of the upper left pixel: each corner of a patch is that of two of its views."""

    def predict(self, patches, **_):
        return patches[:, 0, 0].astype(np.float32).mean(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def fold(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fold")
    pack = archive.pack(synthetic_cohort.write(folder / "small.zip", cases=9, patches_per_case=20, seed=1, nested=False), cache)
    return cross_validation.deal(pack, folder, folds=3, seed=0)[1]


@pytest.mark.parametrize("views", [1, 8])
def test_the_custom_cnn_answers_for_the_patch_and_for_the_mean_of_its_views(fold, monkeypatch, views):
    monkeypatch.setattr(samples, "training_samples", lambda *_, **__: None)
    trained = train_networks.Trained(Corner(), "scratch", pd.DataFrame(), 7.0)
    monkeypatch.setattr(train_networks, "train_cnn", lambda *_, **__: trained)
    values = {"BALANCE": "none", "EPOCHS": 1, "BATCH_SIZE": 8, "CNN_IMAGE_SIZE": 50}
    found = study_base.custom_cnn(values, seed=0, answer_views=views)(fold)
    assert list(found) == ["", ", 8 views"][: 1 + (views > 1)]
    for way, logits in found.items():
        assert logits["seconds"] == 7
        for part in ("val", "test"):
            patches = fold.pack.patches[fold.rows(part)]
            turned = [augment.dihedral(patches, view)[:, 0, 0].mean(axis=1) for view in range(8 if way else 1)]
            np.testing.assert_allclose(logits[part], np.mean(turned, axis=0), rtol=1e-5)


@pytest.mark.parametrize(("own", "epochs"), [({}, 2), ({"CNN_EPOCHS": 5}, 5)])
def test_the_custom_cnn_has_epochs_of_its_own_where_the_settings_say_so(fold, monkeypatch, own, epochs):
    seen = []
    monkeypatch.setattr(samples, "training_samples", lambda *_, **__: None)
    trained = train_networks.Trained(Corner(), "scratch", pd.DataFrame(), 7.0)
    monkeypatch.setattr(train_networks, "train_cnn", lambda _pack, _table, _train, recipe, **__: seen.append(recipe.epochs) or trained)
    study_base.custom_cnn({"BALANCE": "none", "EPOCHS": 2, "BATCH_SIZE": 8, "CNN_IMAGE_SIZE": 50} | own, seed=0)(fold)
    assert seen == [epochs]

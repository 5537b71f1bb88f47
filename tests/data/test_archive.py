"""Sources by name, packs that are opened again and can be trusted, and a run's data set."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from patch_files import as_folder, as_zip, good, name, packed

from bhi_utils.core import paths
from bhi_utils.core.paths import InputError
from bhi_utils.core.run import Run
from bhi_utils.data import archive, packing, patch_listing
from bhi_utils.data.phantom import synthetic_cohort


def test_sources_by_name_path_and_neither(tmp_path, monkeypatch):
    as_zip(tmp_path / "s.zip", good())
    assert archive.find_source(f" {tmp_path / 's.zip'} ", cache=tmp_path) == tmp_path / "s.zip"
    monkeypatch.chdir(tmp_path)
    assert archive.find_source("s.zip", cache=tmp_path).resolve() == (tmp_path / "s.zip").resolve()
    assert archive.find_source("notebooks", cache=tmp_path) == paths.project_root() / "notebooks"
    for source, message in {"": "empty", "no/such": "does not exist"}.items():
        with pytest.raises(InputError, match=message):
            archive.find_source(source, cache=tmp_path)


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "a disk without them"])
def test_a_phantom_that_another_process_has_made_meanwhile_is_left_as_it_is(tmp_path, monkeypatch, links):
    """Replaced while the other packs it, it would count as changed and end that run."""

    def slow(out, **options):
        found = write(out, **options)
        if not calls:
            calls.append(out)
            made.append(archive.find_source("phantom", cache=tmp_path, phantom=small))  # what another process does meanwhile
            state.append(patch_listing.zip_state(made[0]))
        return found

    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    calls, made, state, write = [], [], [], synthetic_cohort.write
    small = {"cases": 1, "patches_per_case": 12}
    monkeypatch.setattr(synthetic_cohort, "write", slow)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    assert archive.find_source("phantom", cache=tmp_path, phantom=small) == made[0]
    assert patch_listing.zip_state(made[0])[1] == state[0][1] and patch_listing.zip_state(made[0])[3] == state[0][3]
    assert list(made[0].parent.iterdir()) == made


def test_a_pack_is_built_once_and_shows_the_source_that_was_asked_for(tmp_path):
    first = packed(as_zip(tmp_path / "a.zip", good()), tmp_path)
    built = (first.folder / "pack.json").stat().st_mtime_ns
    (tmp_path / "a.zip").rename(tmp_path / "moved.zip")
    second = packed(tmp_path / "moved.zip", tmp_path)
    assert second.folder == first.folder and (second.folder / "pack.json").stat().st_mtime_ns == built
    assert second.info["source"].endswith("moved.zip")


def test_an_untouched_zip_is_not_read_again_and_a_touched_one_is(tmp_path, monkeypatch):
    source = as_zip(tmp_path / "a.zip", good())
    first, time_of = packed(source, tmp_path), source.stat()
    with monkeypatch.context() as patch:
        patch.setattr(patch_listing, "index", lambda _: pytest.fail("the zip's directory was read again"))
        assert packed(source, tmp_path).folder == first.folder
    changed = bytearray(source.read_bytes())
    place, other = name(8863, 0, 1, 51), name(8863, 0, 901, 51)
    with zipfile.ZipFile(source) as target:
        assert place in target.namelist()
    as_zip(source, {other if member == place else member: data for member, data in good().items()})
    os.utime(source, ns=(time_of.st_atime_ns, time_of.st_mtime_ns))
    assert packed(source, tmp_path).info["fingerprint"] != first.info["fingerprint"]
    source.write_bytes(changed)
    os.utime(source, ns=(time_of.st_atime_ns, time_of.st_mtime_ns))
    assert source.stat().st_size == time_of.st_size and packed(source, tmp_path).folder == first.folder
    source.unlink()
    with pytest.raises(InputError, match="does not exist"):
        packed(source, tmp_path)


@pytest.mark.parametrize("write", [as_zip, as_folder])
def test_a_pack_of_another_format_is_never_opened_and_a_new_one_is_made(tmp_path, monkeypatch, write):
    source = write(tmp_path / "s.zip", good())
    with monkeypatch.context() as earlier:
        for module in (patch_listing, packing):
            earlier.setattr(module, "FORMAT", "bhi-pack 0")
        old = packed(source, tmp_path).folder
    with pytest.raises(InputError, match="of another version"):
        archive.open_pack(old)
    assert packed(source, tmp_path).folder != old and old.is_dir()


def test_a_pack_that_says_no_format_is_made_again(tmp_path):
    """As packs before this test do, whose format stood in the folder's name only, which the note on an untouched zip goes past."""
    source = as_zip(tmp_path / "s.zip", good())
    folder = packed(source, tmp_path).folder
    facts = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
    (folder / "pack.json").write_text(json.dumps({key: facts[key] for key in facts if key != "format"}), encoding="utf-8")
    assert "format" in json.loads((packed(source, tmp_path).folder / "pack.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("damage", ["cut pixels", "no manifest", "short manifest", "broken facts"])
def test_a_damaged_pack_is_refused_when_opened_and_made_again_when_packed(tmp_path, damage):
    pack = packed(as_zip(tmp_path / "s.zip", good()), tmp_path)
    folder, expected = pack.folder, pack.info["fingerprint"]
    del pack
    if damage == "cut pixels":
        (folder / "patches.npy").write_bytes((folder / "patches.npy").read_bytes()[:-100])
    elif damage == "no manifest":
        (folder / "manifest.npy").unlink()
    elif damage == "short manifest":
        packing.save_manifest(folder, packing.load_manifest(folder).iloc[1:])
    else:
        (folder / "pack.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="01_dataset_exploration"):
        archive.open_pack(folder)
    again = packed(tmp_path / "s.zip", tmp_path)
    assert again.folder == folder and again.info["fingerprint"] == expected
    assert list(folder.parent.iterdir()) == [folder]


def test_packed_patches_cannot_be_written_to(tmp_path):
    pack = packed(as_zip(tmp_path / "a.zip", good()), tmp_path)
    assert isinstance(pack.patches, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pack.patches[0] = 0


def test_a_source_is_found_and_packed_in_the_project_s_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))
    pack = archive.open_source(str(as_zip(tmp_path / "s.zip", good())))
    assert pack.info["patches"] == 8 and pack.folder.parent == tmp_path / "cache" / "packs"


def test_a_run_opens_the_pack_that_its_first_notebook_named(tmp_path):
    run, pack = Run.open(tmp_path / "run"), packed(as_zip(tmp_path / "s.zip", good()), tmp_path)
    with pytest.raises(InputError, match="01_dataset_exploration"):
        archive.open_dataset(run)
    run.write_json("dataset.json", archive.describe(pack))
    opened = archive.open_dataset(run)
    assert opened.info == pack.info and opened.manifest.equals(pack.manifest)
    assert json.loads((run.artifacts / "dataset.json").read_text(encoding="utf-8"))["pack"]
    for wrong in ({"fingerprint": "0" * 64}, {"pack": str(tmp_path / "gone")}, {"pack": 5}):
        run.write_json("dataset.json", archive.describe(pack) | wrong)
        with pytest.raises(InputError, match="01_dataset_exploration"):
            archive.open_dataset(run)


@pytest.mark.skipif(not os.environ.get("BHI_TEST_ARCHIVE"), reason="BHI_TEST_ARCHIVE names no real archive")
def test_the_real_archive_is_packed_without_a_rejected_patch(tmp_path):
    pack = packed(Path(os.environ["BHI_TEST_ARCHIVE"]), tmp_path)
    assert pack.rejected.empty and pack.info["patches"] == len(pack.patches) > 1000
    assert 0.2 < pack.info["positive"] / pack.info["patches"] < 0.4
    assert np.array_equal(archive.open_pack(pack.folder).patches[-1], pack.patches[-1])

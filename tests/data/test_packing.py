"""A pack is whole or absent: with any number of processes, on a full disk, and whenever a job is killed."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from patch_files import PACK_FILES, as_folder, as_zip, environment, good, name, packed, png, script

from bhi_utils.core import atomic_files
from bhi_utils.core.paths import InputError
from bhi_utils.data import archive, decode, packing, patch_listing


def test_folder_zip_and_worker_processes_give_equal_bytes(tmp_path):
    files = {name(case, k % 2, 1 + 50 * k): png((case + k) % 50) for case in (7, 8, 9) for k in range(200)}
    files[name(7, 0, 30001)] = b"broken"
    one = packed(as_zip(tmp_path / "a.zip", files), tmp_path, workers=1)
    two = archive.pack(tmp_path / "a.zip", tmp_path / "other", workers=2, progress=False)
    shuffled = list(files.items())
    random.Random(0).shuffle(shuffled)
    folder = packed(as_folder(tmp_path / "f", dict(shuffled)), tmp_path)
    for other in (two, folder):
        assert other.info["fingerprint"] == one.info["fingerprint"]
        assert np.array_equal(other.patches, one.patches) and other.rejected.equals(one.rejected)
    for table in PACK_FILES:
        assert (one.folder / table).read_bytes() == (two.folder / table).read_bytes()
    assert len(one.patches) == 600 and len(one.rejected) == 1


def test_the_fingerprint_changes_with_a_pixel_and_with_a_label(tmp_path):
    files, place = good(), name(8863, 0, 1, 51)
    seen = {packed(as_zip(tmp_path / "a.zip", files), tmp_path).info["fingerprint"]}
    seen.add(packed(as_zip(tmp_path / "b.zip", files | {place: png(99)}), tmp_path).info["fingerprint"])
    turned = {k: v for k, v in files.items() if k != place} | {name(8863, 1, 1, 51): files[place]}
    seen.add(packed(as_zip(tmp_path / "c.zip", turned), tmp_path).info["fingerprint"])
    assert len(seen) == 3


def test_a_source_that_changes_while_it_is_read_gives_no_pack(tmp_path):
    folder = as_folder(tmp_path / "f", good())
    listing = patch_listing.index(folder)
    (folder / name(8863, 0, 1, 51)).write_bytes(png(77) + b"longer")
    with pytest.raises(InputError, match="changed or failed"):
        packing.build(listing, tmp_path / "packs" / "key", progress=False)
    listing = patch_listing.index(as_zip(tmp_path / "s.zip", good()))
    as_zip(tmp_path / "s.zip", good() | {name(1, 0): png()})
    with pytest.raises(InputError, match="changed or failed"):
        packing.build(listing, tmp_path / "packs" / "key", progress=False)
    assert not list((tmp_path / "packs").iterdir())


def test_the_disk_is_checked_before_anything_is_packed(tmp_path):
    with pytest.raises(InputError, match="Not enough disk space"):
        atomic_files.check_space(tmp_path, 10**18)


def test_a_cache_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    with pytest.raises(InputError, match="Cannot write"):
        packed(as_zip(tmp_path / "s.zip", good()), tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_disk_that_fills_up_while_packing_leaves_nothing_behind(tmp_path):
    as_zip(tmp_path / "s.zip", good())
    body = """
        import resource, sys
        from pathlib import Path
        from bhi_utils.data import archive
        from bhi_utils.data.phantom import synthetic_cohort
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            archive.pack(Path(sys.argv[1]), Path(sys.argv[2]), progress=False)
        except archive.InputError as error:
            print("refused:", error)
    """
    command = script(tmp_path, body, tmp_path / "s.zip", tmp_path / "cache")
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("refused: Cannot write to") and not done.stderr
    assert not list((tmp_path / "cache" / "packs").iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_build_is_never_trusted_and_is_cleared_away(tmp_path):
    as_zip(tmp_path / "s.zip", good())
    body = """
        import sys, time
        from pathlib import Path
        from bhi_utils.data import packing, patch_listing
        packing._write = lambda listing, folder, **_: ((folder / "patches.npy").write_bytes(b"half"), time.sleep(60))
        packing.build(patch_listing.index(Path(sys.argv[1])), Path(sys.argv[2]))
    """
    packs = tmp_path / "cache" / "packs"
    folder = packs / patch_listing.index(tmp_path / "s.zip").key()
    with subprocess.Popen(script(tmp_path, body, tmp_path / "s.zip", folder), env=environment()) as process:
        deadline = time.monotonic() + 30
        while not list(packs.glob("*/patches.npy")) and time.monotonic() < deadline:
            time.sleep(0.02)
        atomic_files.sweep(packs)
        assert len(list(packs.glob("*/patches.npy"))) == 1, "a living build is left alone"
        process.send_signal(signal.SIGKILL)
    assert packed(tmp_path / "s.zip", tmp_path).folder == folder
    assert list(packs.iterdir()) == [folder]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A zip of three chunks, one of its files broken, and its pack."""
    files = {name(case, k % 2, 1 + 50 * k): png(k % 50) for case in (7, 8) for k in range(520)} | {name(7, 0, 90001): b"broken"}
    folder = tmp_path_factory.mktemp("undisturbed")
    source = as_zip(folder / "s.zip", files)
    return source, archive.pack(source, folder / "cache", workers=1, progress=False)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("moment", [1, 7, "workers", *(pytest.param(moment, marks=pytest.mark.slow) for moment in (0, 2, 3, 4, 5, 6, 8))])
def test_a_job_killed_at_any_moment_leaves_no_pack_and_a_rerun_gives_the_bytes_of_an_undisturbed_one(undisturbed, tmp_path, moment):
    """Moments: while patches are decoded, between any two files that are written, and before and after the final rename."""
    source, expected = undisturbed
    body = """
        import os, signal, sys
        from pathlib import Path
        from bhi_utils.core import worker_processes
        from bhi_utils.data import archive, packing
        moment, left = sys.argv[3], [int(sys.argv[3]) if sys.argv[3].isdigit() else -1]
        def counted(function):
            def call(*arguments, **options):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return function(*arguments, **options)
            return call
        if moment.isdigit():
            packing._write_header = counted(packing._write_header)  # twice
            os.fsync, os.rename = counted(os.fsync), counted(os.rename)
            packing.save_manifest = counted(packing.save_manifest)
            os.replace = counted(os.replace)  # paths.txt, rejected.csv, pack.json, the note on the source
        else:
            left[0] = 2
            worker_processes.ProcessPoolExecutor.submit = counted(worker_processes.ProcessPoolExecutor.submit)
        if __name__ == "__main__":
            archive.pack(Path(sys.argv[1]), Path(sys.argv[2]), workers=1 if moment.isdigit() else 2, progress=False)
    """
    cache = tmp_path / "cache"
    killed = subprocess.run(script(tmp_path, body, source, cache, moment), env=environment(), capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    whole = [folder for folder in (cache / "packs").glob("[!.]*")]
    assert len(whole) == (moment == 8)
    pack = packed(source, tmp_path)
    assert {path.name for path in pack.folder.iterdir()} == PACK_FILES and list((cache / "packs").iterdir()) == [pack.folder]
    assert all((pack.folder / file).read_bytes() == (expected.folder / file).read_bytes() for file in PACK_FILES)


def test_packing_goes_on_where_killed_worker_processes_left_off(tmp_path, capsys):
    listing = patch_listing.index(as_zip(tmp_path / "s.zip", {name(8, k % 2, 1 + k): png(k % 9) for k in range(90)}))
    chunks = [listing.members[start : start + 10] for start in range(0, 90, 10)]
    results = packing._decoded(listing, chunks, tmp_path, 2)
    found = [next(results)]
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    found.extend(results)
    assert not list(tmp_path.glob("chunk-*"))
    for chunk, (sizes, pixels) in zip(chunks, found, strict=True):
        assert decode.decode_chunk(str(tmp_path / "alone"), str(listing.source), True, chunk) == sizes
        assert (tmp_path / "alone").read_bytes() == pixels
    assert "packing goes on" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_a_mapped_array_is_never_replaced_as_windows_would_refuse(tmp_path, monkeypatch):
    def refuse_if_mapped(move):
        def moved(source, target, **options):
            mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
            for path in (str(Path(target).resolve()), str(Path(source).resolve())):
                if f"{path}/" in mapped or f"{path}\n" in mapped:
                    raise PermissionError(13, "The process cannot access the file", path)
            return move(source, target, **options)

        return moved

    for function in ("replace", "rename"):
        monkeypatch.setattr(os, function, refuse_if_mapped(getattr(os, function)))
    source = as_folder(tmp_path / "f", good())
    first = packed(source, tmp_path)
    with pytest.raises(PermissionError):
        os.rename(tmp_path / "nothing", first.folder)
    before = first.patches[:].copy()
    (source / name(8863, 0, 1, 51)).write_bytes(png(77))
    second = packed(source, tmp_path)
    assert second.folder != first.folder and not np.array_equal(second.patches, before)
    assert np.array_equal(first.patches, before) and np.array_equal(archive.open_pack(first.folder).patches, before)


def test_two_builds_of_one_source_agree_on_the_first(tmp_path):
    listing = patch_listing.index(as_zip(tmp_path / "s.zip", good()))
    folder = tmp_path / "packs" / "key"
    packing.build(listing, folder, progress=False)
    opened = archive.open_pack(folder)
    packing.build(listing, folder, progress=False)
    assert np.array_equal(opened.patches, archive.open_pack(folder).patches)
    assert list(folder.parent.iterdir()) == [folder]

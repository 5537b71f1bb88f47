"""What the app keeps of a window and of uploads, and for how long."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bhi_utils.app import upload_store


def test_a_window_keeps_its_own_region_and_the_oldest_goes_first():
    kept = upload_store.Kept(most=100, longest=60)
    for window in ("a", "b"):
        kept.put(window, window.upper(), 40)
    assert kept.get("a") == "A" and kept.get("c") is None
    kept.put("c", "C", 40)
    assert kept.get("b") is None and kept.get("a") == "A", "the one not looked at for longest"
    kept.drop("a")
    assert kept.get("a") is None and len(kept) == 1
    kept.put("d", "D", 500)
    assert kept.get("d") == "D", "one alone may be larger"


def test_a_region_that_nobody_looks_at_goes():
    kept = upload_store.Kept(longest=-1)
    kept.put("a", "A", 1)
    assert kept.get("a") is None


def test_uploads_are_gone_when_the_block_ends_and_other_files_are_never_touched(tmp_path):
    root = tmp_path / "uploads"
    inside, outside = root / "x1" / "a.png", tmp_path / "y" / "b.png"
    for path in (inside, outside):
        path.parent.mkdir(parents=True)
        path.touch()
    with (
        pytest.raises(ValueError, match="stop"),
        upload_store.Uploads(root).taken([{"path": str(inside)}, {"path": str(outside)}, {"path": ""}]) as paths,
    ):
        assert paths == [inside.resolve()]
        raise ValueError("stop")
    assert not inside.parent.exists() and outside.exists()


def test_what_a_killed_app_left_is_swept_and_what_a_running_one_has_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    code = "import time; from bhi_utils.app.upload_store import own_folder\nwith own_folder() as folder:\n"
    code += "    print(folder, flush=True); time.sleep(60)"
    environment = os.environ | {"TMPDIR": str(tmp_path), "TEMP": str(tmp_path)}
    running, killed = (subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2))
    try:
        theirs, orphan = (Path(process.stdout.readline().strip()) for process in (running, killed))
        killed.kill()
        killed.wait()
        stranger = tmp_path / "bhi-app-notes-of-mine"
        reused = tmp_path / f"bhi-app-{os.getpid()}-1-{theirs.name.split('-')[4]}-x"
        elsewhere = tmp_path / "bhi-app-999999999-1-12345-x"  # the process of a container that shares the folder
        for folder in (stranger, reused, elsewhere):
            folder.mkdir()
        assert theirs.is_dir() and orphan.is_dir()
        with upload_store.own_folder() as ours:
            assert theirs.is_dir() and ours.is_dir() and stranger.is_dir() and elsewhere.is_dir()
            assert not orphan.exists() and not reused.exists()
        assert not ours.exists()
    finally:
        for process in (running, killed):
            process.kill()
            process.wait()
            process.stdout.close()

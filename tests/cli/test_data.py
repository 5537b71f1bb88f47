"""What a data source may bring, careless or malicious: one sentence, or a listed rejection, and nothing else is touched or lost."""

import io
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import textwrap
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from patch_files import as_folder, as_zip, chunk, name, packed, png
from PIL import Image

from bhi_utils.__main__ import main
from bhi_utils.core import atomic_files
from bhi_utils.core.paths import PACKAGE, InputError
from bhi_utils.data import archive


def png_with(header: tuple[int, ...], kind: bytes, data: bytes) -> bytes:
    """A PNG of this width, height, bit depth and colour type with a chunk before random pixels of 50×50."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)), (kind, data), (b"IDAT", zlib.compress(b"\0" * 7550)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


GOOD = {name(case, k // 2, 1 + 50 * k, 51): png(10 * case + k) for case in (8863, 10253) for k in range(4)}
FIRST = next(iter(GOOD))


def reasons(pack: archive.Pack) -> dict[str, str]:
    """Why what was rejected, once it is sure that the good patches which were not are there with their pixels."""
    kept = dict(zip(pack.manifest["path"], pack.patches, strict=True))
    for path in set(GOOD) - set(pack.rejected["path"]):
        assert np.array_equal(kept[path], np.asarray(Image.open(io.BytesIO(GOOD[path]))))
    return dict(pack.rejected.itertuples(index=False))


def test_a_phantom_is_written_and_indexed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))
    assert main(["phantom", str(tmp_path / "p.zip"), "--cases", "4", "--patches", "12", "--seed", "3"]) == 0
    assert main(["index", str(tmp_path / "p.zip"), "--out", str(tmp_path / "lists")]) == 0
    said = capsys.readouterr().out
    assert "SYNTHETIC" in said and "IDC share" in said
    facts = json.loads((tmp_path / "lists" / "index.json").read_text(encoding="utf-8"))
    assert " ".join(said.splitlines()[:-1]).endswith(facts["verdict"]) and said.splitlines()[-1].startswith("Wrote index.json")
    assert len(pd.read_csv(tmp_path / "lists" / "measures.csv.gz")) == facts["totals"]["patches"]["found"]
    manifest = pd.read_csv(tmp_path / "lists" / "manifest.csv.gz")
    assert manifest["case"].nunique() == 4 and list(manifest.columns) == ["case", "x", "y", "label", "path", "width", "height"]
    assert (tmp_path / "lists" / "rejected.csv").is_file()


def test_a_path_that_a_spreadsheet_would_run_is_harmless_in_the_lists_and_comes_back_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))
    source = as_zip(tmp_path / "s.zip", {f"=1+1/{member}": data for member, data in GOOD.items()}, more=(("=2+2/no.png", b""),))
    assert main(["index", str(source), "--out", str(tmp_path / "lists")]) == 0
    pack = packed(source, tmp_path)
    assert pack.manifest["path"].str.startswith("=1+1/").all() and pack.rejected["path"].tolist() == ["=2+2/no.png"]
    for table, frame in (("manifest.csv.gz", pack.manifest), ("rejected.csv", pack.rejected)):
        written = tmp_path / "lists" / table
        assert pd.read_csv(written)["path"].str.startswith("'=").all()
        pd.testing.assert_frame_equal(atomic_files.read_csv(written), frame.reset_index(drop=True), check_dtype=False)


# ---- zips of every make


def test_zip64_and_data_descriptors_are_read(tmp_path):
    class Pipe(io.RawIOBase):
        """Cannot seek, so that lengths and checksums follow the data."""

        def __init__(self, stream):
            self.stream = stream

        def writable(self):
            return True

        def write(self, data):
            return self.stream.write(data)

    with zipfile.ZipFile(tmp_path / "zip64.zip", "w") as target:
        for member, data in GOOD.items():
            with target.open(member, "w", force_zip64=True) as stream:
                stream.write(data)
    with open(tmp_path / "piped.zip", "wb") as stream, zipfile.ZipFile(Pipe(stream), "w") as target:
        for member, data in GOOD.items():
            target.writestr(member, data)
    for source in ("zip64.zip", "piped.zip"):
        pack = packed(tmp_path / source, tmp_path)
        assert not reasons(pack) and pack.info["patches"] == 8


def test_a_name_that_stands_twice_counts_once_and_other_bytes_are_listed(tmp_path):
    same = packed(as_zip(tmp_path / "same.zip", GOOD, more=((FIRST, GOOD[FIRST]),)), tmp_path)
    assert not reasons(same) and same.info["nested_copy"] == 1
    other = packed(as_zip(tmp_path / "other.zip", GOOD, more=((FIRST, png(99)), (f"IDC_regular_ps50_idx5/{FIRST}", png(98)))), tmp_path)
    assert set(other.rejected["path"]) == {FIRST, f"IDC_regular_ps50_idx5/{FIRST}"} and other.info["patches"] == 7
    assert set(other.rejected["reason"]) == {"the same position has another patch of this class, with other bytes"}
    assert other.info["nested_copy"] == 0


def test_a_member_under_another_name_than_in_the_directory_is_listed(tmp_path):
    data = bytearray(as_zip(tmp_path / "s.zip", GOOD).read_bytes())
    at = data.index(b"10253/0/10253")
    data[at : at + 5] = b"10254"
    (tmp_path / "s.zip").write_bytes(data)
    found = reasons(packed(tmp_path / "s.zip", tmp_path))
    assert list(found) == [name(10253, 0, 1, 51)] and "another name than in the directory" in found[name(10253, 0, 1, 51)]


def test_many_names_for_one_member_make_no_patches(tmp_path):
    """The bomb of overlapping members: a small file whose directory gives one body out as many."""
    data = as_zip(tmp_path / "s.zip", GOOD).read_bytes()
    end = data.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HII", data, end + 10)
    entry, names = data[start : start + 46], [name(7, k % 2, 1 + 50 * k).encode() for k in range(200)]
    directory = data[start : start + size]
    directory += b"".join(entry[:28] + struct.pack("<H", len(text)) + entry[30:46] + text for text in names)
    record = struct.pack("<HHIIH", count + 200, count + 200, len(directory), start, 0)
    (tmp_path / "s.zip").write_bytes(data[:start] + directory + data[end : end + 8] + record)
    pack = packed(tmp_path / "s.zip", tmp_path)
    assert set(reasons(pack)) == {text.decode() for text in names} and pack.info["patches"] == 8


def test_a_zero_byte_in_a_name_is_listed(tmp_path):
    """`zipfile` cuts the name there: what ends in something else would pass for a patch, and a patch for something else."""
    data = as_zip(tmp_path / "s.zip", GOOD | {f"{name(5, 0)}~.exe": png()}).read_bytes()
    (tmp_path / "s.zip").write_bytes(data.replace(b".png~.exe", b".png\0.exe"))
    found = reasons(packed(tmp_path / "s.zip", tmp_path))
    assert found == {f"{name(5, 0)}\\x00.exe": "unsafe zip member: a zero byte in its name"}


def test_a_bomb_is_listed_whatever_it_claims(tmp_path):
    source = as_zip(tmp_path / "s.zip", GOOD | {name(5, 0): b"\0" * 30_000_000})
    assert reasons(packed(source, tmp_path)) == {name(5, 0): "30000000 bytes: too long for a patch"}
    data = bytearray(source.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 7000)  # the length that the directory claims
    source.write_bytes(data)
    assert reasons(packed(source, tmp_path)) == {name(5, 0): "damaged zip: the member's length or checksum is wrong"}


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_bomb_within_a_png_is_listed(tmp_path, kind):
    bomb = png_with((50, 50, 8, 2), kind, b"a\0\0" + zlib.compress(b"\0" * 30_000_000, 9))
    assert "cannot be decoded" in reasons(packed(as_zip(tmp_path / "s.zip", GOOD | {name(5, 0): bomb}), tmp_path))[name(5, 0)]


def test_a_png_that_claims_to_be_huge_is_listed_unread(tmp_path):
    huge = {name(5, 0): png_with((100_000, 100_000, 8, 2), b"tEXt", b""), name(6, 0): png_with((2**31 - 1, 1, 16, 6), b"tEXt", b"")}
    found = reasons(packed(as_zip(tmp_path / "s.zip", GOOD | huge), tmp_path))
    assert found == {
        name(5, 0): "100000×100000 pixels: larger than 50×50",
        name(6, 0): "2147483647×1 pixels: larger than 50×50",
    }


def test_a_zip_with_a_password_is_one_sentence(tmp_path):
    data = bytearray(as_zip(tmp_path / "s.zip", GOOD).read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            data[at + flags] |= 1
    (tmp_path / "s.zip").write_bytes(data)
    with pytest.raises(InputError, match="No usable patch in .*8 rejected, such as .*encrypted"):
        packed(tmp_path / "s.zip", tmp_path)


def test_odd_names_stay_on_one_line_and_out_of_the_file_system(tmp_path):
    odd = {name(5, 0, prefix="r\u202etl/"): png(1), name(6, 1, prefix="CON/aux/"): png(2), name(7, 0, prefix="d/" * 9000): png(3)}
    bad = {"x\x1b[31m\r\n.png": "the name is not", name("9" * 16, 0): "more than 15 digits", name("8863.", 0): "not a number"}
    pack = packed(as_zip(tmp_path / "s.zip", GOOD | odd | dict.fromkeys(bad, png())), tmp_path)
    found = reasons(pack)
    assert pack.info["patches"] == 11 and len(found) == 3
    assert all(any(reason in text for text in found.values()) for reason in bad.values())
    assert all(path.isprintable() for path in [*pack.manifest["path"], *found])
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "s.zip"}


def test_a_sentence_stays_short_however_long_a_name_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BHI_CACHE", str(tmp_path / "cache"))
    for files in ({"e/" * 20_000 + "bad.png": b""}, {name(5, k, 1 + k, prefix="e/" * 20_000): b"x" for k in (0, 1)}):
        assert main(["index", str(as_zip(tmp_path / "s.zip", files))]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("bhi: ") and " … " in said and len(said) < 700


# ---- folders


def test_links_that_lead_nowhere_or_in_a_circle_are_listed(tmp_path):
    folder = as_folder(tmp_path / "f", GOOD)
    try:
        for link, target in {"self": "self", "one": "two", "two": "one", "x.png": "x.png", "up": "..", "gone": "nowhere"}.items():
            (folder / link).symlink_to(target)
    except OSError:
        pytest.skip("links need a privilege here")
    pack = packed(folder, tmp_path)
    assert pack.info["patches"] == 8 and {"self", "one", "two", "x.png"} <= set(reasons(pack))


@pytest.mark.skipif(sys.platform != "linux", reason="makes folders beyond the longest path")
def test_folders_nested_deeper_than_a_path_can_be_are_one_sentence(tmp_path):
    folder = as_folder(tmp_path / "f", GOOD)
    inner = os.open(folder, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=inner)
        outer, inner = inner, os.open("d" * 250, os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(inner)
    with pytest.raises(InputError, match="Cannot read the folder .* … .*take it out of the source") as caught:
        packed(folder, tmp_path)
    assert len(str(caught.value)) < 500 and not (tmp_path / "cache").exists()


def test_a_name_that_no_file_can_have_is_one_sentence(capsys):
    assert main(["index", "x" * 300]) == 2 == main(["run", "--dry-run", "--data", "x" * 300])
    said = capsys.readouterr().err.splitlines()
    assert all(line.startswith("bhi: Cannot look for xxx") and len(line) < 400 for line in said)


@pytest.fixture
def public():
    """A folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs permissions that bind a user")
def test_what_may_not_be_read_or_written_is_a_sentence_or_a_rejection(public):
    """In a process of a user who is not root: root may read everything."""
    as_folder(public / "f", GOOD)
    as_folder(public / "patch", GOOD | {name(8863, 0, 999): png()})
    as_folder(public / "case", GOOD)
    as_folder(public / "linked", GOOD)
    (public / "secret" / "within").mkdir(parents=True)
    (public / "linked" / "link").symlink_to(public / "secret" / "within")
    as_zip(public / "s.zip", GOOD)
    as_zip(public / "open.zip", GOOD)
    (public / "kept").mkdir()
    (public / "cache").mkdir()
    for path in public.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    (public / "cache").chmod(0o777)
    for path in ("patch/" + name(8863, 0, 999), "case/8863", "secret", "s.zip"):
        (public / path).chmod(0)
    (public / "kept").chmod(0o555)
    body = """
        import json, os, sys
        from pathlib import Path
        # whatever is imported late is imported now: another user may not read this Python
        import kagglehub.clients, kagglesdk.kaggle_env
        from bhi_utils.data import archive, kaggle_download
        from bhi_utils.data.phantom import synthetic_cohort
        root, found = Path(sys.argv[1]), {}
        archive.pack(root / "f", root / "first", progress=False)
        archive.pack(root / "open.zip", root / "first", progress=False)
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        def tried(what, job):
            try:
                found[what] = job()
            except archive.InputError as error:
                found[what] = f"InputError: {error}"
        def listed(source, cache="cache"):
            return archive.pack(root / source, root / cache, progress=False).rejected["reason"].tolist()
        for source in ("patch", "case", "secret", "linked", "s.zip", "open.zip"):
            tried(source, lambda: listed(source))
        for cache in ("kept", "kept/below"):
            tried(f"cache {cache}", lambda: listed("f", cache))
        tried("a path below a locked folder", lambda: str(archive.find_source(str(root / "secret/p.zip"), cache=root / "cache")))
        tried("phantom into a kept cache", lambda: str(archive.find_source("phantom", cache=root / "kept")))
        tried("cache within a locked folder", lambda: listed("f", "secret/within"))
        for out in ("kept/p.zip", "kept/p", "secret/p.zip"):
            tried(out, lambda: synthetic_cohort.write(root / out, cases=1, patches_per_case=12))
        for out in ("kept/below", "secret/within"):
            tried(f"download {out}", lambda: kaggle_download.fetch(root / out))
        print(json.dumps(found))
    """
    script = public / "script.py"
    script.write_text(textwrap.dedent(body), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, str(script), str(public)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["patch"] == ["no permission to read the file"] and found["open.zip"] == []
    assert found["linked"] == ["cannot be read: Permission denied"]
    assert found["a path below a locked folder"].startswith("InputError: Cannot look for ")
    for what in ("phantom into a kept cache", "cache within a locked folder"):
        assert found[what].startswith("InputError: Cannot ") and "Permission denied" in found[what]
    for what, words in {
        "case": "Cannot read the folder",
        "secret": "Cannot read the folder",
        "s.zip": "Cannot read",
        "cache kept": "Cannot write to",
        "cache kept/below": "Cannot write to",
        "kept/p.zip": "Cannot write",
        "kept/p": "Cannot write",
        "secret/p.zip": "Cannot write",
        "download kept/below": "Cannot download to",
        "download secret/within": "Cannot download to",
    }.items():
        assert str(found[what]).startswith(f"InputError: {words}") and "Permission denied" in found[what], what
    assert not list((public / "kept").iterdir())
    (public / "patch" / name(8863, 0, 999)).chmod(0o644)
    assert archive.pack(public / "patch", public / "cache", progress=False).rejected.empty, "what may be read again is packed again"


# ---- whatever is changed in a zip


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.booleans()), min_size=1, max_size=3))
@example([(0.0, 0, False)])
def test_whatever_bytes_of_a_zip_are_changed_no_patch_is_other_than_it_was(changes):
    """In the members, or in the directory at the end, where names, lengths and offsets stand. What is no PNG by its name is no patch."""
    with tempfile.TemporaryDirectory() as folder:
        source = as_zip(Path(folder) / "s.zip", GOOD)
        data = bytearray(source.read_bytes())
        directory = data.index(b"PK\x01\x02")
        for place, value, late in changes:
            data[directory + int(place * (len(data) - directory)) if late else int(place * len(data))] = value
        source.write_bytes(data)
        try:
            pack = packed(source, Path(folder))
        except InputError as error:
            assert "\n" not in str(error) and "s.zip" in str(error)
        else:
            for path, patch in zip(pack.manifest["path"], pack.patches, strict=True):
                assert np.array_equal(patch, np.asarray(Image.open(io.BytesIO(GOOD[path]))))
            del pack, patch
        assert {path.name for path in Path(folder).iterdir()} <= {"s.zip", "cache"}


def test_a_zip_whose_members_are_links_or_lead_out_of_it_is_one_sentence(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as target:
        for member in GOOD:
            link = zipfile.ZipInfo(member)
            link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            target.writestr(link, "/etc/passwd")
            target.writestr(zipfile.ZipInfo(f"../{member}"), png())
    with pytest.raises(InputError, match="No usable patch in .*16 rejected, such as .*unsafe zip member"):
        packed(tmp_path / "s.zip", tmp_path)
    assert os.listdir(tmp_path) == ["s.zip"]

"""Whatever names, sizes and layouts a source has: what is packed is what is in it, and everything else is listed."""

import io
import os
import random
import stat
import string
import struct
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from patch_files import PACK_FILES, as_folder, as_zip, good, name, packed, png, reasons
from PIL import Image

from bhi_utils.app import patch_answer
from bhi_utils.core.paths import InputError
from bhi_utils.data import archive, decode, patch_listing
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.predict import many_files


@pytest.mark.parametrize("prefix", ["", "input/breast-histopathology-images/", "a b/ñ/"])
@pytest.mark.parametrize("write", [as_zip, as_folder])
def test_every_patch_is_found_at_any_depth_and_keeps_its_pixels(tmp_path, prefix, write):
    files = good(prefix)
    pack = packed(write(tmp_path / "source.zip", files), tmp_path)
    assert list(pack.manifest.columns) == ["case", "x", "y", "label", "path", "width", "height"]
    assert pack.manifest["case"].dtype == np.int64 and pack.manifest["label"].dtype == np.int8
    assert sorted(pack.manifest["path"]) == sorted(files)
    for row, patch in zip(pack.manifest.itertuples(), pack.patches, strict=True):
        assert np.array_equal(patch, np.asarray(Image.open(io.BytesIO(files[row.path]))))
        assert row.path == name(row.case, row.label, row.x, row.y, prefix)
    order = pack.manifest[["case", "y", "x"]]
    assert order.equals(order.sort_values(["case", "y", "x"]))
    assert pack.info["patches"] == 8 and pack.info["cases"] == 2 and pack.info["positive"] == 4
    assert pack.info["kind"] == ("zip" if write is as_zip else "folder") and pack.info["synthetic"] is False


def test_a_stored_zip_and_one_with_data_before_it_are_read(tmp_path):
    plain = packed(as_zip(tmp_path / "a.zip", good(), zipfile.ZIP_STORED), tmp_path)
    (tmp_path / "b.zip").write_bytes(b"#!a self-extracting stub\n" + (tmp_path / "a.zip").read_bytes())
    shifted = packed(tmp_path / "b.zip", tmp_path)
    assert plain.info["patches"] == shifted.info["patches"] == 8 and shifted.rejected.empty


def test_backslashes_of_a_windows_zip_are_separators(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as target:
        for member, data in good("archive/").items():
            info = zipfile.ZipInfo("placeholder")
            info.filename = member.replace("/", "\\")
            target.writestr(info, data)
    assert packed(tmp_path / "w.zip", tmp_path).info["patches"] == 8


@pytest.mark.parametrize("write", [as_zip, as_folder])
def test_the_nested_second_copy_counts_once(tmp_path, write):
    nested = "IDC_regular_ps50_idx5/"
    pack = packed(write(tmp_path / "s.zip", good(nested) | good()), tmp_path)
    assert pack.info["patches"] == 8 and pack.info["nested_copy"] == 8 and pack.rejected.empty
    assert not pack.manifest["path"].str.startswith(nested).any()


def test_a_nested_copy_alone_is_used(tmp_path):
    pack = packed(as_zip(tmp_path / "s.zip", good("IDC_regular_ps50_idx5/")), tmp_path)
    assert pack.info["patches"] == 8 and pack.info["nested_copy"] == 0


LAYOUTS = {
    "a tutorial's": lambda case, label, file: f"training/{label}/{file}" if case == "8863" else f"testing/{label}/{file}",
    "flat": lambda case, label, file: file,
    "by case": lambda case, label, file: f"{case}/{file}",
    "by class in words": lambda case, label, file: f"IDC {'positive' if label else 'negative'}/{file}",
    "another case's folder": lambda case, label, file: f"9999/{label}/{file}",
    "a class higher up": lambda case, label, file: f"{1 - label}/whatever/{file}",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("write", [as_zip, as_folder])
def test_the_name_is_the_truth_whatever_folders_it_lies_in(tmp_path, write, layout):
    expected = packed(as_zip(tmp_path / "archive.zip", good()), tmp_path)
    parts = {path: path.split("/") for path in good()}
    moved = {LAYOUTS[layout](parts[path][0], int(parts[path][1]), parts[path][2]): data for path, data in good().items()}
    pack = packed(write(tmp_path / "s.zip", moved), tmp_path)
    assert pack.rejected.empty and pack.info["patches"] == 8 and set(pack.manifest["path"]) == set(moved)
    assert pack.info["fingerprint"] == expected.info["fingerprint"]


@pytest.mark.parametrize("write", [as_zip, as_folder])
@pytest.mark.parametrize("difference", ["length", "bytes alone"])
def test_different_files_of_one_name_are_a_conflict_and_equal_ones_count_once(tmp_path, write, difference):
    place, data = name(8863, 0, 1, 51), good()[name(8863, 0, 1, 51)]
    file = place.rsplit("/", 1)[1]
    other = png(77, (50, 49)) if difference == "length" else data[:300] + bytes([data[300] ^ 1]) + data[301:]
    assert (len(other) == len(data)) == (difference == "bytes alone")
    equal = {"training/1/" + path.rsplit("/", 1)[1]: content for path, content in good().items() if "class1" in path}
    source = write(tmp_path / "s.zip", good() | equal | {f"training/0/{file}": other})
    pack = packed(source, tmp_path)
    assert reasons(pack) == {place: decode.CONFLICT, f"training/0/{file}": decode.CONFLICT}
    assert pack.info["patches"] == 7 and pack.info["nested_copy"] == len(equal) == 4
    write(tmp_path / "s.zip", good() | equal | {f"training/0/{file}": data})
    mended = packed(source, tmp_path)
    assert mended.rejected.empty and mended.info["patches"] == 8 and mended.info["nested_copy"] == 5


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a file that cannot be read")
def test_a_copy_that_cannot_be_read_is_not_taken_for_equal(tmp_path):
    source = as_folder(tmp_path / "s", good("IDC_regular_ps50_idx5/") | good())
    (source / "IDC_regular_ps50_idx5" / name(8863, 0, 1, 51)).chmod(0)
    assert "cannot be compared: no permission" in reasons(packed(source, tmp_path))[name(8863, 0, 1, 51)]


def test_case_ids_of_fifteen_digits_survive(tmp_path):
    pack = packed(as_zip(tmp_path / "a.zip", {name(10**14 + k, k % 2): png(k) for k in range(4)}), tmp_path)
    assert list(pack.manifest["case"]) == [10**14 + k for k in range(4)]


MISNAMED = {
    "8863/1/8863_idx5_x1_y999_class0.png": "class 0 and the folder 1",
    "training/0/8863_idx5_x1_y999_class1.png": "class 1 and the folder 0",
    "abc/0/abc_idx5_x1_y999_class0.png": "case id is not a number",
    "٣/0/٣_idx5_x1_y999_class0.png": "case id is not a number",
    "8863/0/8863_idx5_x-1_y999_class0.png": "the name is not",
    "8863/0/8863_idx5_x1_y999_class2.png": "the name is not",
    "8863/0/8863_idx4_x1_y999_class0.png": "the name is not",
    "8863/0/preview.png": "the name is not",
}


@pytest.mark.parametrize("write", [as_zip, as_folder])
def test_names_that_are_none_or_disagree_with_their_folder_are_listed_with_their_reason(tmp_path, write):
    pack = packed(write(tmp_path / "s.zip", good() | dict.fromkeys(MISNAMED, png())), tmp_path)
    found = reasons(pack)
    assert pack.info["patches"] == 8 and set(found) == set(MISNAMED)
    assert all(reason in found[path] for path, reason in MISNAMED.items())


def test_both_patches_of_a_position_with_two_labels_are_rejected(tmp_path):
    twice = {name(8863, 0, 5, 5): png(1), name(8863, 1, 5, 5): png(1)}
    pack = packed(as_zip(tmp_path / "s.zip", good() | twice | {f"n/{k}": v for k, v in twice.items()}), tmp_path)
    assert set(reasons(pack)) == set(twice) and pack.info["patches"] == 8 and pack.info["nested_copy"] == 2
    assert all("same position" in reason for reason in reasons(pack).values())


@pytest.mark.parametrize("write", [as_zip, as_folder])
def test_files_that_are_no_images_and_macos_shadows_are_no_patches(tmp_path, write):
    shadow = {"__MACOSX/8863/0/._8863_idx5_x1_y1_class0.png": b"x", "8863/0/._8863_idx5_x1_y1_class0.png": b"x"}
    other = {"README.txt": b"x", ".DS_Store": b"x", ".ipynb_checkpoints/a.png": b"x"}
    pack = packed(write(tmp_path / "s.zip", good() | shadow | other), tmp_path)
    assert pack.info["patches"] == 8 and pack.rejected.empty


def test_unsafe_zip_members_are_listed_and_nothing_is_written_from_a_name(tmp_path):
    unsafe = ["/" + name(1, 0), "../" + name(2, 0), "a/../../" + name(3, 0), "C:\\" + name(4, 0), "../evil.sh"]
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "s.zip"
    with zipfile.ZipFile(source, "w") as target:
        for member, data in (good() | dict.fromkeys(unsafe, png())).items():
            target.writestr(zipfile.ZipInfo(member), data)
        link = zipfile.ZipInfo(name(5, 0))
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        target.writestr(link, "/etc/passwd")
    pack = packed(source, tmp_path)
    assert pack.info["patches"] == 8 and set(reasons(pack)) == {*unsafe, name(5, 0)}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "in"]
    assert {p.name for p in pack.folder.iterdir()} == PACK_FILES


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_names_that_no_table_could_hold_are_escaped(tmp_path):
    folder = as_folder(tmp_path / "f", good())
    for odd in ("line\nbreak", "raw\udcff", 'tab\t,"quote\r'):
        as_folder(folder, {name(8863, 0, 5, prefix=odd + "/"): png(3), name("x" + odd, 0): png()})
    pack = packed(folder, tmp_path)
    assert len(pack.rejected) == 3 and pack.info["nested_copy"] == 2 and pack.info["patches"] == 9
    assert all(path.isprintable() for path in [*pack.manifest["path"], *pack.rejected["path"]])


def test_links_are_followed_but_never_in_circles(tmp_path):
    real = as_folder(tmp_path / "real", good())
    (tmp_path / "f" / "sub").mkdir(parents=True)
    try:
        (tmp_path / "f" / "data").symlink_to(real, target_is_directory=True)
        (tmp_path / "f" / "sub" / "up").symlink_to(tmp_path / "f", target_is_directory=True)
        (real / "8863" / "0" / name(8863, 0, 999).rsplit("/", 1)[1]).symlink_to(tmp_path / "nowhere")
    except OSError:
        pytest.skip("links need a privilege here")
    pack = packed(tmp_path / "f", tmp_path)
    assert pack.info["patches"] == 8 and list(pack.rejected["reason"]) == ["not a regular file"]


def test_whatever_a_name_is_parsing_gives_a_place_or_a_reason():
    draw, alphabet = random.Random(1), string.digits + "_xyclassidx5.png/\\ é\n-"
    for _ in range(3000):
        case, x, y, label = draw.randrange(10**6), draw.randrange(10**5), draw.randrange(10**5), draw.randrange(2)
        parts = tuple(name(case, label, x, y).split("/"))
        assert patch_listing.parse(parts) == (case, y, x, label)
        text = "/".join(parts)
        at = draw.randrange(len(text))
        found = patch_listing.parse(tuple((text[:at] + draw.choice(alphabet) + text[at + 1 :]).split("/")))
        assert isinstance(found, str) or (len(found) == 4 and all(value >= 0 for value in found))
        noise = "".join(draw.choices(alphabet, k=draw.randrange(1, 40)))
        assert isinstance(patch_listing.parse(tuple(noise.split("/"))), str)


def test_bad_sources_are_refused_in_one_sentence_and_leave_nothing_behind(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("hello", encoding="utf-8")
    whole = as_zip(tmp_path / "whole.zip", good()).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    directory = whole.index(b"PK\x01\x02")
    (tmp_path / "directory.zip").write_bytes(whole[:directory] + b"XX" + whole[directory + 2 :])
    as_zip(tmp_path / "nothing.zip", {})
    as_folder(tmp_path / "other", {"a/b/picture.jpg": b"x"})
    as_folder(tmp_path / "pictures", {"a/b/picture.png": png()})
    as_folder(tmp_path / "unread", {"archive.zip": whole})
    as_zip(tmp_path / "one.zip", {path: data for path, data in good().items() if "class0" in path})
    as_zip(tmp_path / "left.zip", {path: data if "class0" in path else b"x" for path, data in good().items()})
    as_zip(tmp_path / "broken.zip", dict.fromkeys(good(), b"x"))
    expected = {
        "missing": "does not exist",
        "empty": "is an empty folder",
        "text.zip": "is not a zip file",
        "cut.zip": "truncated zip",
        "directory.zip": "damaged zip",
        "nothing.zip": "No patch found",
        "other": "No patch found",
        "pictures": "No usable patch",
        "unread": "pass that file",
        "one.zip": "of class 0",
        "left.zip": "of class 0",
        "broken.zip": "No readable patch",
    }
    for source, message in expected.items():
        with pytest.raises(InputError, match=message) as error:
            packed(tmp_path / source, tmp_path)
        assert "\n" not in str(error.value) and source in str(error.value)
    assert not list((tmp_path / "cache").rglob("*.*"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_a_pipe_is_neither_read_as_source_nor_as_patch(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="neither a folder nor a zip"):
        packed(tmp_path / "pipe", tmp_path)
    folder = as_folder(tmp_path / "f", good())
    os.mkfifo(folder / name(8863, 0, 999))
    assert reasons(packed(folder, tmp_path)) == {name(8863, 0, 999): "not a regular file"}


quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
PLACES = st.tuples(st.integers(0, 3), st.integers(1, 10**9 - 1), st.integers(1, 10**9 - 1), st.integers(0, 1))
SIZES = st.tuples(st.integers(1, 53), st.integers(1, 53))
#: Folders above a case's; what a zip or a disk cannot hold in a name is left out, and so is what begins with a dot (hidden).
FOLDER = st.text(string.ascii_letters + string.digits + " _-()éñ漢", min_size=1, max_size=8).map(lambda text: f"a{text}".strip())
PREFIXES = st.lists(FOLDER, max_size=3).map(lambda folders: "".join(f"{folder}/" for folder in folders))
PLACED = st.dictionaries(PLACES, SIZES, min_size=1, max_size=12)


@quick
@given(layout=PLACED, prefix=PREFIXES, nested=st.booleans(), zipped=st.booleans())
@example(
    layout={(1, 1, 1, 0): (50, 50), (1, 1, 1, 1): (50, 50), (2, 1, 1, 0): (50, 7), (2, 2, 1, 1): (1, 1)},
    prefix="",
    nested=True,
    zipped=True,
)
def test_what_is_packed_is_what_is_there(layout, prefix, nested, zipped):
    named = {place: name(place[0], place[3], place[1], place[2], prefix) for place in layout}
    files = {named[place]: png(seed, size) for seed, (place, size) in enumerate(layout.items())}
    copies = {f"{prefix}IDC_regular_ps50_idx5/{member[len(prefix) :]}": data for member, data in files.items()} if nested else {}
    contradicted = {place for place in layout if (*place[:3], 1 - place[3]) in layout}
    large = {place for place, size in layout.items() if max(size) > 50} - contradicted
    usable = sorted(set(layout) - contradicted - large, key=lambda place: (place[0], place[2], place[1]))
    with tempfile.TemporaryDirectory() as folder:
        source = (as_zip if zipped else as_folder)(Path(folder) / "s.zip", files | copies)
        if {place[3] for place in usable} != {0, 1}:
            try:
                archive.pack(source, Path(folder) / "cache", progress=False)
            except InputError as error:
                assert str(error).count("\n") == 0
            else:
                raise AssertionError("patches of one class, or none, were accepted")
            assert not list(Path(folder).glob("cache/packs/*"))
            return
        pack = archive.pack(source, Path(folder) / "cache", progress=False)
        found = list(pack.manifest[["case", "x", "y", "label"]].itertuples(index=False, name=None))
        assert found == usable and pack.info["nested_copy"] == len(copies)
        for row, patch in zip(pack.manifest.itertuples(), pack.patches, strict=True):
            pixels = np.asarray(Image.open(io.BytesIO(files[row.path])))
            assert (row.width, row.height) == layout[(row.case, row.x, row.y, row.label)] == pixels.shape[1::-1]
            assert np.array_equal(patch[: row.height, : row.width], pixels)
            assert (patch[row.height :] == 255).all() and (patch[:, row.width :] == 255).all()
        assert sorted(pack.rejected["path"]) == sorted(named[place] for place in contradicted | large)
        again = archive.open_pack(pack.folder)
        assert again.manifest.equals(pack.manifest) and again.rejected.equals(pack.rejected)
        del pack, again, patch  # Windows deletes no file that is mapped


@quick
@given(st.text(min_size=1, max_size=60))
@example("../../8863/0/8863_idx5_x1_y1_class0.png")
@example("8863/0/8863_idx5_x1_y1_class0.png\n")
def test_any_name_in_a_zip_is_a_patch_a_listed_rejection_or_no_png(text):
    both = {name(8863, k, 1 + 50 * k): png(k) for k in (0, 1)}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "s.zip"
        with zipfile.ZipFile(source, "w") as target:
            for member, data in both.items():
                target.writestr(zipfile.ZipInfo(member), data)
            odd = zipfile.ZipInfo("placeholder.png")
            odd.filename = f"{text.encode('utf-8', 'replace').decode()}.png"
            target.writestr(odd, png(9))
        pack = archive.pack(source, Path(folder) / "cache", progress=False)
        assert pack.info["patches"] in (2, 3) and len(pack.manifest) + len(pack.rejected) + pack.info["nested_copy"] <= 3
        assert all(path.isprintable() for path in [*pack.manifest["path"], *pack.rejected["path"]])
        assert {path.name for path in Path(folder).iterdir()} == {"s.zip", "cache"}
        del pack


@quick
@given(cut=st.floats(0, 0.999))
def test_a_zip_cut_anywhere_is_refused_in_one_sentence(cut):
    with tempfile.TemporaryDirectory() as folder:
        source = as_zip(Path(folder) / "s.zip", good())
        data = source.read_bytes()
        source.write_bytes(data[: int(cut * len(data))])
        try:
            archive.pack(source, Path(folder) / "cache", progress=False)
        except InputError as error:
            assert "s.zip" in str(error) and "\n" not in str(error)
        else:
            raise AssertionError("a truncated zip was accepted")
        assert not (Path(folder) / "cache").exists()


@quick
@given(st.tuples(PLACES, PREFIXES))
def test_a_name_is_read_back_as_it_was_written(drawn):
    (case, x, y, label), prefix = drawn
    assert patch_listing.parse(tuple(name(case, label, x, y, prefix).split("/"))) == (case, y, x, label)


ENTRY = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"x"


def bomb(path: Path, members: int, *, said: int | None = None, wide: bool = True) -> Path:
    """A zip that is a directory of empty members and nothing else; its end says that there are ``said``."""
    said, size = members if said is None else said, members * len(ENTRY)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, said, said, size, 0)
    end64 += struct.pack("<4sLQL", b"PK\x06\x07", 0, size, 1)
    short = [min(said, 65_535)] * 2
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *short, size, 0, 0)
    path.write_bytes(ENTRY * members + (end64 if wide else b"") + end)
    return path


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The entries that `zipfile` makes objects of."""
    found, real = [], zipfile.ZipInfo

    class Counted(real):
        __slots__ = ()

        def __init__(self, filename="NoName", *arguments):
            found.append(filename)
            super().__init__(filename, *arguments)

    monkeypatch.setattr(zipfile, "ZipInfo", Counted)
    return found


@pytest.mark.parametrize(("members", "said", "wide"), [(40_000, None, True), (40_000, 5, True), (40_000, 5, False), (2_000_000, 5, False)])
def test_an_upload_of_too_many_members_is_refused_before_it_is_opened(tmp_path, made, members, said, wide):
    path = bomb(tmp_path / "upload.zip", members, said=said, wide=wide)
    (answer,) = patch_answer.files_answered(None, [path], "en")
    assert answer["problem"] and answer["count"] == 0 and not made


@pytest.mark.parametrize("said", [None, 5])
@pytest.mark.parametrize("way", [lambda path: list(many_files.places(path)), patch_listing.index], ids=["predict", "data source"])
def test_more_members_than_any_archive_has_are_refused_before_it_is_opened(tmp_path, made, way, said):
    path = bomb(tmp_path / "huge.zip", 1_000_001, said=said)
    with pytest.raises(InputError, match="1,000,001 members or more, and 1,000,000 are the most"):
        way(path)
    assert not made


@pytest.mark.parametrize(("members", "said"), [(20, 19), (20, 21), (0, 3)])
def test_an_end_that_says_another_number_than_there_is_is_damage(tmp_path, made, members, said):
    path = bomb(tmp_path / "lie.zip", members, said=said)
    for way in (lambda path: list(many_files.places(path)), patch_listing.index):
        with pytest.raises(InputError):
            way(path)
    assert not made


def test_whole_zips_are_read_with_a_comment_as_zip64_and_with_a_count_that_ran_over(tmp_path):
    from bhi_utils.data import patch_listing

    small = synthetic_cohort.write(tmp_path / "small.zip", cases=3, patches_per_case=12, seed=1, nested=False)
    patches = [name for _, name in many_files.places(small) if name.endswith(".png")]  # other files are listed to be refused
    assert len(patches) == len(patch_listing.index(small).members) > 30
    assert zipfile.ZipFile(small).comment
    for said, wide in ((70_000, True), (70_000 % 65_536, False)):
        with patch_listing.opened_zip(bomb(tmp_path / "many.zip", 70_000, said=said, wide=wide)) as archive:
            assert len(archive.infolist()) == 70_000
    with zipfile.ZipFile(tmp_path / "forced.zip", "w", allowZip64=True) as archive, archive.open("a.png", "w", force_zip64=True) as stream:
        stream.write(b"x")
    assert list(many_files.places(tmp_path / "forced.zip")) == [(tmp_path / "forced.zip", "a.png")]


def test_a_member_that_claims_to_inflate_to_far_more_than_a_patch_is_not_opened(tmp_path, monkeypatch):
    path = tmp_path / "s.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", b"\0" * (17 << 20))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_, **__: pytest.fail("the member was opened"))
    ((name, seen),) = many_files.checked(many_files.places(path))
    assert name.endswith("bomb.png") and seen.array is None and seen.problem


def test_a_zip_cut_short_is_damaged_and_not_the_zip_that_it_holds(tmp_path):
    inner, outer = tmp_path / "inner.zip", tmp_path / "outer.zip"
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("a.png", b"x")
    with zipfile.ZipFile(outer, "w") as archive:
        archive.write(inner, "inner.zip")
    whole = outer.read_bytes()
    outer.write_bytes(whole[: whole.index(b"PK\x05\x06") + 22])
    assert zipfile.ZipFile(outer).namelist() == ["a.png"]  # what Python makes of it
    with pytest.raises(InputError, match="cut short"):
        list(many_files.places(outer))

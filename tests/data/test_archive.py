"""What is in a source, what is refused and why, and packs that can be trusted."""

import io
import json
import multiprocessing
import os
import random
import signal
import stat
import string
import struct
import subprocess
import sys
import textwrap
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bhi_utils.core import atomic_files, paths
from bhi_utils.core.paths import PACKAGE, InputError
from bhi_utils.core.run import Run
from bhi_utils.data import archive, decode, inspection, packing, sources

Files = dict[str, bytes]
PACK_FILES = {"manifest.npy", "pack.json", "patches.npy", "paths.txt", "rejected.csv"}


def name(case: object, label: int, x: int = 1, y: int = 1, prefix: str = "") -> str:
    return f"{prefix}{case}/{label}/{case}_idx5_x{x}_y{y}_class{label}.png"


def png(seed: int = 0, size: tuple[int, int] = (50, 50), mode: str = "RGB") -> bytes:
    """An image of ``size`` (width, height) that differs by seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "PNG")
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int, depth: int = 8, colour: int = 2, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def good(prefix: str = "") -> Files:
    """Two cases with both classes, eight patches."""
    places = [(case, k // 2, 1 + 50 * k, 51) for case in (8863, 10253) for k in range(4)]
    return {name(*place, prefix=prefix): png(i) for i, place in enumerate(places)}


def as_zip(path: Path, files: Files, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as target:
        for member, data in files.items():
            target.writestr(zipfile.ZipInfo(member), data, compress_type=method)
    return path


def as_folder(path: Path, files: Files) -> Path:
    for member, data in files.items():
        (path / member).parent.mkdir(parents=True, exist_ok=True)
        (path / member).write_bytes(data)
    return path


def packed(source: Path, tmp_path: Path, **options) -> archive.Pack:
    return archive.pack(source, tmp_path / "cache", progress=False, **options)


def reasons(pack: archive.Pack) -> dict[str, str]:
    return dict(pack.rejected.itertuples(index=False))


# ---- what a pack holds


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


@pytest.mark.parametrize("write", [as_zip, as_folder])
def test_a_pack_of_another_format_is_never_opened_and_a_new_one_is_made(tmp_path, monkeypatch, write):
    source = write(tmp_path / "s.zip", good())
    with monkeypatch.context() as earlier:
        for module in (sources, packing):
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


def test_edge_patches_are_padded_white_at_right_and_bottom(tmp_path):
    files = good() | {name(8863, 0, 901): png(90, (50, 7)), name(8863, 1, 951): png(91, (13, 50))}
    pack = packed(as_zip(tmp_path / "s.zip", files), tmp_path)
    assert pack.info["padded"] == 2
    for row in pack.manifest[pack.manifest["x"] > 900].itertuples():
        original = np.asarray(Image.open(io.BytesIO(files[row.path])))
        assert original.shape[:2] == (row.height, row.width)
        patch = pack.patches[row.Index]
        assert np.array_equal(patch[: row.height, : row.width], original)
        assert (patch[row.height :] == 255).all() and (patch[:, row.width :] == 255).all()


# ---- the same content is the same, in every way of reading it


def test_folder_zip_and_worker_processes_give_equal_bytes(tmp_path):
    files = {name(case, k % 2, 1 + 50 * k): png(case + k) for case in (7, 8, 9) for k in range(400)}
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
    assert len(one.patches) == 1200 and len(one.rejected) == 1


def test_the_fingerprint_changes_with_a_pixel_and_with_a_label(tmp_path):
    files, place = good(), name(8863, 0, 1, 51)
    seen = {packed(as_zip(tmp_path / "a.zip", files), tmp_path).info["fingerprint"]}
    seen.add(packed(as_zip(tmp_path / "b.zip", files | {place: png(99)}), tmp_path).info["fingerprint"])
    turned = {k: v for k, v in files.items() if k != place} | {name(8863, 1, 1, 51): files[place]}
    seen.add(packed(as_zip(tmp_path / "c.zip", turned), tmp_path).info["fingerprint"])
    assert len(seen) == 3


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
        patch.setattr(sources, "index", lambda _: pytest.fail("the zip's directory was read again"))
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


def test_case_ids_of_fifteen_digits_survive(tmp_path):
    pack = packed(as_zip(tmp_path / "a.zip", {name(10**14 + k, k % 2): png(k) for k in range(4)}), tmp_path)
    assert list(pack.manifest["case"]) == [10**14 + k for k in range(4)]


def test_packed_patches_cannot_be_written_to(tmp_path):
    pack = packed(as_zip(tmp_path / "a.zip", good()), tmp_path)
    assert isinstance(pack.patches, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pack.patches[0] = 0


# ---- rejected, one row each

BOMB = png_claiming(65500, 65500)
BAD = {
    "empty": (b"", "empty file"),
    "no image": (b"hello", "not a PNG"),
    "a JPEG": (b"\xff\xd8\xff\xe0" + b"0" * 50, "not a PNG"),
    "cut header": (png()[:20], "truncated"),
    "cut pixels": (png()[:-2000], "truncated"),
    "cut end mark": (png()[:-12], "truncated"),
    "flipped byte": (png()[:300] + bytes([png()[300] ^ 1]) + png()[301:], "checksum"),
    "missing pixels": (png_claiming(50, 50), "cannot be decoded"),
    "too large": (png(0, (51, 50)), "51×50 pixels: larger than 50×50"),
    "bomb": (BOMB, "65500×65500 pixels"),
    "no pixels": (png_claiming(0, 50), "without pixels"),
    "grey": (png(mode="L"), "8-bit greyscale"),
    "palette": (png(mode="P"), "palette"),
    "alpha": (png(mode="RGBA"), "RGB with alpha"),
    "16 bit": (png_claiming(50, 50, 16), "16-bit RGB"),
    "transparent colour": (png_claiming(50, 50, 8, 2, chunk(b"tRNS", b"\0" * 6)), "transparent"),
    "very long": (png() + b"\0" * decode.LONGEST, "too long"),
}


@pytest.mark.parametrize("write", [as_zip, as_folder])
def test_unusable_images_are_listed_with_their_reason_and_the_rest_is_kept(tmp_path, write):
    bad = {name(8863, 0, 1001 + 50 * i): data for i, (data, _) in enumerate(BAD.values())}
    pack = packed(write(tmp_path / "s.zip", good() | bad), tmp_path)
    assert pack.info["patches"] == 8 and pack.info["rejected"] == len(BAD)
    found = reasons(pack)
    for path, (what, (_, reason)) in zip(bad, BAD.items(), strict=True):
        assert reason in found[path], what


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


def test_a_damaged_member_of_a_zip_is_rejected_and_the_others_are_kept(tmp_path):
    source = as_zip(tmp_path / "s.zip", good())
    with zipfile.ZipFile(source) as target:
        first, second, third = target.infolist()[:3]
    data = bytearray(source.read_bytes())
    data[first.header_offset + 200] ^= 0xFF
    data[second.header_offset] ^= 0xFF
    source.write_bytes(data)
    pack = packed(source, tmp_path)
    assert set(reasons(pack)) == {first.filename, second.filename} and third.filename in set(pack.manifest["path"])
    assert all("damaged zip" in reason for reason in reasons(pack).values())


def test_encrypted_and_oddly_compressed_members_are_rejected(tmp_path):
    with zipfile.ZipFile(as_zip(tmp_path / "s.zip", good()), "a") as target:
        target.writestr(name(1, 0), png(), zipfile.ZIP_LZMA)
        target.writestr(name(2, 0), png())
    data = (tmp_path / "s.zip").read_bytes()
    at = data.rindex(b"PK\x01\x02")
    (tmp_path / "s.zip").write_bytes(data[: at + 8] + bytes([data[at + 8] | 1]) + data[at + 9 :])
    found = reasons(packed(tmp_path / "s.zip", tmp_path))
    assert "compression method 14" in found[name(1, 0)] and "encrypted" in found[name(2, 0)]


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
        assert sources.parse(parts) == (case, y, x, label)
        text = "/".join(parts)
        at = draw.randrange(len(text))
        found = sources.parse(tuple((text[:at] + draw.choice(alphabet) + text[at + 1 :]).split("/")))
        assert isinstance(found, str) or (len(found) == 4 and all(value >= 0 for value in found))
        noise = "".join(draw.choices(alphabet, k=draw.randrange(1, 40)))
        assert isinstance(sources.parse(tuple(noise.split("/"))), str)


def test_whatever_the_bytes_are_decoding_gives_a_patch_or_a_reason():
    draw, whole = random.Random(2), png(5)
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        if draw.random() < 0.3:
            del data[draw.randrange(len(data)) :]
        try:
            assert decode.decode(bytes(data)).shape == (50, 50, 3)
        except decode.Rejected as reason:
            assert str(reason)


# ---- bad sources, one sentence each


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


def test_a_source_that_changes_while_it_is_read_gives_no_pack(tmp_path):
    folder = as_folder(tmp_path / "f", good())
    listing = sources.index(folder)
    (folder / name(8863, 0, 1, 51)).write_bytes(png(77) + b"longer")
    with pytest.raises(InputError, match="changed or failed"):
        packing.build(listing, tmp_path / "packs" / "key", progress=False)
    listing = sources.index(as_zip(tmp_path / "s.zip", good()))
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


def script(tmp_path: Path, body: str, *arguments: object) -> list[str]:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(body), encoding="utf-8")
    return [sys.executable, str(path), *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(PACKAGE.parent)}


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


# ---- killed, damaged, shared


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_build_is_never_trusted_and_is_cleared_away(tmp_path):
    as_zip(tmp_path / "s.zip", good())
    body = """
        import sys, time
        from pathlib import Path
        from bhi_utils.data import packing, sources
        packing._write = lambda listing, folder, **_: ((folder / "patches.npy").write_bytes(b"half"), time.sleep(60))
        packing.build(sources.index(Path(sys.argv[1])), Path(sys.argv[2]))
    """
    packs = tmp_path / "cache" / "packs"
    folder = packs / sources.index(tmp_path / "s.zip").key()
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
    files = {name(case, k % 2, 1 + 50 * k): png(k % 50) for case in (7, 8) for k in range(600)} | {name(7, 0, 90001): b"broken"}
    folder = tmp_path_factory.mktemp("undisturbed")
    source = as_zip(folder / "s.zip", files)
    return source, archive.pack(source, folder / "cache", workers=1, progress=False)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("moment", [*range(9), "workers"])
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
    listing = sources.index(as_zip(tmp_path / "s.zip", {name(8, k % 2, 1 + k): png(k % 9) for k in range(90)}))
    chunks = [listing.members[start : start + 10] for start in range(0, 90, 10)]
    results = packing._decoded(listing, chunks, tmp_path, 2)
    found = [next(results)]
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    found.extend(results)
    expected = [decode.decode_chunk(str(listing.source), True, chunk) for chunk in chunks]
    assert all(np.array_equal(one.patches, two.patches) for one, two in zip(found, expected, strict=True))
    assert "packing goes on" in capsys.readouterr().err and not list(tmp_path.glob("chunk-*"))


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
    listing = sources.index(as_zip(tmp_path / "s.zip", good()))
    folder = tmp_path / "packs" / "key"
    packing.build(listing, folder, progress=False)
    opened = archive.open_pack(folder)
    packing.build(listing, folder, progress=False)
    assert np.array_equal(opened.patches, archive.open_pack(folder).patches)
    assert list(folder.parent.iterdir()) == [folder]


# ---- sources by name, a run's data set, tables


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
    from bhi_utils.data.phantom import synthetic_cohort

    def slow(out, **options):
        found = write(out, **options)
        if not calls:
            calls.append(out)
            made.append(archive.find_source("phantom", cache=tmp_path, phantom=small))  # what another process does meanwhile
            state.append(sources.zip_state(made[0]))
        return found

    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    calls, made, state, write = [], [], [], synthetic_cohort.write
    small = {"cases": 3, "patches_per_case": 12}
    monkeypatch.setattr(synthetic_cohort, "write", slow)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    assert archive.find_source("phantom", cache=tmp_path, phantom=small) == made[0]
    assert sources.zip_state(made[0])[1] == state[0][1] and sources.zip_state(made[0])[3] == state[0][3]
    assert list(made[0].parent.iterdir()) == made


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


def test_exact_duplicates_are_grouped_with_what_is_wrong_with_them(tmp_path):
    white = io.BytesIO()
    Image.new("RGB", (50, 50), "white").save(white, "PNG")
    narrow = io.BytesIO()
    Image.new("RGB", (40, 50), "white").save(narrow, "PNG")
    files = good() | {name(8863, 0, 901): white.getvalue(), name(8863, 0, 951): white.getvalue()}
    files |= {name(10253, 0, 901): png(50), name(8863, 1, 2001): png(50), name(10253, 1, 951): png(50)}
    files |= {name(10253, 1, 3001): narrow.getvalue()}
    pack = packed(as_zip(tmp_path / "s.zip", files), tmp_path)
    groups = inspection.exact_duplicates(pack)
    assert groups[["patches", "cases", "positive"]].to_numpy().tolist() == [[3, 2, 2], [2, 1, 0]]
    assert list(groups["across_cases"]) == [True, False] and list(groups["contradictory"]) == [True, False]
    assert list(groups["blank"]) == [False, True]
    assert pack.manifest.loc[list(groups["rows"][0]), "case"].tolist() == [8863, 10253, 10253]
    assert pack.info["patches"] == 14 and pack.info["padded"] == 1
    cases = archive.per_case(pack.manifest).set_index("case")
    assert cases.loc[8863, ["patches", "positive", "share"]].tolist() == [7, 3, 3 / 7]


def test_tables_of_a_clean_source_are_empty_but_whole(tmp_path):
    pack = packed(as_zip(tmp_path / "s.zip", good()), tmp_path)
    assert inspection.exact_duplicates(pack).empty and "across_cases" in inspection.exact_duplicates(pack)
    assert pack.rejected.empty and list(pack.rejected.columns) == ["path", "reason"]


def test_a_worker_loads_neither_pandas_nor_a_network_library():
    code = "import sys, bhi_utils.data.decode; print({'pandas', 'keras', 'tensorflow', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.skipif(not os.environ.get("BHI_TEST_ARCHIVE"), reason="BHI_TEST_ARCHIVE names no real archive")
def test_the_real_archive_is_packed_without_a_rejected_patch(tmp_path):
    pack = packed(Path(os.environ["BHI_TEST_ARCHIVE"]), tmp_path)
    assert pack.rejected.empty and pack.info["patches"] == len(pack.patches) > 1000
    assert 0.2 < pack.info["positive"] / pack.info["patches"] < 0.4
    assert np.array_equal(archive.open_pack(pack.folder).patches[-1], pack.patches[-1])

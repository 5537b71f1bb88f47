"""What bytes become a patch, and for which reason others are rejected."""

import io
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from patch_files import as_folder, as_zip, chunk, environment, good, name, packed, png, png_claiming, reasons
from PIL import Image

from bhi_utils.data import decode

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
    "a second header": (png_claiming(50, 50, 8, 2, png_claiming(300, 300)[8:33]), "two headers"),
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


@pytest.mark.parametrize("module", ["decode", "patch_measures"])
def test_a_worker_loads_neither_pandas_nor_a_network_library(module):
    code = f"import sys, bhi_utils.data.{module}; print({{'pandas', 'scipy', 'keras', 'tensorflow', 'matplotlib'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr

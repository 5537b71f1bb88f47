"""Whatever names, sizes and layouts a source has: what is packed is what is in it, and everything else is listed."""

import io
import string
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from bhi_utils.core.paths import InputError
from bhi_utils.data import archive, sources

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
PLACES = st.tuples(st.integers(0, 3), st.integers(1, 10**9 - 1), st.integers(1, 10**9 - 1), st.integers(0, 1))
SIZES = st.tuples(st.integers(1, 53), st.integers(1, 53))
#: Folders above a case's; what a zip or a disk cannot hold in a name is left out, and so is what begins with a dot (hidden).
FOLDER = st.text(string.ascii_letters + string.digits + " _-()éñ漢", min_size=1, max_size=8).map(lambda text: f"a{text}".strip())
PREFIXES = st.lists(FOLDER, max_size=3).map(lambda folders: "".join(f"{folder}/" for folder in folders))
LAYOUTS = st.dictionaries(PLACES, SIZES, min_size=1, max_size=12)


def name(case: int, x: int, y: int, label: int, prefix: str = "") -> str:
    return f"{prefix}{case}/{label}/{case}_idx5_x{x}_y{y}_class{label}.png"


def png(width: int, height: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write(root: Path, files: dict[str, bytes], zipped: bool) -> Path:
    source = root / ("s.zip" if zipped else "s")
    if zipped:
        with zipfile.ZipFile(source, "w") as target:
            for member, data in files.items():
                target.writestr(zipfile.ZipInfo(member), data)
        return source
    for member, data in files.items():
        (source / member).parent.mkdir(parents=True, exist_ok=True)
        (source / member).write_bytes(data)
    return source


@quick
@given(layout=LAYOUTS, prefix=PREFIXES, nested=st.booleans(), zipped=st.booleans())
@example(
    layout={(1, 1, 1, 0): (50, 50), (1, 1, 1, 1): (50, 50), (2, 1, 1, 0): (50, 7), (2, 2, 1, 1): (1, 1)},
    prefix="",
    nested=True,
    zipped=True,
)
def test_what_is_packed_is_what_is_there(layout, prefix, nested, zipped):
    files = {name(*place, prefix=prefix): png(*size, seed) for seed, (place, size) in enumerate(layout.items())}
    copies = {f"{prefix}IDC_regular_ps50_idx5/{member[len(prefix) :]}": data for member, data in files.items()} if nested else {}
    contradicted = {place for place in layout if (*place[:3], 1 - place[3]) in layout}
    large = {place for place, size in layout.items() if max(size) > 50} - contradicted
    usable = sorted(set(layout) - contradicted - large, key=lambda place: (place[0], place[2], place[1]))
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder), files | copies, zipped)
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
        assert sorted(pack.rejected["path"]) == sorted(name(*place, prefix=prefix) for place in contradicted | large)
        again = archive.open_pack(pack.folder)
        assert again.manifest.equals(pack.manifest) and again.rejected.equals(pack.rejected)
        del pack, again, patch  # Windows deletes no file that is mapped


@quick
@given(st.text(min_size=1, max_size=60))
@example("../../8863/0/8863_idx5_x1_y1_class0.png")
@example("8863/0/8863_idx5_x1_y1_class0.png\n")
def test_any_name_in_a_zip_is_a_patch_a_listed_rejection_or_no_png(text):
    good = {name(8863, 1 + 50 * k, 1, k): png(50, 50, k) for k in (0, 1)}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "s.zip"
        with zipfile.ZipFile(source, "w") as target:
            for member, data in good.items():
                target.writestr(zipfile.ZipInfo(member), data)
            odd = zipfile.ZipInfo("placeholder.png")
            odd.filename = f"{text.encode('utf-8', 'replace').decode()}.png"
            target.writestr(odd, png(50, 50, 9))
        pack = archive.pack(source, Path(folder) / "cache", progress=False)
        assert pack.info["patches"] in (2, 3) and len(pack.manifest) + len(pack.rejected) + pack.info["nested_copy"] <= 3
        assert all(path.isprintable() for path in [*pack.manifest["path"], *pack.rejected["path"]])
        assert {path.name for path in Path(folder).iterdir()} == {"s.zip", "cache"}
        del pack


@quick
@given(cut=st.floats(0, 0.999))
def test_a_zip_cut_anywhere_is_refused_in_one_sentence(cut):
    files = {name(case, 1 + 50 * k, 1, k % 2): png(50, 50, k) for case in (1, 2) for k in range(4)}
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder), files, True)
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
    assert sources.parse(tuple(name(case, x, y, label, prefix).split("/"))) == (case, y, x, label)

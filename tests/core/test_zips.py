"""A zip's members are counted before anything is made of them, whatever its end says, on every way in."""

import struct
import zipfile
from pathlib import Path

import pytest

from bhi_utils.app import patch_answer
from bhi_utils.core.paths import InputError
from bhi_utils.data import sources
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.predict import many_files

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
@pytest.mark.parametrize("way", [lambda path: list(many_files.places(path)), sources.index], ids=["predict", "data source"])
def test_more_members_than_any_archive_has_are_refused_before_it_is_opened(tmp_path, made, way, said):
    path = bomb(tmp_path / "huge.zip", 1_000_001, said=said)
    with pytest.raises(InputError, match="1,000,001 members or more, and 1,000,000 are the most"):
        way(path)
    assert not made


@pytest.mark.parametrize(("members", "said"), [(20, 19), (20, 21), (0, 3)])
def test_an_end_that_says_another_number_than_there_is_is_damage(tmp_path, made, members, said):
    path = bomb(tmp_path / "lie.zip", members, said=said)
    for way in (lambda path: list(many_files.places(path)), sources.index):
        with pytest.raises(InputError):
            way(path)
    assert not made


def test_whole_zips_are_read_with_a_comment_as_zip64_and_with_a_count_that_ran_over(tmp_path):
    from bhi_utils.data import sources

    small = synthetic_cohort.write(tmp_path / "small.zip", cases=3, patches_per_case=12, seed=1, nested=False)
    patches = [name for _, name in many_files.places(small) if name.endswith(".png")]  # other files are listed to be refused
    assert len(patches) == len(sources.index(small).members) > 30
    assert zipfile.ZipFile(small).comment
    for said, wide in ((70_000, True), (70_000 % 65_536, False)):
        with sources.opened_zip(bomb(tmp_path / "many.zip", 70_000, said=said, wide=wide)) as archive:
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
    assert name.endswith("bomb.png") and seen.patch is None and seen.problem


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

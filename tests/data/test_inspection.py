"""What `bhi index` finds: every kind of defect where it was put, and none where none was."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_files import as_zip, good, name, packed, png
from PIL import Image
from scipy import ndimage

from bhi_utils.core import atomic_files
from bhi_utils.data import archive, inspection, near_duplicates, patch_measures, published
from bhi_utils.data.archive import Pack
from bhi_utils.data.phantom import synthetic_cohort

WHOLE = (50, 50)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Pack:
    """Synthetic tissue without a defect: 6 cases."""
    folder = tmp_path_factory.mktemp("cohort")
    source = synthetic_cohort.write(folder / "p.zip", cases=6, patches_per_case=40, seed=5)
    return archive.pack(source, folder / "cache", progress=False)


@pytest.fixture(scope="module")
def tissue(cohort) -> np.ndarray:
    """Whole patches with tissue in most of each, uint8 (n, 50, 50, 3)."""
    found = patch_measures.measure(cohort.patches, cohort.manifest[["width", "height"]].to_numpy(np.uint8))
    return np.asarray(cohort.patches[(found["background"] < 0.3) & (found["sharpness"] > 0) & (found["fold"] < 0)])


def pack_of(folder: Path, patches, *, cases=1, labels=0, sizes=WHOLE, synthetic=False, rejected=()) -> Pack:
    """A pack of patches; one case, label and size for all, or a list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    count = len(patches)
    manifest = pd.DataFrame({"case": np.broadcast_to(cases, count), "x": 50 * np.arange(count) + 1, "y": 1})
    manifest["label"] = np.broadcast_to(labels, count).astype(np.int8)
    manifest["path"] = [f"{c}/{z}/{c}_idx5_x{x}_y1_class{z}.png" for c, x, z in manifest[["case", "x", "label"]].itertuples(index=False)]
    manifest[["width", "height"]] = np.broadcast_to(sizes, (count, 2))
    np.save(folder / "patches.npy", np.asarray(patches, np.uint8))
    info = {"source": "here", "kind": "folder", "synthetic": synthetic, "fingerprint": "f", "patches": count, "nested_copy": 0}
    table = pd.DataFrame(rejected, columns=["path", "reason"], dtype="str")
    return Pack(folder, np.load(folder / "patches.npy", mmap_mode="r"), manifest, table, info)


def look(folder: Path, patches, **facts) -> inspection.Inspection:
    return inspection.inspect(pack_of(folder, patches, **facts), workers=1, progress=False)


def flagged(found: inspection.Inspection) -> dict[str, int]:
    return {name: found.facts[name]["patches"] for name in inspection.FLAGS}


def near_facts(found: inspection.Inspection) -> tuple[int, int, int]:
    """Pairs within a case, across cases, and with both labels."""
    facts = found.facts["near_duplicates"]
    assert facts["pairs"] == facts["within_a_case"]["pairs"] + facts["across_cases"]["pairs"]
    return facts["within_a_case"]["pairs"], facts["across_cases"]["pairs"], facts["both_labels"]


def jpeg(patch: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(patch).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def stroke(patches: np.ndarray, colour: tuple[int, int, int], width: int = 6) -> np.ndarray:
    """A diagonal line of ink over each patch."""
    rows, columns = np.indices(WHOLE)
    painted = patches.copy()
    painted[:, np.abs(rows - columns) < width // 2] = colour
    return painted


def folded(patches: np.ndarray) -> np.ndarray:
    """A band across each patch in which the tissue lies on itself twice: three times the optical density."""
    painted = patches.astype(float)
    painted[:, 15:32] = 255 * (painted[:, 15:32] / 255) ** 3
    return painted.round().astype(np.uint8)


def blurred(patches: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(patches.astype(float), (0, sigma, sigma, 0)).round().astype(np.uint8)


# ---- measures and flags


def test_patches_without_a_defect_are_not_flagged(cohort):
    found = inspection.inspect(cohort, progress=False)
    assert all(count <= 0.02 * len(cohort.patches) for count in flagged(found).values())
    facts = found.facts
    assert near_facts(found) == (0, 0, 0) and facts["exact_duplicates"]["groups"] == 0 and facts["rejected"]["files"] == 0
    assert facts["nested_copy"] == {"files": len(cohort.patches), "every_patch_twice": True}


INKS = {"blue": (40, 60, 170), "green": (30, 130, 100), "black": (25, 24, 28), "brown": (120, 80, 30), "yellow": (210, 180, 60)}


@pytest.mark.parametrize("colour", INKS.values(), ids=INKS)
def test_a_pen_stroke_is_found_in_every_colour_but_red(tmp_path, tissue, colour):
    found = look(tmp_path, np.concatenate([stroke(tissue[:20], colour), tissue[20:60]]))
    assert found.measures["is_pen"].tolist() == [1] * 20 + [0] * 40
    assert found.facts["pen"]["patches"] == sum(found.facts["pen"]["most_of_it"].values()) == 20
    assert flagged(look(tmp_path / "red", stroke(tissue[:20], (200, 30, 40))))["pen"] == 0


def test_a_fold_is_found(tmp_path, tissue):
    found = look(tmp_path, np.concatenate([folded(tissue[:30]), tissue[30:60]]))
    assert found.measures["is_fold"][:30].mean() >= 0.8 and not found.measures["is_fold"][30:].any()


def test_a_blurred_patch_is_found_beside_the_others_of_its_case(tmp_path, tissue):
    found = look(tmp_path, np.concatenate([blurred(tissue[:10], 1.5), tissue[10:60]]))
    assert found.measures["is_blur"].tolist() == [1] * 10 + [0] * 50
    assert found.facts["blur"]["judged"] == 60
    alone = look(tmp_path / "case", blurred(tissue[:50], 1.5))
    assert flagged(alone)["blur"] == 0, "a case that is blurred as a whole has nothing to compare with, as the documentation says"


def test_glass_is_background_and_nothing_else(tmp_path, tissue):
    noise = np.random.default_rng(0).integers(-3, 4, (4, 50, 50, 3))
    glass = np.concatenate([240 + noise[:2], 180 + noise[2:]]).astype(np.uint8)
    found = look(tmp_path, np.concatenate([glass, tissue[:30]]))
    assert flagged(found) == {"background": 4, "pen": 0, "fold": 0, "blur": 0}
    assert found.facts["near_duplicates"]["compared"] == 30


def test_the_padding_of_an_edge_patch_is_not_measured(tmp_path, tissue):
    padded = tissue[:3].copy()
    padded[:, 20:] = 255
    found = look(tmp_path, padded, sizes=(50, 20))
    assert flagged(found)["background"] == 0 and found.measures["sharpness"].isna().all()
    assert found.facts["edge_patches"] == {"patches": 3, "sizes": {"50×20": 3}}


def test_measures_do_not_depend_on_the_neighbours_in_the_array(tissue):
    sizes = np.full((len(tissue), 2), 50, np.uint8)
    together = patch_measures.measure(tissue, sizes)
    alone = np.concatenate([patch_measures.measure(tissue[k : k + 1], sizes[:1]) for k in range(len(tissue))])
    for field in patch_measures.RECORD.names:
        np.testing.assert_allclose(together[field], alone[field], rtol=1e-5, atol=1e-5, err_msg=field)


# ---- copies

CHANGES = {
    "brighter": lambda patch: np.minimum(patch.astype(int) + 2, 255),
    "darker": lambda patch: np.maximum(patch.astype(int) - 1, 0),
    "JPEG": lambda patch: jpeg(patch, 90),
    "noise": lambda patch: np.clip(patch + np.random.default_rng(0).normal(0, 4, patch.shape), 0, 255).round(),
    "turned": lambda patch: np.rot90(patch),
    "mirrored": lambda patch: patch[:, ::-1],
    "turned, mirrored, compressed": lambda patch: jpeg(np.ascontiguousarray(np.rot90(patch[::-1], 3)), 90),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_copy_is_found_and_unrelated_patches_are_not(tmp_path, tissue, change):
    originals = tissue[:40]
    changed = np.stack([change(patch) for patch in originals[:20]])
    found = look(tmp_path, np.concatenate([originals, changed]), cases=[7] * 40 + [7] * 10 + [8] * 10, labels=[0] * 40 + [1] * 5 + [0] * 15)
    assert near_facts(found) == (10, 10, 5)
    facts = found.facts["near_duplicates"]
    assert facts["groups"] == 20 and facts["patches"] == 40 and facts["crowded"] == 0
    assert facts["turned_or_mirrored"] in (0, 20)
    assert [(group["positive"], group["cases"]) for group in facts["listed"]] == [(1, 1)] * 5 + [(0, 2)] * 10 + [(0, 1)] * 5
    assert found.facts["exact_duplicates"]["groups"] == 0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), quarter=st.integers(0, 3), mirrored=st.booleans(), shift=st.integers(-2, 2))
def test_any_turn_and_small_shift_of_any_picture_is_found(seed, quarter, mirrored, shift):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(10, 240, (2, 7, 7, 3)).astype(float)
    one, other = ndimage.zoom(coarse, (1, 50 / 7, 50 / 7, 1), order=1).clip(5, 250).round().astype(np.uint8)
    copy = np.rot90(one[:, ::-1] if mirrored else one, quarter) + np.int16(shift)
    patches = np.stack([one, other, copy]).astype(np.uint8)
    records = patch_measures.measure(patches, np.full((3, 2), 50, np.uint8))
    found = near_duplicates.find(records, np.arange(3), lambda rows: patches[rows])
    assert found.pairs.tolist() == [[0, 2]]


def test_equal_patches_are_exact_duplicates_and_not_near_ones(tmp_path, tissue):
    white = np.full((3, 50, 50, 3), 255, np.uint8)
    found = look(tmp_path, np.concatenate([tissue[:10], tissue[:3], white]), cases=[1] * 11 + [2] * 5, labels=[0] * 12 + [1] * 4)
    facts = found.facts["exact_duplicates"]
    assert facts["surplus"] == 3 and facts["groups"] == 4
    assert facts["within_a_case"] == {"groups": 1, "surplus": 1} and facts["across_cases"] == {"groups": 2, "surplus": 2}
    assert facts["both_labels"] == {"groups": 1, "patches": 2}
    assert facts["one_colour"] == {"groups": 1, "surplus": 2, "both_labels": 0}
    assert [(group["patches"], group["positive"], group["one_colour"]) for group in facts["listed"]][0] == (2, 1, False)
    assert near_facts(found) == (0, 0, 0)


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


def test_a_crowd_of_copies_is_searched_in_part_and_the_rest_is_counted(tmp_path, tissue):
    noise = np.random.default_rng(1).integers(-1, 2, (120, 50, 50, 3))
    crowd = np.clip(tissue[0].astype(int) + noise, 0, 255)
    found = look(tmp_path, np.concatenate([crowd, tissue[1:30]])).facts["near_duplicates"]
    assert found["crowded"] == 120
    assert 119 <= found["pairs"] <= 120 * near_duplicates.NEIGHBOURS, "not the 7,140 pairs there are"
    assert found["groups"] == 1 and found["patches"] == 120 and len(found["listed"][0]["paths"]) == inspection.PATHS


def test_patches_with_nothing_in_them_are_not_compared_but_counted(tmp_path):
    plain = np.random.default_rng(2).integers(150, 156, (300, 50, 50, 3)) + [40, 0, 30]
    found = look(tmp_path, plain).facts["near_duplicates"]
    assert found["pairs"] == found["compared"] == 0 and found["not_compared"] == 300


def test_lists_are_capped_and_the_true_number_stands_beside(tmp_path, tissue):
    many = np.concatenate([tissue, tissue]) if len(tissue) > inspection.GROUPS else pytest.fail("too little tissue")
    reasons = [(f"{k}.png", f"reason {k % 30}") for k in range(250)]
    facts = look(tmp_path, many, rejected=reasons).facts
    assert facts["exact_duplicates"]["groups"] == len(tissue) and len(facts["exact_duplicates"]["listed"]) == inspection.GROUPS
    assert facts["rejected"]["files"] == 250 and len(facts["rejected"]["listed"]) == inspection.FILES
    assert len(facts["rejected"]["reasons"]) == inspection.REASONS and facts["rejected"]["further_reasons"] == 10


# ---- counts beside the published ones


def manifest_of(counts: pd.DataFrame) -> pd.DataFrame:
    """One row a patch for ``case, negative, positive``."""
    negative, positive = (counts["case"].repeat(counts[name]) for name in ("negative", "positive"))
    table = pd.DataFrame({"case": pd.concat([negative, positive], ignore_index=True)})
    return table.assign(label=np.repeat([0, 1], [len(negative), len(positive)]))


def test_the_whole_archive_is_told_in_one_line():
    facts = published.compare(manifest_of(published.case_table()), synthetic=False)
    assert facts["states"] == {"as published": 279, "fewer": 0, "more": 0, "missing": 0, "not published": 0}
    assert {name: row["found"] for name, row in facts["totals"].items()} == published.archive_totals()
    assert all(row["difference"] == 0 for row in facts["totals"].values())
    assert published.verdict(facts) == "All 277,524 patches of 279 cases are there, each case with its published counts."


def test_a_sample_is_called_a_sample_and_not_broken():
    counts = published.case_table().head(200)
    counts["negative"] //= 20
    facts = published.compare(manifest_of(counts), synthetic=False)
    assert facts["states"]["missing"] == 79 and facts["states"]["fewer"] == 200
    said = published.verdict(facts)
    assert "a sample and not because something is broken" in said and f"{facts['totals']['patches']['found']:,} of 277,524" in said


def test_cases_with_too_many_patches_and_unknown_ids_are_called_wrong():
    counts = published.case_table()
    counts.loc[0, ["negative", "positive"]] += [-5, 1]
    counts = pd.concat([counts, pd.DataFrame({"case": [99999], "negative": [3], "positive": [2]})])
    facts = published.compare(manifest_of(counts), synthetic=False)
    assert facts["states"] == {"as published": 278, "fewer": 0, "more": 1, "missing": 0, "not published": 1}
    said = published.verdict(facts)
    assert said.startswith("Something is wrong") and str(counts["case"].iloc[0]) in said and "99999" in said
    (row,) = [case for case in facts["cases"] if case["case"] == 99999]
    assert row == {
        "case": 99999,
        "negative": 3,
        "positive": 2,
        "published_negative": None,
        "published_positive": None,
        "state": "not published",
    }


def test_another_collection_and_a_synthetic_cohort_are_not_called_broken():
    counts = pd.DataFrame({"case": [1, 2], "negative": [3, 4], "positive": [2, 2]})
    assert "another collection" in published.verdict(published.compare(manifest_of(counts), synthetic=False))
    facts = published.compare(manifest_of(counts), synthetic=True)
    assert facts["compared"] is False and facts["totals"]["patches"] == {"found": 11, "published": None, "difference": None}
    assert "synthetic" in published.verdict(facts) and len(facts["cases"]) == 2


# ---- the report


def test_the_result_is_the_same_with_any_number_of_workers(tmp_path, cohort):
    one, two = (inspection.inspect(cohort, workers=workers, progress=False) for workers in (1, 2))
    for number, found in enumerate((one, two)):
        atomic_files.write_json(tmp_path / f"{number}.json", found.facts)
        atomic_files.write_csv(tmp_path / f"{number}.csv.gz", found.measures)
    for suffix in (".json", ".csv.gz"):
        assert (tmp_path / f"0{suffix}").read_bytes() == (tmp_path / f"1{suffix}").read_bytes()


def test_a_worker_that_dies_costs_time_and_no_result(cohort, capsys):
    code = f"""
import pathlib
from bhi_utils.data import archive, inspection
pack = archive.open_pack(pathlib.Path({str(cohort.folder)!r}))
print(inspection.inspect(pack, workers=2, progress=False).facts["totals"]["patches"]["found"])
"""
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == f"{len(cohort.patches)}\n" and "goes on in this one" in done.stderr


def test_table_and_json_say_the_same(tmp_path, tissue):
    patches = np.concatenate(
        [tissue[:30], tissue[:2], stroke(tissue[30:33], INKS["blue"]), np.stack([jpeg(patch, 90) for patch in tissue[2:5]])]
    )
    twice = [(f"8863/{z}/a_class{z}.png", f"the same position has a patch of class {1 - z} too") for z in (0, 1)]
    cases = [8863] * 30 + [99999] * (len(patches) - 30)
    found = look(tmp_path, patches, cases=cases, labels=[0] * 20 + [1] * (len(patches) - 20), rejected=[*twice, ("b.png", "empty file")])
    facts, table = found.facts, found.table().set_index("what")
    assert list(table.columns) == ["found", "published", "difference"]
    number = {what: int(re.sub(r"[^0-9].*", "", text.replace(",", ""))) for what, text in table["found"].items()}
    exact, near = facts["exact_duplicates"], facts["near_duplicates"]
    assert (
        number["patches"]
        == facts["totals"]["patches"]["found"]
        == len(patches)
        == sum(c["negative"] + c["positive"] for c in facts["cases"])
    )
    assert number["cases not published"] == facts["states"]["not published"] == 1 and number["cases missing"] == 278
    assert number["rejected"] == facts["rejected"]["files"] == sum(facts["rejected"]["reasons"].values()) == 3
    assert number["positions with both labels"] == facts["same_position"]["positions"] == 1 and facts["same_position"]["files"] == 2
    assert (
        number["exact duplicates"] == exact["surplus"] == 2 and number["exact: groups across cases"] == exact["across_cases"]["groups"] == 2
    )
    assert number["exact: groups with both labels"] == exact["both_labels"]["groups"] == 2
    assert (
        number["near-duplicate pairs"] == near["pairs"] == number["near: pairs across cases"] == number["near: pairs with both labels"] == 3
    )
    assert number["pen or ink"] == facts["pen"]["patches"] == found.measures["is_pen"].sum() == len(facts["pen"]["examples"]) == 3
    assert table.loc["patches", "published"] == "277,524" and table.loc["patches", "difference"] == f"−{277524 - len(patches):,}"
    assert facts["verdict"].startswith("Something is wrong") and "rejected files (3)" in facts["verdict"]
    assert json.loads(atomic_files.write_json(tmp_path / "index.json", facts).read_text(encoding="utf-8")) == facts
    for flag, (threshold, column) in inspection.FLAGS.items():
        assert facts[flag]["threshold"] == threshold and column in found.measures


def test_the_text_fits_a_terminal_and_ends_with_the_verdict(tmp_path, cohort):
    found = inspection.inspect(cohort, progress=False)
    lines = found.text().splitlines()
    assert max(map(len, lines)) <= 80
    assert " ".join(lines).endswith(found.facts["verdict"])
    copies = look(tmp_path, np.repeat(cohort.patches[:1], 3, axis=0)).text()
    assert "equal: 1/0/1_idx5_x1_y1_class0.png" in copies


@pytest.mark.skipif(not os.environ.get("BHI_TEST_ARCHIVE"), reason="BHI_TEST_ARCHIVE names no real archive")
def test_few_real_patches_are_flagged(tmp_path):
    pack = archive.pack(Path(os.environ["BHI_TEST_ARCHIVE"]), tmp_path / "cache", progress=False)
    found = inspection.inspect(pack, progress=False)
    shares = {name: count / len(pack.patches) for name, count in flagged(found).items()}
    assert 0.005 < shares["background"] < 0.04 and 0.01 < shares["pen"] < 0.05
    assert 0.0002 < shares["fold"] < 0.005 and shares["blur"] < 0.005
    facts = found.facts
    assert facts["compared"] and not facts["states"]["more"] and not facts["states"]["not published"]
    assert facts["near_duplicates"]["crowded"] < 0.2 * len(pack.patches) and facts["near_duplicates"]["both_labels"] < 0.001 * len(
        pack.patches
    )

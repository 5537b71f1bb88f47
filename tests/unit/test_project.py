"""What the project's files say of each other: dependencies, Makefile, README, modules and their order."""

import ast
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from bhi_utils import bench_app, bench_archive, bench_export, bench_smote, bench_training, paper_recipe, recipes

ROOT = Path(__file__).resolve().parent.parent.parent
MODULES = sorted((ROOT / "bhi_utils").glob("*.py"))
NAMES = [path.stem for path in MODULES]
#: The floors of the package: a module imports from its own floor and from those below, never from above.
FLOORS = {
    5: "__main__",
    4: "app app_api app_guard app_tabs pipeline",
    3: "notebook leakage training phases cut predictor kernels parameters preflight summary evidence prediction "
    "bench_app bench_archive bench_smote bench_training bench_sides resident plots_studies evaluation release coverage report cards "
    "failures recipes ablations paper_recipe claims studies arms regions mapping app_cases app_card app_files app_patch app_region "
    "export bench_export",
    2: "models splits dealing plots plots_app plots_regions plots_metrics plots_steps features samples loaders inspection comparison "
    "findings app_page seen folding folds devices plots_evidence tables",
    1: "__init__ paths published archive sources decode packing phantom phantom_archive phantom_files phantom_render phantom_shapes "
    "app_store app_words quality images scope words balance checkpoint neighbours augment metrics bench pool cleaning download measures "
    "near_duplicates bundles backends records zips weighted intervals calibration thresholds",
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names.split()}
#: Distribution of an imported name where the two differ.
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "imblearn": "imbalanced-learn", "yaml": "pyyaml", "gradio_client": "gradio"}
#: What a listed library brings along for certain.
DISTRIBUTIONS |= {"packaging": "keras", "IPython": "ipykernel", "h5py": "keras", "requests": "kagglehub", "kagglesdk": "kagglehub"}
DISTRIBUTIONS |= {"starlette": "gradio"}
#: The README's passages about measurements, by their marks: the module that keeps the result, and what puts it into words.
MEASURED = {
    "results": (recipes, recipes.results_table),
    "paper": (paper_recipe, paper_recipe.sentence),
    "training": (bench_training, bench_training.sentence),
    "benchmark": (bench_archive, bench_archive.sentence),
    "smote": (bench_smote, bench_smote.sentence),
    "app": (bench_app, bench_app.sentence),
    "export": (bench_export, bench_export.sentence),
}
#: Imported only where another Keras backend is chosen.
OPTIONAL = {"torch"}


def plain(name: str) -> str:
    """A requirement's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[=<>~;]", name)[0].strip()).lower()


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def conda():
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    """Names of everything that a file imports, relative ones and those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(path: Path) -> set[str]:
    """Modules of the package that a file imports."""
    parts = [name.split(".") for name in imported(path) if name.startswith("bhi_utils.")]
    return {part[1] for part in parts if part[1] in NAMES}


class TestDependencies:
    def test_conda_gives_python_and_pip_and_the_pip_list_is_the_projects(self, conda, project):
        *base, last = conda["dependencies"]
        assert conda["name"] == "bhi" and conda["channels"] == ["conda-forge"] and base == ["python=3.11", "pip"]
        assert last["pip"][:2] == ["-c constraints.txt", "-e ."]
        assert last["pip"][2:] == project["dependencies"] == sorted(project["dependencies"])

    def test_every_library_says_what_it_is_for(self):
        lines = re.findall(r"^      - ([a-z].*)$", (ROOT / "environment.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert lines and all(re.fullmatch(r"[a-z0-9-]+  # used by .+", line) for line in lines)

    def test_every_library_has_one_exact_version(self, project):
        lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)
        pinned = [plain(line) for line in lines]
        assert len(pinned) == len(set(pinned)) and {plain(name) for name in project["dependencies"]} <= set(pinned)
        assert "bhi-utils" not in pinned

    def test_every_version_installs_on_any_python_that_the_project_takes(self, project):
        oldest = "3.11.0"
        assert SpecifierSet(project["requires-python"]).contains(oldest)
        lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        pinned = {plain(line) for line in lines}
        needs = {dist.name: dist.metadata["Requires-Python"] for dist in importlib.metadata.distributions() if plain(dist.name) in pinned}
        assert len(needs) > 100 and not {name: need for name, need in needs.items() if need and not SpecifierSet(need).contains(oldest)}

    def test_everything_imported_is_listed(self, project):
        files = [path for folder in ("bhi_utils", "tests") for path in (ROOT / folder).rglob("*.py")]
        tops = {name.split(".")[0] for path in files for name in imported(path)} - set(sys.stdlib_module_names) - OPTIONAL - {"bhi_utils"}
        assert {plain(DISTRIBUTIONS.get(name, name)) for name in tops} <= {plain(name) for name in project["dependencies"]}

    def test_make_installs_the_pip_list_word_for_word(self, conda):
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert "sed -n 's/^      - //p' environment.yml > $@" in makefile and "-r .requirements.txt" in makefile
        lines = re.findall(r"^      - (.*)$", (ROOT / "environment.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert [line.split("  #")[0] for line in lines] == conda["dependencies"][-1]["pip"]

    def test_the_extras_add_cuda_and_the_backend_that_checks_do_without(self, project):
        assert project["optional-dependencies"] == {"backends": ["torch"], "gpu": ["tensorflow[and-cuda]"]}


class TestMake:
    TARGETS = {"help", "run", "test", "test-backends", "lab", "app", "notebooks", "lint", "clean"}

    def test_the_targets_exist_and_help_names_them(self):
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE)) == self.TARGETS
        if sys.platform != "win32":
            said = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
            assert all(f"  {target} " in said for target in self.TARGETS)

    def test_data_is_never_deleted(self):
        recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nclean:")[1].split("\n\n")[0]
        assert "rm -rf" in recipe and "data" not in recipe.split("\n", 1)[1]

    def test_checks_call_what_the_readme_calls(self):
        script = (ROOT / ".ci/run").read_text(encoding="utf-8")
        assert "\nmake lint\nmake test\n" in script
        assert "bash .ci/run" in (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")


class TestReadme:
    def text(self):
        return (ROOT / "README.md").read_text(encoding="utf-8")

    def test_the_make_targets_that_it_names_exist(self):
        named = set(re.findall(r"\bmake ([a-z-]+)\b", "\n".join(re.findall(r"`[^`\n]+`|```.*?```", self.text(), flags=re.DOTALL))))
        assert {"run", "test"} <= named <= TestMake.TARGETS

    def test_it_lists_every_notebook(self):
        for path in (*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "notebooks" / "studies").glob("*.ipynb")):
            assert f"({path.relative_to(ROOT).as_posix()})" in self.text()

    def test_its_links_lead_somewhere(self):
        for link in re.findall(r"\]\(([^)#\s]+)", self.text()):
            assert re.match(r"https?://", link) or (ROOT / link).exists(), link

    @pytest.mark.parametrize("mark", MEASURED)
    def test_what_it_says_of_a_measurement_is_what_was_kept(self, mark):
        shown = re.search(rf"<!-- {mark} -->\n(.*?)\n<!-- /{mark} -->", self.text(), flags=re.DOTALL)
        module, words = MEASURED[mark]
        assert shown.group(1) == words(module.recorded())

    def test_it_says_that_it_is_no_medical_device(self):
        assert re.search(r"research use only", self.text(), flags=re.IGNORECASE) and "medical device" in self.text()


class TestModules:
    @pytest.mark.parametrize("path", MODULES, ids=NAMES)
    def test_each_says_what_it_is_and_has_a_floor(self, path):
        assert len(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") > 40
        assert path.stem in FLOOR, "give the new module a floor in this test"

    @pytest.mark.parametrize("path", MODULES, ids=NAMES)
    def test_imports_point_downward(self, path):
        above = {name for name in own(path) if FLOOR[name] > FLOOR[path.stem]}
        assert not above
        if path.stem != "__main__":
            assert not own(path) & {"app", "pipeline"}

    def test_no_two_modules_import_each_other(self):
        graph = {path.stem: own(path) - {path.stem} for path in MODULES}
        while graph:
            free = {name for name, uses in graph.items() if not uses & set(graph)}
            assert free, f"a circle among {sorted(graph)}"
            graph = {name: uses for name, uses in graph.items() if name not in free}

    def test_importing_the_package_is_cheap(self):
        heavy = "{'tensorflow', 'keras', 'gradio', 'papermill', 'pandas', 'matplotlib'} & set(sys.modules)"
        code = f"import bhi_utils, bhi_utils.__init__, sys; print({heavy})"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert said == "set()\n"

    @pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="another processor")
    @pytest.mark.parametrize("own", [None, "0"])
    def test_tensorflow_computes_with_onednn_unless_somebody_says_no(self, own):
        environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
        environment |= {} if own is None else {"TF_ENABLE_ONEDNN_OPTS": own}
        code = "import bhi_utils, os; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
        said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        assert said.strip() == (own or "1")


def tracked() -> list[Path]:
    """The text files that git tracks or would track."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        names = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    binary = {".png", ".jpg", ".keras", ".gz", ".zip", ".npy", ""}
    return [ROOT / name for name in names if name and (ROOT / name).is_file() and Path(name).suffix not in binary]


def test_no_tracked_file_names_a_place_of_a_machine_or_a_package_index():
    # in parts, so that this file does not find itself
    words = [
        "/" + "root/",
        "/" + "work/",
        r"/" + r"home/(?!runner)\w",
        r"/" + r"Users/\w",
        "index" + "-url",
        "registry" + "=",
        "pypi" + r"\.org",
    ]
    pattern = re.compile("|".join(words))
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked()
        for match in [pattern.search(path.read_text(encoding="utf-8", errors="replace"))]
        if match
    ]
    assert not found


def test_no_file_is_large():
    assert not [path.name for path in tracked() if path.stat().st_size > 1_000_000]

"""What the project's files say of each other: dependencies, Makefile, README, modules and their order."""

import ast
import functools
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jinja2
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from bhi_utils.app import request_checks
from bhi_utils.core import messages, provenance, titles
from bhi_utils.core.hardware import BACKENDS
from bhi_utils.model import bundles
from bhi_utils.studies import recipes

ROOT = Path(__file__).resolve().parent.parent.parent
MODULES = sorted((ROOT / "bhi_utils").rglob("*.py"))
NAMES = [path.relative_to(ROOT / "bhi_utils").with_suffix("").as_posix() for path in MODULES]
#: The floors of the package, lowest first: a folder's modules import from their own folder and from those before it.
FLOORS = (
    "core",
    "data",
    "evaluation",
    "model",
    "plots",
    "training",
    "predict",
    "reports",
    "app",
    "runner",
    "notebook",
    "studies",
    "cli",
    "__main__",
)
#: Distribution of an imported name where the two differ.
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "imblearn": "imbalanced-learn", "yaml": "pyyaml", "gradio_client": "gradio"}
#: What a listed library brings along for certain.
DISTRIBUTIONS |= {"packaging": "keras", "IPython": "ipykernel", "h5py": "keras", "requests": "kagglehub", "kagglesdk": "kagglehub"}
DISTRIBUTIONS |= {"jinja2": "gradio", "starlette": "gradio", "fastapi": "gradio", "jupyter_server": "jupyterlab"}
#: The marks of the README's passages about measurements, which ``readme_passages.j2`` writes from the recorded results.
MEASURED = ("results", "paper", "packaged", "benchmark", "smote", "training", "app", "export")
#: The package, and what tests share by import.
OWN = {"bhi_utils", *(path.stem for path in (ROOT / "tests").rglob("*.py"))}
#: Imported only where another Keras backend is chosen, or on Colab.
OPTIONAL = {"jax", "torch", "google"}


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
    """Modules of the package that a file imports, as `NAMES` calls them."""
    names = {name.removeprefix("bhi_utils.").replace(".", "/") for name in imported(path) if name.startswith("bhi_utils.")}
    return {found for name in names for found in (name, f"{name}/__init__", name.rpartition("/")[0]) if found in NAMES}


@functools.cache
def pins() -> dict[str, str]:
    """What constraints.txt holds: name, as package indexes compare it, to version."""
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)
    found = {plain(name): version for name, version in (line.split("==") for line in lines)}
    assert len(found) == len(lines)
    return found


def brought(asked: list[str], **python: str) -> dict[str, str]:
    """The pinned libraries that come with those asked for, by name, and the Pythons that each takes.

    Args:
        asked: requirements.
        python: values in place of those of the Python at hand, for what a library asks for on some Pythons only; what is not installed
            here, being asked for elsewhere alone, is left out.
    """
    found, todo = {}, [(Requirement(text), "") for text in asked]
    seen = set()
    while todo:
        ask, extra = todo.pop()
        if (plain(ask.name), *sorted(ask.extras)) in seen or (ask.marker and not ask.marker.evaluate({**python, "extra": extra})):
            continue
        seen.add((plain(ask.name), *sorted(ask.extras)))
        try:
            data = importlib.metadata.metadata(ask.name)
        except importlib.metadata.PackageNotFoundError:
            assert python, f"{ask.name} is not installed"
            continue
        assert data["Version"] == pins().get(plain(ask.name)), ask.name
        found[plain(ask.name)] = data.get("Requires-Python") or ""
        needed = [Requirement(text) for text in data.get_all("Requires-Dist") or ()]
        todo += [(need, name) for need in needed for name in ("", *ask.extras)]
    return found


class TestDependencies:
    #: The Pythons that `make` takes, newest first.
    PYTHONS = ("3.13", "3.12", "3.11")

    def test_conda_gives_python_and_pip_and_the_pip_list_is_the_projects(self, conda, project):
        *base, last = conda["dependencies"]
        assert conda["name"] == "bhi" and conda["channels"] == ["conda-forge"]
        assert base == [f"python{project['requires-python']}", "pip"] == ["python>=3.11,<3.14", "pip"]
        core, extras = project["dependencies"], project["optional-dependencies"]
        assert core == sorted(core) and all(names == sorted(names) for names in extras.values())
        assert last["pip"] == ["-c constraints.txt", "-e .", *core, *extras["test"]]

    def test_the_file_for_conda_says_of_each_library_what_it_is_for(self, project):
        text = (ROOT / "environment.yml").read_text(encoding="utf-8")
        lines = re.findall(r"^      (?:# )?- ([a-z].*)$", text, flags=re.MULTILINE)
        assert all(re.fullmatch(r"\S+  # used (by|on) .+", line) for line in lines)
        listed = [name for names in (project["dependencies"], *project["optional-dependencies"].values()) for name in names]
        assert [line.split()[0] for line in lines] == list(dict.fromkeys(listed))

    def test_every_library_has_one_exact_version(self, project):
        """Those that a library brings along too, on the Python at hand."""
        extras = project["optional-dependencies"]
        listed = {plain(name) for names in (project["dependencies"], *extras.values()) for name in names}
        assert listed | set(brought([*project["dependencies"], *extras["test"]])) <= set(pins())
        assert "bhi-utils" not in pins()

    @pytest.mark.parametrize("python", PYTHONS)
    def test_every_version_installs_on_any_python_that_the_project_takes(self, project, python):
        assert SpecifierSet(project["requires-python"]).contains(f"{python}.0")
        needs = brought([*project["dependencies"], *project["optional-dependencies"]["test"]], python_version=python)
        assert len(needs) > 100 and not {name: need for name, need in needs.items() if not SpecifierSet(need).contains(f"{python}.0")}

    def test_libraries_on_whose_inside_the_code_leans_are_bounded_above(self, project):
        bounded = {plain(name) for name in project["dependencies"] if "<" in name}
        assert bounded == {"gradio", "kagglehub", "keras", "papermill"}

    def test_what_the_package_imports_is_a_dependency_and_what_only_tests_import_an_extra(self, project):
        core = {plain(name) for name in project["dependencies"]}
        for folder, listed in (("bhi_utils", core), ("tests", core | set(project["optional-dependencies"]["test"]))):
            tops = {name.split(".")[0] for path in (ROOT / folder).rglob("*.py") for name in imported(path)} - set(sys.stdlib_module_names)
            assert {plain(DISTRIBUTIONS.get(name, name)) for name in tops - OPTIONAL - OWN} <= listed

    def test_installing_the_package_brings_no_tool_of_the_tests(self, project):
        extras = project["optional-dependencies"]
        assert not {plain(name) for name in project["dependencies"]} & {
            "hypothesis",
            "jax",
            "mypy",
            "nbval",
            "playwright",
            "pytest",
            "ruff",
            "torch",
        }
        assert set(extras) == {"test", "backends", "gpu"} and set(extras["backends"]) == set(BACKENDS) - {"tensorflow"}


@pytest.mark.skipif(sys.platform == "win32", reason="make is for Linux and macOS")
class TestWhichPython:
    """`make` tries each Python by running it."""

    @pytest.fixture
    def machine(self, tmp_path):
        """A machine with nothing but what make itself needs: adds a Python that answers as one of that version, and asks make."""
        for tool in ("make", "sh", "sort", "sed", "head", "tr", "grep", "echo", "rm"):
            (tmp_path / "bin").mkdir(exist_ok=True)
            (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))

        class Machine:
            def add(self, place, says):
                path = tmp_path / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"#!/bin/sh\n{says}\n")
                path.chmod(0o755)

            def make(self, *arguments):
                environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
                shutil.copy(ROOT / "Makefile", tmp_path)
                (tmp_path / "pyproject.toml").touch()
                (tmp_path / "constraints.txt").touch()
                command = ["make", "-C", str(tmp_path), *arguments]
                return subprocess.run(command, env=environment, capture_output=True, text=True)

            def chosen(self):
                return re.search(r"PYTHON .*\(now: (.*)\)", self.make("help").stdout).group(1)

        return Machine()

    def test_the_newest_supported_one_is_taken_and_a_command_that_only_fails_is_passed_over(self, machine):
        machine.add("bin/python3", 'echo "3.14 whole /opt/python3.14"')
        machine.add("bin/python3.13", 'echo "pyenv: python3.13: command not found" >&2; exit 127')
        machine.add("bin/python3.11", 'echo "3.11 whole /usr/bin/python3.11"')
        assert machine.chosen() == "/usr/bin/python3.11"
        machine.add("bin/python3.12", 'echo "3.12 whole /usr/bin/python3.12"')
        assert machine.chosen() == "/usr/bin/python3.12"
        machine.add(".pyenv/versions/3.13.5/bin/python", 'echo "3.13 whole /a/folder/python"')
        assert machine.chosen() == "/a/folder/python"

    def test_one_that_can_make_no_environment_comes_last(self, machine):
        machine.add("bin/python3.13", 'echo "3.13 bare /usr/bin/python3.13"')
        assert machine.chosen() == "/usr/bin/python3.13"
        machine.add("bin/python3.11", 'echo "3.11 whole /usr/bin/python3.11"')
        assert machine.chosen() == "/usr/bin/python3.11"

    def test_the_error_names_the_range_and_what_was_found(self, machine):
        machine.add("bin/python3", 'echo "3.14 whole /opt/python3.14"')
        for arguments, found in (((), "3.14 whole /opt/python3.14"), (("PYTHON=/no/python",), "/no/python")):
            ended = machine.make("run", *arguments)
            assert ended.returncode == 2
            assert "Python 3.11, 3.12 or 3.13 was not found" in ended.stderr and found in ended.stderr


class TestMake:
    TARGETS = {"help", "run", "test", "test-slow", "test-backends", "lab", "app", "notebooks", "lint", "clean"}

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
        assert "\nmake lint\nmake test\nmake test-slow\n" in script

    def test_every_test_runs_in_one_of_the_two_parts(self):
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert '-m "not slow" tests notebooks/studies' in makefile and "-m slow tests" in makefile

    def test_the_workflow_checks_every_python_in_full_and_other_systems_in_part(self):
        jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
        assert set(jobs["full"]["strategy"]["matrix"]["python"]) == set(TestDependencies.PYTHONS)
        assert any("bash .ci/run" in step.get("run", "") for step in jobs["full"]["steps"])
        assert set(jobs["part"]["strategy"]["matrix"]["system"]) == {"windows-latest", "macos-latest"}
        said = " ".join(step.get("run", "") for step in jobs["part"]["steps"])
        assert all(command in said for command in ("run --only 01 02", "predict", "pytest", "--ignore tests/app"))


class TestContainer:
    def text(self):
        return (ROOT / "Dockerfile").read_text(encoding="utf-8")

    def test_it_is_a_slim_debian_with_a_user_and_the_app_as_its_command(self):
        assert re.search(r"^FROM debian:trixie-slim$", self.text(), flags=re.MULTILINE)
        user, command = (re.search(rf"^{word} (.*)$", self.text(), flags=re.MULTILINE) for word in ("USER", "CMD"))
        assert user.group(1) == "bhi" and user.start() < self.text().index("COPY") < command.start()
        assert json.loads(command.group(1)) == ["bhi", "app", "--host", "0.0.0.0"]

    def test_its_health_check_asks_a_path_of_the_app(self):
        assert f"127.0.0.1:7860{request_checks.HEALTH}'" in self.text()

    def test_the_development_container_uses_it(self):
        settings = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
        assert settings["build"] == {"dockerfile": "../Dockerfile", "context": ".."} and settings["remoteUser"] == "bhi"

    def test_the_readme_opens_it_on_this_machine_only(self):
        assert "-p 127.0.0.1:7860:7860" in (ROOT / "README.md").read_text(encoding="utf-8")


@functools.cache
def written() -> str:
    """What ``readme_passages.j2`` makes of the recorded results."""
    page = jinja2.Environment(undefined=jinja2.StrictUndefined)
    page.filters |= {"cell": titles.cell, "counted": messages.counted}
    results = {path.stem: provenance.result(path.name) for path in (ROOT / "bhi_utils" / "results").glob("*.json")}
    bundle = bundles.read(bundles.PACKAGED)[0]
    given = results | {"recipes": recipes.recorded(), "names": recipes.NAMES, "paper": provenance.paper(), "bundle": bundle}
    template = page.from_string((ROOT / "tests/project/readme_passages.j2").read_text(encoding="utf-8"))
    return template.render(given, served=bundles.served(bundle))


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
        passage = re.compile(rf"<!-- {mark} -->\n(.*?)\n<!-- /{mark} -->", flags=re.DOTALL)
        assert passage.search(self.text()).group(1) == passage.search(written()).group(1)

    def test_how_settings_were_chosen_is_said_as_in_the_study(self):
        sentence = re.search(r"Settings were chosen [^.]*\.", self.text()).group()
        assert "test cases of another" in sentence and sentence.endswith("slightly favourable to it.")
        notebook = json.loads((ROOT / "notebooks/studies/recipes.ipynb").read_text(encoding="utf-8"))
        cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
        assert sentence in " ".join(" ".join(cells).split())

    def test_it_says_that_it_is_no_medical_device(self):
        assert re.search(r"research use only", self.text(), flags=re.IGNORECASE) and "medical device" in self.text()


class TestModules:
    @pytest.mark.parametrize("path", MODULES, ids=NAMES)
    def test_each_says_what_it_is(self, path):
        text = path.read_text(encoding="utf-8")
        assert len(ast.get_docstring(ast.parse(text)) or "") > 40 or (path.name == "__init__.py" and not text)

    def test_imports_point_downward(self):
        above = [
            (name, used)
            for name, path in zip(NAMES, MODULES, strict=True)
            for used in own(path)
            if name != "__init__" and FLOORS.index(used.split("/")[0]) > FLOORS.index(name.split("/")[0])
        ]
        assert not above

    def test_no_two_modules_import_each_other(self):
        graph = {name: own(path) - {name} for name, path in zip(NAMES, MODULES, strict=True)}
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

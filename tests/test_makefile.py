"""The Makefile: what is set arrives as it was typed or is refused, and a set-up that failed does not stay."""

import re
import shlex
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest
from conftest import ROOT

from cache.support.command import JAX_PIP_LINE

PYTHONS = ("3.11", "3.12", "3.13")

FAKE_PYTHON = """#!/bin/sh
# A Python of a given version, whose venv has this very file as its Python, and whose pip ends as the file PIP says.
case "$1 ${{2-}}" in
    "-V "*) echo "Python {version}.0" ;;
    "-c import sys; print(sys.base_prefix)") echo "{prefix}" ;;
    "-c "*) echo {version}; exit {unsupported} ;;
    "-m venv") mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" && cp "$0" "$3/bin/python" ;;
    "-m pip") shift; echo "$@"; exit "$(cat PIP)" ;;
esac
"""


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """What make would do, or why it does nothing."""
    command = ("make", "--dry-run", "VENV=nowhere", *words)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def commands(*words: str) -> list[list[str]]:
    """The words of each command that make would call."""
    done = make(*words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("nowhere/bin/python -m")]


def refusal(*words: str) -> str:
    """The one line with which make refuses."""
    done = make(*words)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("word", "nearest"), [("HAED=dense", "HEAD"), ("data=my_images", "DATA"), ("EDITON=2025", "EDITION")]
)
def test_an_unknown_variable_is_refused_with_the_nearest_known(word: str, nearest: str) -> None:
    assert f"unknown variable {word.split('=')[0]}; did you mean {nearest}?" in refusal("head", word)


def printed(*words: str) -> list[str]:
    """The words of the command that make would name as the next one."""
    lines = [shlex.split(line) for line in make(*words).stdout.splitlines() if line.startswith("printf")]
    return [word for line in lines for word in shlex.split(line[-1]) if word != "VENV=nowhere"]


def test_the_next_command_is_named_with_what_was_set() -> None:
    given = ["DATA=my images", "HEAD=dense", "SET=hidden=5 epochs=3"]
    words = printed("head", *given)
    assert words[:3] == ["next:", "make", "submit"]
    assert sorted(words[3:]) == sorted(given)
    assert printed("sweep", "GRID=C=1,2", "BY=folds", "HEAD=logistic") == ["next:", "make", "submit", "HEAD=logistic"]
    words = printed("submit", "DATA=x", "RUN=runs/my run")  # what it needs names nothing
    assert words[:4] == ["next:", "make", "report", "RUN=runs/my run"]
    assert words.count("next:") == 1


def test_a_parameter_of_a_head_is_refused_where_a_variable_stands() -> None:
    assert "unknown variable epochs; parameters of a head go into SET" in refusal("head", "HEAD=dense", "epochs=20")


@pytest.mark.parametrize(
    "words", [["-j2"], ["help", "HEAD=dense"], ["SHELL=/bin/sh"], ["MAKEFLAGS=-s"], ["WEIGHTS_xception=a b.h5"]]
)
def test_what_make_or_a_network_knows_is_not_refused(words: list[str]) -> None:
    assert make(*words).returncode == 0


def test_images_to_predict_and_to_explain_arrive_as_they_were_typed() -> None:
    (predict,) = commands("predict", "RUN=my runs/a", "IMAGES=new/a.png o'clock", "OUT=p q.csv", "WORKERS=2")
    assert predict == ["show", "predict", "my runs/a", "new/a.png", "o'clock", "--out", "p q.csv", "--workers", "2"]
    (explain,) = commands("explain", "RUN=r", "IMAGES=new", "CONCEPTS=Pleural effusion, C1")
    assert explain == ["show", "explain", "r", "new", "--concepts", "Pleural", "effusion,", "C1"]
    assert "make explain needs IMAGES, files or folders" in refusal("explain", "RUN=r")


def test_every_variable_that_may_be_set_is_documented() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    listed = re.findall(r"^SETTABLE := (.*)$", makefile, re.MULTILINE)[0].split()
    section = (ROOT / "docs" / "options.md").read_text(encoding="utf-8").split("## make variables")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE)
    assert sorted(documented) == sorted(listed)
    comments = " ".join(line for line in makefile.splitlines() if line.startswith("# "))
    assert [name for name in listed if not re.search(rf"\b{name}\b", comments)] == ["MEMBERS"]


@pytest.mark.parametrize(
    "name", ["my images", "o'clock", 'the "best"', "back`tick`", "back\\slash", "a#b, c=(d) %e; f&g"]
)
def test_a_folder_of_any_name_arrives_as_it_was_typed(name: str, tmp_path: Path) -> None:
    data = str(tmp_path / name)
    check, features, head, predict = commands("submit", f"DATA={data}", "HEAD=dense")
    store, run = f"data/{name.replace(' ', '_')}.densenet121.h5", f"runs/{name.replace(' ', '_')}/dense"
    assert features[:4] == ["featurize", data, "--store", store]
    assert head == ["heads", "fit", "dense", "--store", store, "--data", data, "--out", run]
    assert check == ["heads", "check", *head[2:], "--edition", "2026"]
    assert predict[2:7] == [run, "--store", store, "--data", data]
    members = [each for each in commands("head", f"DATA={data}", "RECIPE=vit-conceptz") if each[1] != "check"]
    assert [each[2] for each in members if each[0] == "featurize"] == ["--store"] * 3
    assert members[1][-8:-6] != members[-1][2:4]
    assert {each[1] for each in members if each[0] == "featurize"} == {data}


@pytest.mark.parametrize("name", ["DATA", "RUN", "WEIGHTS_xception"])
@pytest.mark.parametrize("value", ["a$b", "a\nb"])
def test_a_value_that_make_would_change_is_refused(name: str, value: str) -> None:
    assert f"{name} has a $ or a line end in it" in refusal("head", f"{name}={value}")


def test_lists_arrive_word_by_word() -> None:
    check, _, head = commands("head", "DATA=x", "SET=hidden=512 loss='focal'", "CONCEPTS=C1 C2")
    assert check[2:] == head[2:]
    assert head[-6:] == ["--concepts", "C1", "C2", "--set", "hidden=512", "loss='focal'"]
    ensemble, _ = commands("ensemble", "DATA=x", "RUNS=runs/x/a runs/x/b")
    assert ensemble == ["heads", "ensemble", "runs/x/a", "runs/x/b", "--out", "runs/x/ensemble"]


def made_by(*words: str) -> tuple[list[list[str]], list[str]]:
    """The stores that ``make best`` would make, with the options of each, and those that it would join."""
    made = commands("best", "DATA=x", *words)
    embedded = [command[3:] for command in made if command[0] == "featurize"]
    joined = [command[2:] for command in made if command[:2] == ["cache", "join"]]
    return embedded, joined[0] if joined else []


def test_the_search_embeds_with_every_network_at_every_size_and_joins_the_stores() -> None:
    embedded, joined = made_by("WEIGHTS_densenet121=a", "WEIGHTS_xception=b", "SIZES=320 448")
    names = [f"data/x.layers.{net}{size}.h5" for net in ("densenet121", "xception") for size in ("", ".320", ".448")]
    assert [words[0] for words in embedded] == names
    assert joined == ["data/x.joined.h5", *names]
    layer = ["--layer", "earlier,last"]
    assert embedded[0][1:] == ["--backbone", "densenet121", "--weights", "a", *layer]
    assert embedded[5][1:] == ["--backbone", "xception", "--weights", "b", "--size", "448", *layer]


def test_the_search_embeds_at_no_size_twice() -> None:
    embedded, joined = made_by("SIZE=448", "WEIGHTS=a", "LAYER=last")
    assert embedded == [["data/x.densenet121.h5", "--weights", "a", "--size", "448", "--layer", "last"]]
    assert joined == []
    layers = [["data/x.layers.densenet121.h5", "--weights", "a", "--layer", "earlier,last"]]
    assert made_by("SIZES=", "WEIGHTS=a")[0] == layers


def test_the_search_takes_the_store_of_the_last_layer_where_that_is_requested() -> None:
    embedded, joined = made_by("LAYER=last", "WEIGHTS=a")
    assert [words[0] for words in embedded] == ["data/x.densenet121.h5", "data/x.densenet121.448.h5"]
    assert joined == ["data/x.joined.h5", "data/x.densenet121.h5", "data/x.densenet121.448.h5"]


@pytest.mark.parametrize("words", [["STORES=a.h5 b.h5"], ["STORE=a.h5", "SIZE=300"], ["RECIPE=ssn-model2"]])
def test_the_search_makes_no_further_store_where_the_store_is_given(words: list[str]) -> None:
    assert all("448" not in command for command in commands("best", "DATA=x", *words))


def test_the_name_of_the_machine_in_the_environment_does_not_open_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "station.example")
    assert commands("serve", "RUN=r", "PORT=9000") == [["show", "serve", "r", "--port", "9000"]]
    assert commands("serve", "RUN=r", "HOST=::1") == [["show", "serve", "r", "--host", "::1"]]


def test_runs_of_two_data_sets_are_apart() -> None:
    places = {commands("head", f"DATA={data}")[-1][-1] for data in ("a", "some/b", "some/b/")}
    assert places == {"runs/a/kernel", "runs/b/kernel"}
    assert commands("export", "DATA=a", "HEAD=dense")[0][2] == "runs/a/dense"


def test_variables_of_the_environment_that_are_not_ours_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = commands("submit")
    for name in ("NAME", "KEY", "MEMBERS", "MEMBER", "DRAWN", "NET", "HAED"):
        monkeypatch.setenv(name, "theirs")
    assert commands("submit") == before


class SetUp:
    """A folder with ``install.sh`` and the Pythons that it may find."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "bin"
        self.path.mkdir(parents=True)
        shutil.copy(ROOT / "install.sh", folder)
        (folder / "constraints.txt").touch()
        self.end_pip(0)
        for tool in ("cat", "cp", "dirname", "find", "flock", "ls", "mkdir", "touch"):
            (self.path / tool).symlink_to(str(shutil.which(tool)))

    def add_python(self, version: str, name: str = "") -> Path:
        prefix, unsupported = self.folder, int(version not in PYTHONS)
        text = FAKE_PYTHON.format(version=version, prefix=prefix, unsupported=unsupported)
        self._add(f"python{version}", text)
        return self._add(name or f"python{version}", text)

    def add_uv(self) -> None:
        self._add("uv", '#!/bin/sh\necho "$0" "$@"\nfor last; do :; done\n[ "$1" = pip ] || mkdir -p "$last"\n')

    def _add(self, name: str, text: str) -> Path:
        (self.path / name).write_text(text)
        (self.path / name).chmod(0o755)
        return self.path / name

    def end_pip(self, status: int) -> None:
        (self.folder / "PIP").write_text(str(status))

    def run(self, extra: str = "cpu", *asked: str, ok: bool = True) -> str:
        """Set up; gives what is printed, of one that fails its one line."""
        words = ["/bin/sh", "install.sh", "venv", extra, *asked]
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={"PATH": f"{self.folder}/venv/bin:{self.path}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) is ok, done.stderr
        return done.stdout if ok else done.stderr.strip()


@pytest.fixture
def set_up(tmp_path: Path) -> SetUp:
    return SetUp(tmp_path / "set up")


def test_the_newest_supported_python_makes_the_environment(set_up: SetUp) -> None:
    for version in ("3.10", "3.11", "3.12"):
        set_up.add_python(version)
    out = set_up.run()
    assert out.splitlines()[0] == "1 of 2: venv with Python 3.12.0"
    assert (
        "pip install --disable-pip-version-check --constraint constraints.txt --editable .[cpu,dicom,show,dev]" in out
    )
    assert "1 of 2" not in set_up.run()


def test_without_a_supported_python_nothing_is_made_and_the_next_set_up_succeeds(set_up: SetUp) -> None:
    set_up.add_python("3.9", "python3")
    assert set_up.run(ok=False).startswith("make: no Python 3.11, 3.12 or 3.13 found; install one")
    line = set_up.run("cpu", "python3", ok=False)
    assert line == "make: PYTHON=python3 is Python 3.9.0; expected Python 3.11, 3.12 or 3.13"
    assert "PYTHON=nothing is not there" in set_up.run("cpu", "nothing", ok=False)
    assert not (set_up.folder / "venv").exists()
    set_up.add_python("3.11")
    set_up.run()


def test_a_set_up_that_failed_starts_anew(set_up: SetUp) -> None:
    set_up.add_python("3.11")
    set_up.end_pip(1)
    set_up.run(ok=False)
    left = set_up.folder / "venv" / "left"
    left.touch()
    set_up.end_pip(0)
    assert "1 of 2" in set_up.run()
    assert not left.exists()


def test_an_environment_follows_what_is_asked_for(set_up: SetUp) -> None:
    set_up.add_python("3.12")
    other = set_up.add_python("3.11", "my python")
    set_up.run("jax")
    assert "1 of 2" not in set_up.run("jax", "python3.12")
    assert "1 of 2: venv with Python 3.11.0" in set_up.run("jax", str(other))
    assert "1 of 2: venv with Python 3.12.0" in set_up.run("cpu")


def test_an_active_environment_is_made_anew_by_its_base(set_up: SetUp) -> None:
    set_up.add_python("3.12")
    set_up.run("jax")
    active = set_up.folder / "venv" / "bin"
    shutil.copy(active / "python", active / "python3.12")
    assert "1 of 2: venv with Python 3.12.0" in set_up.run("cpu")


def test_a_folder_of_other_things_is_left_alone(set_up: SetUp) -> None:
    set_up.add_python("3.11")
    thesis = set_up.folder / "venv" / "thesis"
    thesis.mkdir(parents=True)
    assert "VENV=venv is a folder of other things" in set_up.run(ok=False)
    assert thesis.exists()


def test_uv_is_used_where_it_is_installed_and_brings_a_python(set_up: SetUp) -> None:
    set_up.add_uv()
    lines = set_up.run().splitlines()
    assert lines[0] == "1 of 2: venv with Python 3.13, made by uv"
    assert lines[1].endswith("uv venv --quiet --seed --python 3.13 venv")
    assert lines[3].endswith(
        "uv pip install --python venv/bin/python --constraint constraints.txt --editable .[cpu,dicom,show,dev]"
    )


def test_the_extras_of_jax_are_what_messages_name() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    plain, cuda = JAX_PIP_LINE.replace("'", "").split(", or for GPUs: ")
    for extra, line in (("jax", plain), ("jax-cuda", cuda)):
        packages = [text.split(">=")[0] for text in config["options.extras_require"][extra].split()]
        assert sorted(packages) == sorted(line.removeprefix("pip install ").split())


def test_the_same_pythons_are_supported_everywhere() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["options"]["python_requires"] == ">=3.11,<3.14"
    classifiers = config["metadata"]["classifiers"].split("\n")
    assert [line.rsplit(" ")[-1] for line in classifiers if re.search(r":: 3\.\d", line)] == list(PYTHONS)
    script = (ROOT / "install.sh").read_text(encoding="utf-8")
    assert "(3, 11) <= v <= (3, 13)" in script

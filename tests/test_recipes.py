"""Recipes: each says whose it is, and is a request that the stages understand."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, reported

from cache.support.errors import UserError
from heads.__main__ import make_parser
from heads.ensembles.ensemble import METHODS
from heads.registry import make_decoder, make_head
from heads.selection.recipe_table import Recipe, report_recipes
from heads.settings import parse_settings

DEFAULTS = {"backbone": "densenet121", "size": "224", "pooling": "avg"}
"""What featurize uses if it is not told."""

RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.mk"))


def dry_run(*words: str) -> subprocess.CompletedProcess[str]:
    """What make would do."""
    words = ("make", "--dry-run", "PYTHON=python", "VENV=nowhere", *words)
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_whose_it_is_and_what_is_filled_in(name: str) -> None:
    fields = Recipe.read(ROOT / "recipes" / f"{name}.mk").fields
    scores = fields["Published"].split()
    assert len(scores) == 2
    assert all(score == "-" or 0 < float(score) < 1 for score in scores)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_request_that_the_stages_understand(name: str) -> None:
    done = dry_run("submit", f"RECIPE={name}", "DATA=somewhere/mix")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").replace("nowhere/bin/python", "python").splitlines()
    heads = [line.split("-m heads ")[1] for line in lines if line.startswith("python -m heads")]
    parser = make_parser()
    commands = [parser.parse_args(shlex.split(line)) for line in heads]
    assert commands[-1].run == Path("runs/mix") / name
    for fit in (each for each in commands if each.action == "fit"):
        make_head(fit.name, parse_settings(fit.set or []))
        make_decoder(fit.decoder)
        assert fit.store.name.startswith("mix.")
        assert fit.out.name.split(".")[0] == name.split(".")[0]
    joined = [each for each in commands if each.action == "ensemble"]
    assert all(each.how in METHODS and len(each.runs) > 1 for each in joined)
    checks = [each for each in commands if each.action == "check"]
    fits = [each for each in commands if each.action == "fit"]
    assert [each.names for each in checks] == [[each.name] for each in fits]
    assert {each.edition for each in checks} == {2026}
    assert len(commands) == 3 or len(commands) == 2 + 2 * len(joined[0].runs)


def test_members_of_a_recipe_differ_as_it_says() -> None:
    out = dry_run("submit", "RECIPE=uach-visionlab", "DATA=mix").stdout
    assert out.count("--concepts") == 2 * 4  # checked, then fitted
    assert "--out 'runs/mix/uach-visionlab.ultrasound'" in out
    assert "--concepts 'C0041618'" in out
    nets = dry_run("submit", "RECIPE=dbs-hhu", "DATA=mix", "WEIGHTS_xception=x.h5").stdout
    assert [f"--backbone '{name}'" in nets for name in ("densenet121", "efficientnetb0", "resnet50", "xception")] == [
        True
    ] * 4
    assert nets.count("--weights 'x.h5'") == 1


def test_the_same_features_have_the_same_store_and_other_features_another() -> None:
    stores: dict[tuple[str, ...], set[str]] = {}
    names: dict[str, set[tuple[str, ...]]] = {}
    for request in ([], *([f"RECIPE={name}"] for name in RECIPES)):
        lines = dry_run("submit", "DATA=mix", *request).stdout.splitlines()
        for line in (line for line in lines if " -m featurize " in line):
            asked = DEFAULTS | dict(re.findall(r"--(\w+) '(.*?)'", line))
            store, features = asked.pop("store"), tuple(sorted(asked.items()))
            stores.setdefault(features, set()).add(store)
            names.setdefault(store, set()).add(features)
    assert len(stores[tuple(sorted(DEFAULTS.items()))]) == 1
    assert {len(each) for each in (*stores.values(), *names.values())} == {1}
    assert {"data/mix.densenet121.h5", "data/mix.densenet121.gem.h5", "data/mix.densenet121.255.276.none.h5"} <= set(
        names
    )


def test_a_table_checks_all_names_first() -> None:
    done = dry_run("table", "RECIPES=ssn-model2 nosuch")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no recipe 'nosuch'; there are " in done.stderr
    done = dry_run("submit", "RECIPE=ssn-model2 dbs-hhu")
    assert (done.returncode, done.stdout) == (2, "")
    assert 'make table RECIPES="ssn-model2 dbs-hhu"' in done.stderr


def test_a_recipe_that_does_not_exist_lists_those_that_do() -> None:
    done = dry_run("submit", "RECIPE=ssn-model3")
    assert done.returncode == 2
    assert f"no recipe 'ssn-model3'; there are {' '.join(RECIPES)}" in done.stderr


def test_what_is_said_on_the_command_line_goes_before_a_recipe() -> None:
    assert "--decoder 'global'" in dry_run("submit", "RECIPE=ssn-model2", "DECODER=global").stdout


def test_the_table_has_every_recipe_and_what_cannot_be_reproduced(tmp_path: Path) -> None:
    with reported() as lines:
        report_recipes(ROOT / "recipes", tmp_path)
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2 : 2 + len(RECIPES)]] == RECIPES
    assert "| ssn-model2 | 0.600, 0.905 | not run |  |" in lines
    assert "| Kaprov | 0.460, 0.730 | not reproducible: described nowhere that was found | |" in lines


def test_a_recipe_without_its_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no recipe in it; expected files that end in \.mk"):
        report_recipes(tmp_path, tmp_path)
    (tmp_path / "mine.mk").write_text("# Whose: mine\n# Known: all\n#     of it\nHEAD := dense\n")
    with pytest.raises(
        UserError, match=r"mine.mk: does not say 'Published' in its first lines; expected Whose, Published"
    ):
        report_recipes(tmp_path, tmp_path)

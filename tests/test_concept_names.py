"""Tables of the names of concepts: found in a data folder, read in any dialect, and never in the way."""

import pytest

from eval.concept_names import find_name_files, find_names, name_concept, read_names

NAMES = {"C0817096": "Chest", "C0040405": "X-Ray Computed Tomography"}


@pytest.mark.parametrize(
    "text",
    [
        "CUI,Canonical name\nC0817096,Chest\nC0040405,X-Ray Computed Tomography\n",
        "CUI,Canonical name\r\nc0817096,Chest\r\n\r\nC0040405,X-Ray  Computed Tomography\r\n",
        "C0817096\tChest\nC0040405\tX-Ray Computed Tomography\n",
        "name;concept\nChest;C0817096\nX-Ray Computed Tomography;C0040405\n",
        "CUI,Name,Type\nC0817096,Chest,region\nC0040405,X-Ray Computed Tomography,modality\n",
        "\ufeffCUI,Canonical name\nC0817096,Chest\nC0817096,Thorax\nC1306645,\nC0040405,X-Ray Computed Tomography\n",
    ],
)
def test_names_are_read_in_every_dialect(tmp_path, text):
    path = tmp_path / "cui_mapping.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_names(path) == NAMES


def test_a_name_may_hold_the_separator_with_quotes_and_without(tmp_path):
    path = tmp_path / "cui_mapping.csv"
    path.write_text('CUI,Canonical name\nC1,"Effusion, pleural"\nC2,Fracture, closed\n')
    assert read_names(path) == {"C1": "Effusion, pleural", "C2": "Fracture, closed"}


def test_a_folder_without_names_has_none(tmp_path):
    assert find_names(tmp_path) == find_names(tmp_path / "absent") == {}


@pytest.mark.parametrize(
    "name", ["cui_mapping.csv", "CUI_names.tsv", "ROCOv2_cui-mapping_manual.csv", "concept_names.txt"]
)
def test_tables_of_names_are_found_by_their_usual_names(tmp_path, name):
    (tmp_path / name).write_text("C1,Chest\n")
    (tmp_path / "train_concepts.csv").write_text("a1,C1\n")
    assert [path.name for path in find_name_files(tmp_path)] == [name]


def test_a_table_that_cannot_be_read_is_a_warning_and_the_others_are_used(tmp_path):
    (tmp_path / "cui_mapping.csv").write_bytes(b"C1,\xff\xff\n")
    (tmp_path / "cui_names.csv").write_text("C1,Chest\n")
    with pytest.warns(UserWarning, match="not a text file in UTF-8.*names of concepts are not used"):
        assert find_names(tmp_path) == {"C1": "Chest"}


def test_a_long_name_is_cut_where_it_stands_in_a_line():
    assert name_concept("C1", {"C1": "x" * 200}) == f"{'x' * 59}… (C1)"

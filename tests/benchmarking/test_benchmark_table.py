"""The table of a measurement."""

from __future__ import annotations

import json

import pytest

from cyclegan_tf.benchmarking.table import Table
from cyclegan_tf.errors import UserError


@pytest.fixture
def table() -> Table:
    table = Table("steps", "s/step")
    for ours, theirs in [(1.0, 3.0), (2.0, 2.0), (4.0, 20.0)]:
        table.add("ours", ours)
        table.add("theirs", theirs)
    return table


def test_rows_show_median_minimum_and_maximum(table):
    assert table.text().splitlines()[2].split() == ["ours", "2.000", "1.000", "4.000"]


def test_a_ratio_is_that_of_values_measured_in_the_same_round(table):
    table.compare("ours", "theirs")
    assert "ours is 3.00 times as fast as theirs" in table.text().splitlines()[-1]


def test_json_holds_values_versions_and_processor(table, tmp_path):
    table.remark("a remark")
    table.save(tmp_path / "table.json")
    saved = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert saved["rows"] == {"ours": [1.0, 2.0, 4.0], "theirs": [3.0, 2.0, 20.0]}
    assert saved["unit"] == "s/step" and saved["remarks"] == ["a remark"]
    assert saved["cpu"] and saved["packages"]["numpy"]


def test_a_folder_for_the_file_is_made(table, tmp_path):
    table.save(tmp_path / "new" / "table.json")
    assert (tmp_path / "new" / "table.json").is_file()


def test_a_file_that_cannot_be_written_is_named(table, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="--output"):
        table.save(tmp_path / "taken" / "table.json")

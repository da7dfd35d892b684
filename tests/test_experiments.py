"""Experiments on record: what is derived from a results.csv is in step with it."""

from pathlib import Path

import pytest

from nec.jobs.deltas import deltas, write_deltas
from nec.jobs.results import read_rows
from nec.jobs.table import tabulate, write_table

RECORDS = sorted((Path(__file__).parent.parent / "experiments").glob("*/results.csv"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.parent.name)
def test_table_and_deltas_follow_from_the_results(record: Path, tmp_path: Path) -> None:
    table = tabulate(read_rows(record))
    write_table(tmp_path / "table.csv", table)
    write_deltas(tmp_path / "bd.csv", deltas(table))
    for name in ("table.csv", "bd.csv"):
        rebuilt, kept = (tmp_path / name).read_text(), (record.parent / name).read_text()
        assert rebuilt == kept, f"run: nec report {record.parent}"


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.parent.name)
def test_record_says_in_words_what_was_asked_and_answered(record: Path) -> None:
    assert (record.parent / "README.md").is_file()

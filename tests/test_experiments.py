"""Experiments on record: what is derived from a results.csv is in step with it."""

from pathlib import Path

import pytest

from nec.report.deltas import deltas, write_deltas
from nec.report.results import read_rows
from nec.report.summary import Summary, about, write_json
from nec.report.table import tabulate, write_table
from nec.report.within import within, write_within

RECORDS = sorted((Path(__file__).parent.parent / "experiments").glob("*/results.csv"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.parent.name)
def test_what_is_derived_follows_from_the_results(record: Path, tmp_path: Path) -> None:
    rows = read_rows(record)
    table = tabulate(rows)
    close, found = within(table, rows), deltas(table)
    write_table(tmp_path / "table.csv", table)
    write_within(tmp_path / "within.csv", close)
    write_deltas(tmp_path / "bd.csv", found)
    write_json(tmp_path / "report.json", Summary(about(rows), table, close, found))
    for name in ("table.csv", "within.csv", "bd.csv", "report.json"):
        rebuilt, kept = (tmp_path / name).read_text(), (record.parent / name).read_text()
        assert rebuilt == kept, f"run: nec report {record.parent}"


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.parent.name)
def test_record_says_in_words_what_was_asked_and_answered(record: Path) -> None:
    assert (record.parent / "README.md").is_file()

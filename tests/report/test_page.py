"""The page of a report stands alone and says what the files say."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_combine import write_fold, write_folds

from nec.jobs.report import Report, report
from nec.report.looks import looks_of
from nec.report.page_tables import split_table
from nec.report.table import BEST_PIXELS

VOID = {"meta", "br", "path", "use"}


class Page(HTMLParser):
    """Tags that are opened and closed, ids, and the text of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        self.ids += [value for key, value in attributes if key == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_startendtag(self, tag, attributes) -> None:
        self.ids += [value for key, value in attributes if key == "id"]

    def handle_endtag(self, tag) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if "td" in self.open:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs, and soon their report, which no test changes."""
    return write_folds(tmp_path_factory.mktemp("folds"))


@pytest.fixture(scope="module")
def result(folds: Path) -> Report:
    return report([folds], folds)


@pytest.fixture(scope="module")
def page(folds: Path, result: Report) -> str:
    return (folds / "report.html").read_text()


def test_page_asks_for_nothing_from_elsewhere(page: str) -> None:
    assert "://" not in page and "@import" not in page
    assert not re.search(r'\bsrc=|<link|href="(?!#)|url\((?!#)', page)


def test_tags_are_closed_and_ids_are_of_one_thing_each(page: str) -> None:
    found = Page(page)
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))


def test_references_of_a_figure_stay_within_it(page: str) -> None:
    ids = set(Page(page).ids)
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', page)) <= ids


def test_every_point_of_every_task_is_on_the_page(page: str) -> None:
    cells = [" ".join(cell.split()) for cell in Page(page).cells]
    # Points and splits of linear and of segmentation, and its classes.
    assert cells.count("step=100") == 2 + 2 + 1
    assert "53.8 [53.8, 53.8]" in cells and "-28.0 [-28.0, -28.0]" in cells
    assert page.count("<svg") == 2 and "Raw embeddings reach" in page


def test_splits_show_what_loses_nothing_and_leave_out_raw_and_single_splits(
    result: Report,
) -> None:
    line = result.table[0]._replace(of_splits={"0": 0.0, "1": 0.0})
    lines = [
        line._replace(variant="int8"),
        line._replace(variant="alone", of_splits={}),
        line._replace(variant="identity"),
    ]
    found = split_table(lines, looks_of(lines))
    assert found.count("+0.0") == 3  # their mean, and both splits
    assert "int8" in found and "alone" not in found and "identity" not in found
    assert split_table(lines[1:], looks_of(lines)) == ""


def test_json_holds_what_the_page_shows(folds: Path, result: Report) -> None:
    content = json.loads((folds / "report.json").read_text())
    assert content["about"]["data"] == "tiles" and content["about"]["splits"] == 3
    counts = [len(content[name]) for name in ("points", "within", "deltas")]
    assert counts == [len(part) for part in (result.table, result.within, result.deltas)]
    assert content["points"][0]["value"] == pytest.approx(result.table[0].value)


def test_what_a_curve_is_called_is_text(tmp_path: Path) -> None:
    folds = write_folds(tmp_path)
    for path in folds.glob("t*/metrics.csv"):
        path.write_text(path.read_text().replace("transform", "<i>transform"))
        about = path.with_name("run.json")
        about.write_text(about.read_text().replace("transform", "<i>transform"))
    report([folds], folds)
    assert "<i>transform" not in (folds / "report.html").read_text()


def test_the_best_of_several_pixel_codecs_is_on_the_page(tmp_path: Path) -> None:
    folds = write_folds(tmp_path)
    for k in range(3):
        payload = {"test/payload_bytes_per_image": 30 * 2.0**k}
        write_fold(folds / f"q{k}", "jpegxl", 40 * 2.0**k, 6 + k, 0, **payload)
    report([folds], folds)
    found = Page((folds / "report.html").read_text())
    assert any(BEST_PIXELS in cell for cell in found.cells)

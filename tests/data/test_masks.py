import numpy as np
import pytest
import torch
from PIL import Image

from nec.data.images import IGNORED
from nec.data.masks import Legend, count_cells

COLOURS = {"water": "#0000FF", "land": "#00ff00"}


def write(path, pixels, mode=None):
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("mode", [None, "P", "RGBA"])
def test_colours_are_classes_in_whatever_way_a_file_holds_them(tmp_path, mode):
    pixels = [[[0, 0, 255], [0, 255, 0], [0, 0, 0]]]
    path = write(tmp_path / "mask.png", pixels, mode)
    assert Legend.of(COLOURS, ["#000000"]).read(path).tolist() == [[0, 1, IGNORED]]


def test_numbers_are_classes_in_the_order_of_the_legend(tmp_path):
    path = write(tmp_path / "mask.png", [[7, 2], [255, 7]])
    assert Legend.of({"a": 2, "b": 7}, [255]).read(path).tolist() == [[1, 0], [IGNORED, 1]]


def test_a_colour_that_the_legend_does_not_know_is_named(tmp_path):
    path = write(tmp_path / "mask.png", [[[0, 0, 255], [1, 2, 3]]])
    with pytest.raises(ValueError, match=r"mask\.png has 1 pixels of #010203.*data\.ignored"):
        Legend.of(COLOURS, []).read(path)


def test_a_number_that_the_legend_does_not_know_is_named(tmp_path):
    path = write(tmp_path / "mask.png", [[0, 9]])
    with pytest.raises(ValueError, match="1 pixels of 9, which the legend"):
        Legend.of({"a": 0, "b": 1}, [255]).read(path)


@pytest.mark.parametrize("value", [0.9, 1.7, float("nan"), 1e12])
def test_numbers_that_are_not_whole_are_no_classes(tmp_path, value):
    image = Image.fromarray(np.array([[0, 1], [1, value]], np.float32))
    image.save(tmp_path / "mask.tif")
    with pytest.raises(ValueError, match=r"mask\.tif holds (0\.9|1\.7|nan|1e\+12), class numbers"):
        Legend.of({"a": 0, "b": 1}, [255]).read(tmp_path / "mask.tif")


def test_whole_numbers_are_classes_of_whatever_type(tmp_path):
    Image.fromarray(np.array([[0, 1], [255, 0]], np.float32)).save(tmp_path / "mask.tif")
    found = Legend.of({"a": 0, "b": 1}, [255]).read(tmp_path / "mask.tif")
    assert found.tolist() == [[0, 1], [IGNORED, 0]]


def test_each_of_254_classes_is_known(tmp_path):
    numbers = np.arange(254).reshape(2, 127)
    path = write(tmp_path / "mask.png", numbers)
    assert np.array_equal(Legend.of({f"c{n}": n for n in range(254)}, None).read(path), numbers)


def test_colours_are_not_taken_for_numbers(tmp_path):
    path = write(tmp_path / "mask.png", [[[0, 0, 255]]])
    with pytest.raises(ValueError, match="3 bands, class numbers have one"):
        Legend.of({"a": 0, "b": 1}, [255]).read(path)


def test_what_is_ignored_unasked_is_255_among_numbers_and_no_colour():
    assert Legend.of({"a": 0, "b": 1}, None).ignored == (255,)
    assert Legend.of({"a": "#E2A929", "b": "#8429F6"}, None).ignored == ()
    assert Legend.of({"a": 0, "b": 255}, None).ignored == ()


@pytest.mark.parametrize(
    ("classes", "ignored", "message"),
    [
        ({}, [], "names 0 classes"),
        ({f"c{n}": n for n in range(255)}, [], "names 255 classes; masks have 254 at most"),
        ({"a": 1, "b": 1}, [], "1 stands twice"),
        ({"a": "#e2a929", "b": "#E2A929"}, [], "#e2a929 stands twice"),
        ({"a": "#e2a929", "b": "#000000"}, ["E2A929"], "#e2a929 stands twice"),
        ({"a": 0.2, "b": 0.7}, [], r"0\.2 in data.legend .* is not a whole number"),
        ({"a": False, "b": True}, [], "False in data.legend .* is not a whole number"),
        ({"a": "#000000", "b": 1}, [], "1 in data.legend .* is not a colour"),
        ({"a": "#000000", "b": "blue"}, [], "'blue' .* is not a colour"),
        ({"a": "#000000", "b": "#FFFFFF"}, [255], "255 .* is not a colour"),
    ],
)
def test_a_legend_of_no_meaning_is_refused(classes, ignored, message):
    with pytest.raises(ValueError, match=message):
        Legend.of(classes, ignored)


def test_cells_count_what_lies_in_them():
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [255, 0, 2, 2], [0, 0, 2, 255]]).byte()
    counts = count_cells(mask, 4, (2, 2), 3)
    assert counts.dtype == torch.int32
    assert counts.tolist() == [[[3, 0], [3, 0]], [[1, 4], [0, 0]], [[0, 0], [0, 3]]]


@pytest.mark.parametrize("shape", [(8, 8), (5, 11), (3, 2), (40, 17)])
def test_a_mask_of_any_size_is_brought_to_the_encoders_by_nearest_neighbour(shape):
    mask = torch.from_numpy(np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8))
    rows, columns = (((np.arange(8) + 0.5) * side / 8).astype(int) for side in shape)
    seen = mask.numpy()[np.ix_(rows, columns)]
    counts = count_cells(mask, 8, (8, 8), 3).numpy()  # a cell is a pixel
    assert np.array_equal(counts.argmax(axis=0), seen)
    assert (counts.sum(axis=0) == 1).all()


def test_cells_are_whole_pixels():
    with pytest.raises(ValueError, match=r"8 pixels are not cut into 3 .*task\.NAME\.head\.scale"):
        count_cells(torch.zeros(8, 8, dtype=torch.uint8), 8, (3, 3), 2)

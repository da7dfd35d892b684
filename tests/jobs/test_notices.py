import shutil

import pytest
import torch
from PIL import Image
from tests.conftest import tiny_encoder

from nec.data.folder import Folder
from nec.data.images import Images
from nec.jobs.notices import say_missing, say_scale


class Flat(Images):
    """Images of one value each."""

    def __init__(self, *values, dtype=torch.uint16):
        super().__init__([str(k) for k in range(len(values))], [0] * len(values))
        self.values, self.dtype = values, dtype

    def read(self, index):
        return torch.full((3, 4, 5), self.values[index], dtype=torch.float64).to(self.dtype)

    def stamp(self, index):
        return ""


def test_classes_that_a_split_has_no_image_of_are_named_in_one_line(tmp_path, capsys):
    for name, count in {"many": 10, "three": 3, "two": 2}.items():
        (tmp_path / name).mkdir()
        for index in range(count):
            Image.new("L", (2, 2)).save(tmp_path / name / f"{index}.png")
    say_missing(Folder(str(tmp_path)))
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "val has no image of three; test has no image of two"
    shutil.rmtree(tmp_path / "two")
    shutil.rmtree(tmp_path / "three")
    shutil.copytree(tmp_path / "many", tmp_path / "more")
    say_missing(Folder(str(tmp_path)))
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (Flat(900, 3412), "uint16 hold values up to 3412, and 65535 stands for 1.0"),
        (Flat(900, 10000, dtype=torch.float32), "float32 hold values up to 10000, and 1 stands"),
        (Flat(900, 60000), ""),
        (Flat(0.2, 1.1, dtype=torch.float32), ""),
        (Flat(3, 9, dtype=torch.uint8), ""),
        (Flat(0, 0), ""),
        (Flat(), ""),
    ],
)
def test_values_far_from_the_full_scale_are_said_in_one_line(images, said, capsys):
    say_scale(images, tiny_encoder())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == bool(said) and all(said in line for line in lines)
    say_scale(images, tiny_encoder(full_scale=10000.0))
    assert not capsys.readouterr().out

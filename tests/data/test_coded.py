import numpy as np
import pytest
import torch
from PIL import Image

from nec.data.activations import ActivationDataModule
from nec.data.coded import CodedDataModule
from nec.data.crops import Crops
from nec.data.pixels import AVIF, JPEG2000, JPEGXL
from nec.data.scenes import Scenes
from nec.data.splits import SPLITS

pytest.importorskip("imagecodecs")

CPU = torch.device("cpu")


def scenes(**arguments):
    small = {"train_per_class": 2, "val_per_class": 1, "test_per_class": 1, "size": 32}
    return Scenes(**{"transform": lambda x: x.float() / 255} | small | arguments)


def prefix(pixels):
    return pixels.flatten(2).transpose(1, 2)


def prepared(data, folder):
    cached = ActivationDataModule(data, prefix, folder, "key", CPU)
    cached.prepare_data()
    return cached


class Counting(JPEG2000):
    """Counts what it codes."""

    codings = 0

    def code(self, image):
        Counting.codings += 1
        return super().code(image)


def test_images_are_decoded_and_all_else_stays():
    native, codec = scenes(), JPEG2000(25)
    data = CodedDataModule(native, codec)
    for split in SPLITS:
        images, coded = native.datasets[split].images, data.datasets[split].images
        assert (coded.ids, coded.labels, coded.groups) == (images.ids, images.labels, images.groups)
        for index in range(len(images)):
            made = codec.code(images.read(index))
            assert torch.equal(coded.read(index), made.pixels)
            assert coded[index]["bytes"].tolist() == [made.file, made.payload]
            assert torch.equal(coded[index]["mask"], images.read_mask(index))
            assert torch.equal(coded.read_mask(index), images.read_mask(index))
    for name in ("classes", "mask_classes", "bands", "raw_bytes_per_pixel"):
        assert getattr(data, name) == getattr(native, name)
    assert data.pixels_up_to(10) == native.pixels_up_to(10) == 10


def test_batches_are_decoded_pixels_transformed():
    data = CodedDataModule(scenes(batch_size=4), AVIF(20))
    batch = next(iter(data.test_dataloader()))
    decoded = torch.stack([data.datasets["test"].images.read(index) for index in range(4)])
    assert torch.equal(batch["image"], decoded.float() / 255)


@pytest.mark.parametrize("codec", [AVIF(10), JPEGXL(10), JPEG2000(22, 0.5)], ids=lambda c: c.name)
def test_sizes_are_each_images_own_in_any_order_and_number_of_workers(tmp_path, codec):
    alone = prepared(CodedDataModule(scenes(), codec), tmp_path / "one")
    many = prepared(CodedDataModule(scenes(workers=2, seed=5), codec), tmp_path / "many")
    for split in SPLITS:
        images = alone.data.datasets[split].images
        expected = [images[index]["bytes"].tolist() for index in range(len(images))]
        assert alone.sizes(split).tolist() == many.sizes(split).tolist() == expected


def test_images_are_coded_once_and_not_again_where_their_activations_are(tmp_path):
    Counting.codings = 0
    first = prepared(CodedDataModule(scenes(), Counting(25)), tmp_path)
    assert Counting.codings == sum(map(len, first.data.datasets.values()))
    again = prepared(CodedDataModule(scenes(seed=3), Counting(25)), tmp_path)
    assert Counting.codings == sum(map(len, first.data.datasets.values()))
    assert again.sizes("test").tolist() == first.sizes("test").tolist()


def test_what_was_coded_otherwise_has_another_file(tmp_path):
    codecs = [None, AVIF(20), AVIF(21), AVIF(20, 0.5), JPEGXL(20), JPEG2000(20)]
    for codec in codecs:
        data = CodedDataModule(scenes(), codec) if codec else scenes()
        prepared(data, tmp_path)
    assert len([p for p in tmp_path.iterdir() if ".bytes" not in p.name]) == len(codecs)
    assert len([*tmp_path.glob("*.bytes.npy")]) == len(codecs) - 1


def test_sizes_that_were_deleted_are_made_again(tmp_path):
    first = prepared(CodedDataModule(scenes(), JPEG2000(25)), tmp_path)
    sizes = first.sizes("val").tolist()
    first.sizes_path.unlink()
    assert (
        prepared(CodedDataModule(scenes(), JPEG2000(25)), tmp_path).sizes("val").tolist() == sizes
    )


def test_native_images_have_no_sizes(tmp_path):
    cached = prepared(scenes(), tmp_path)
    assert cached.sizes("test") is None
    assert [*tmp_path.iterdir()] == [cached.path]


def test_an_image_that_cannot_be_coded_is_named():
    class Floats(Scenes):
        def load_splits(self):
            splits = super().load_splits()
            for images in splits.values():
                images.read = lambda index: torch.zeros(3, 32, 32)
            return splits

    data = CodedDataModule(Floats(train_per_class=1, val_per_class=1, test_per_class=1), AVIF(50))
    with pytest.raises(ValueError, match=r"image 'test/00000_\w+': pixels of float32"):
        _ = data.datasets  # before any image is coded


def aerial(root, workers=0):
    """Three groups of two images of 40 x 70 px, cut to crops of 32: two an image."""
    rng = np.random.default_rng(0)
    for group in "abc":
        for kind, shape in (("images", (40, 70, 3)), ("masks", (40, 70))):
            (root / group / kind).mkdir(parents=True, exist_ok=True)
            for part in range(2):
                values = rng.integers(0, 2, shape, np.uint8) * (99 if kind == "images" else 1)
                Image.fromarray(values).save(root / group / kind / f"{part}.png")
    legend = {"low": 0, "high": 1}
    return Crops(legend, str(root), crop=32, transform=lambda x: x.float() / 255, workers=workers)


@pytest.mark.parametrize("resolution", [1.0, 0.5])
def test_whole_images_are_coded_once_and_cut_after(tmp_path, resolution):
    codec = Counting(25, resolution, whole=True)
    native = aerial(tmp_path / "data")
    Counting.codings = 0
    cached = prepared(CodedDataModule(native, codec), tmp_path / "kept")
    assert Counting.codings == 6
    coded = cached.data.datasets["test"].images
    for index in range(len(coded)):
        whole = native.datasets["test"].images.whole(index)
        made = codec.code(whole.pixels)
        cut = made.pixels[:, whole.top : whole.top + 32, whole.left : whole.left + 32]
        assert torch.equal(coded.read(index), cut)
        assert torch.equal(coded[index]["mask"], native.datasets["test"][index]["mask"])
        share = 32 * 32 / (40 * 70)
        assert cached.sizes("test")[index].tolist() == [share * made.file, share * made.payload]


def test_bytes_of_whole_images_depend_on_no_worker(tmp_path):
    codec = JPEG2000(25, whole=True)
    sizes = [
        prepared(
            CodedDataModule(aerial(tmp_path / "data", workers), codec), tmp_path / str(workers)
        )
        .sizes("train")
        .tolist()
        for workers in (0, 2)
    ]
    assert sizes[0] == sizes[1]


def test_crops_coded_alone_and_cut_after_have_two_files(tmp_path):
    data = aerial(tmp_path / "data")
    for whole in (False, True):
        prepared(CodedDataModule(data, JPEG2000(25, whole=whole)), tmp_path / "kept")
    assert len([*(tmp_path / "kept").glob("*.bytes.npy")]) == 2


def test_images_that_are_whole_themselves_have_nothing_larger_to_code():
    data = CodedDataModule(scenes(), JPEG2000(25, whole=True))
    with pytest.raises(ValueError, match=r"image 'test/\w+': .*set pixels.whole=false"):
        _ = data.datasets

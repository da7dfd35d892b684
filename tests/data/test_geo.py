"""UC Merced and EuroSAT, on tiny trees laid out as TorchGeo lays them out."""

import hashlib
import logging
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, Thread
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
import torchgeo.datasets
from PIL import Image

from nec.data.geo import EuroSAT, UCMerced
from nec.data.splits import hash_split

PLACE = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 0, 0, -10, 640)}
CLASSES = ("beach", "forest")
PART_OF = {"train": range(0, 6), "val": range(6, 8), "test": range(8, 10)}


def pixels(shape, seed):
    return np.random.default_rng(seed).integers(0, 255, shape).astype("uint8")


def write_ucmerced(root):
    """20 images, of which every fifth is not 256 × 256."""
    for label, name in enumerate(CLASSES):
        folder = root / "UCMerced_LandUse" / "Images" / name
        folder.mkdir(parents=True)
        for i in range(10):
            size = (247, 250, 3) if i % 5 == 0 else (256, 256, 3)
            Image.fromarray(pixels(size, 10 * label + i)).save(folder / f"{name}{i:02d}.tif")
    write_lists(root, "uc_merced", ".tif", width=2)


def write_eurosat(root, bands=13):
    folder = root / "ds" / "images" / "remote_sensing" / "otherDatasets" / "sentinel_2" / "tif"
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            array = pixels((bands, 64, 64), 10 * label + i).astype("uint16") * 40
            with rasterio.open(folder / name / f"{name}_{i}.tif", "w", driver="GTiff", count=bands,
                               height=64, width=64, dtype="uint16", **PLACE) as file:  # fmt: skip
                file.write(array)
    write_lists(root, "eurosat", ".jpg", separator="_")


def write_lists(root, stem, suffix, separator="", width=1):
    for split, part in PART_OF.items():
        names = [f"{name}{separator}{i:0{width}d}{suffix}\n" for name in CLASSES for i in part]
        (root / f"{stem}-{split}.txt").write_text("".join(reversed(names)))


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_ucmerced(root / "ucmerced")
    write_eurosat(root / "eurosat")
    return root


@pytest.fixture
def ucmerced(trees, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(trees / "ucmerced", tmp_path / "ucmerced")


SETS = pytest.mark.parametrize("kind", [UCMerced, EuroSAT])


def make(kind, trees, **arguments):
    return kind(str(trees / kind.name), **arguments)


@SETS
def test_split_0_and_its_order_are_those_of_torchgeo(trees, kind):
    data = make(kind, trees)
    theirs = getattr(torchgeo.datasets, kind.__name__)
    for split, dataset in data.datasets.items():
        expected = theirs(str(trees / kind.name), split)
        assert [str(dataset.images.root / name) for name in dataset.ids] == [
            path for path, _ in expected.imgs
        ]
        assert dataset.labels == [label for _, label in expected.imgs]
        assert data.classes == expected.classes


def test_ucmerced_keeps_the_sizes_and_values_of_the_originals(trees):
    dataset = make(UCMerced, trees).datasets["train"]
    shapes = {name: tuple(dataset[i]["image"].shape) for i, name in enumerate(dataset.ids)}
    assert shapes["beach/beach00.tif"] == shapes["beach/beach05.tif"] == (3, 247, 250)
    assert shapes["beach/beach01.tif"] == (3, 256, 256)
    first = dataset[0]["image"]
    assert first.dtype == torch.uint8
    assert np.array_equal(first, pixels((247, 250, 3), 0).transpose(2, 0, 1))


def test_eurosat_gives_13_bands_of_uint16_as_they_are(trees):
    data = make(EuroSAT, trees)
    item = data.datasets["test"][0]
    assert item["id"] == "beach/beach_8.tif"
    assert item["image"].dtype == torch.uint16
    expected = pixels((13, 64, 64), 8).astype("uint16") * 40
    assert np.array_equal(item["image"].numpy(), expected)
    assert (data.bands, data.raw_bytes_per_pixel, data.pixels_up_to(10**6)) == (13, 26, 4096)


def test_ucmerced_says_what_its_pixels_are(trees):
    data = make(UCMerced, trees)
    assert (data.bands, data.raw_bytes_per_pixel, data.pixels_up_to(10**6)) == (3, 3, 256 * 256)
    assert data.classes == list(CLASSES)


@SETS
def test_a_split_above_0_hashes_file_names(trees, kind):
    data = make(kind, trees, split=3)
    names = [name.split("/")[1] for name in data.listing.ids]
    expected = hash_split(names, data.listing.labels, 3)
    for split, dataset in data.datasets.items():
        assert [name.split("/")[1] for name in dataset.ids] == [names[i] for i in expected[split]]
    assert data.datasets["test"].ids != make(kind, trees, split=4).datasets["test"].ids


@SETS
def test_splits_are_disjoint_and_complete(trees, kind):
    for split in (0, 1):
        datasets = make(kind, trees, split=split).datasets
        ids = [name for dataset in datasets.values() for name in dataset.ids]
        assert len(ids) == len(set(ids)) == 20


@SETS
def test_loaders_go_by_id_and_worker_processes_change_nothing(trees, kind):
    one = list(make(kind, trees, transform=mean, batch_size=4).loader("train"))
    two = list(make(kind, trees, transform=mean, batch_size=4, workers=2).loader("train"))
    ids = [name for batch in one for name in batch["id"]]
    assert ids == sorted(ids) and len(ids) == 12
    assert all(torch.equal(x["image"], y["image"]) for x, y in zip(one, two, strict=True))


def mean(image):
    return image.float().mean((1, 2))


@SETS
def test_data_sets_pickle(trees, kind):
    dataset = make(kind, trees).datasets["val"]
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[0]["image"], dataset[0]["image"])


def test_root_is_below_nec_data_where_none_is_given(trees, monkeypatch):
    monkeypatch.setenv("NEC_DATA", str(trees))
    assert len(UCMerced().datasets["test"]) == len(EuroSAT().datasets["test"]) == 4


def test_lists_that_are_not_the_published_ones_are_said_to_be_so(trees, caplog):
    with caplog.at_level(logging.WARNING):
        _ = make(UCMerced, trees).datasets
    assert "are not the published ones" in caplog.text


def test_a_split_by_hash_needs_no_lists(ucmerced):
    for path in ucmerced.glob("*.txt"):
        path.unlink()
    assert len(UCMerced(str(ucmerced), split=1).datasets["test"]) == 4


class Offered(UCMerced):
    """UC Merced as if it were published at another place."""

    offer = None

    @property
    def source(self):
        return self.offer


class Silent(SimpleHTTPRequestHandler):
    """Notes what it is asked for, and says nothing."""

    def __init__(self, asked, *arguments, **options):
        self.asked = asked
        super().__init__(*arguments, **options)

    def log_message(self, *arguments):
        self.asked.append(self.path.strip("/"))


@pytest.fixture
def offered(trees, tmp_path):
    """The data set as an archive and lists behind a URL of this machine."""
    site = tmp_path / "site"
    shutil.copytree(trees / "ucmerced", site)
    shutil.make_archive(str(site / "UCMerced_LandUse"), "zip", site, "UCMerced_LandUse")
    shutil.rmtree(site / "UCMerced_LandUse")
    theirs, asked = torchgeo.datasets.UCMerced, []
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in site.iterdir()}
    data = Offered(str(tmp_path / "root"), download=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, asked, directory=site))
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    data.offer = SimpleNamespace(
        asked=asked,
        url=f"http://127.0.0.1:{server.server_port}/",
        filename=theirs.filename,
        md5=md5[theirs.filename],
        base_dir=theirs.base_dir,
        split_filenames=theirs.split_filenames,
        split_md5s={split: md5[name] for split, name in theirs.split_filenames.items()},
    )
    yield data
    server.shutdown()
    server.server_close()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_download_is_unpacked_once_and_leaves_nothing_else(offered, tmp_path, caplog):
    assert len(offered.datasets["train"]) == 12
    lists = sorted(offered.offer.split_filenames.values())
    assert names_in(tmp_path / "root") == ["UCMerced_LandUse", "UCMerced_LandUse.zip", *lists]
    assert "published" not in caplog.text
    shutil.rmtree(tmp_path / "site")
    again = Offered(str(tmp_path / "root"))
    again.offer = offered.offer
    assert again.datasets["train"].ids == offered.datasets["train"].ids


def test_jobs_that_start_together_fetch_and_unpack_once(offered, tmp_path):
    def run(root, count):
        """What each of the jobs finds, and what they ask for together."""
        together = Barrier(count)

        def job(_):
            data = Offered(str(tmp_path / root), download=True)
            data.offer = offered.offer
            together.wait()
            return data.datasets["train"].ids

        offered.offer.asked.clear()
        with ThreadPoolExecutor(count) as jobs:
            found = list(jobs.map(job, range(count)))
        return found, sorted(offered.offer.asked)

    ids, asked = run("one", 1)
    assert run("four", 4) == (ids * 4, asked)
    assert names_in(tmp_path / "four") == names_in(tmp_path / "one")


def test_an_archive_in_root_is_unpacked_without_a_download(offered, tmp_path):
    shutil.copytree(tmp_path / "site", tmp_path / "root")
    offered.download = False
    assert len(offered.datasets["train"]) == 12


def error_of(data, kind=ValueError):
    with pytest.raises(kind) as caught:
        for split in data.datasets:
            list(data.loader(split, batch_size=1))
    text = str(caught.value)
    assert "\n" not in text
    assert "; " in text, "an error ends with a way out"
    return text


def test_a_download_with_another_checksum_leaves_nothing(offered, tmp_path):
    offered.offer.md5 = "0" * 32
    text = error_of(offered, FileNotFoundError)
    assert "UCMerced_LandUse.zip cannot be downloaded" in text
    assert names_in(tmp_path / "root") == []


def test_a_download_that_is_not_to_be_had_leaves_nothing(offered, tmp_path):
    shutil.rmtree(tmp_path / "site")
    assert "cannot be downloaded" in error_of(offered, FileNotFoundError)
    assert names_in(tmp_path / "root") == []


def test_an_archive_of_another_checksum_is_not_unpacked(tmp_path):
    (tmp_path / "UCMerced_LandUse.zip").write_bytes(b"PK")
    text = error_of(UCMerced(str(tmp_path)))
    assert f"{tmp_path / 'UCMerced_LandUse.zip'} is not the published archive" in text
    assert names_in(tmp_path) == ["UCMerced_LandUse.zip"]


@SETS
def test_a_root_without_data_says_what_was_looked_for_and_how_to_get_it(tmp_path, kind):
    text = error_of(kind(str(tmp_path / "nowhere")), FileNotFoundError)
    assert f"{tmp_path / 'nowhere'} has no images (looked for " in text
    assert ".zip); set data.download=true, or give data.root=FOLDER" in text


def test_no_root_at_all_is_an_error(monkeypatch):
    monkeypatch.delenv("NEC_DATA", raising=False)
    assert "the folder that holds ucmerced" in error_of(UCMerced())


def test_a_root_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file, data.root must be a folder" in error_of(EuroSAT(str(tmp_path / "file")))


def test_a_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "UCMerced_LandUse" / "Images").mkdir(parents=True)
    assert "no image in" in error_of(UCMerced(str(tmp_path), split=1), FileNotFoundError)


def test_a_lacking_list_names_the_way_to_a_split_by_hash(ucmerced):
    (ucmerced / "uc_merced-val.txt").unlink()
    text = error_of(UCMerced(str(ucmerced)), FileNotFoundError)
    assert "has no published split (looked for uc_merced-val.txt)" in text
    assert "data.split=1" in text


def test_a_list_that_names_a_lacking_image_is_an_error(ucmerced):
    (ucmerced / "UCMerced_LandUse" / "Images" / "beach" / "beach03.tif").unlink()
    text = error_of(UCMerced(str(ucmerced)), FileNotFoundError)
    assert "uc_merced-train.txt names 1 images that" in text and "as beach03" in text


def test_an_image_in_two_splits_is_an_error(ucmerced):
    with (ucmerced / "uc_merced-test.txt").open("a") as file:
        file.write("beach03.tif\n")
    assert "name beach/beach03.tif more than once" in error_of(UCMerced(str(ucmerced)))


def test_an_empty_list_is_an_empty_split(ucmerced):
    (ucmerced / "uc_merced-val.txt").write_text("")
    assert "split val is empty" in error_of(UCMerced(str(ucmerced)))


def test_an_image_of_another_band_count_is_named(tmp_path):
    write_eurosat(tmp_path, bands=3)
    text = error_of(EuroSAT(str(tmp_path)))
    assert "beach_0.tif has 3 bands of uint16, the data set has 13 bands of uint16" in text


def test_a_broken_image_is_named(ucmerced):
    path = ucmerced / "UCMerced_LandUse" / "Images" / "forest" / "forest02.tif"
    path.write_bytes(path.read_bytes()[:1000])
    assert f"{path} cannot be read as an image" in error_of(UCMerced(str(ucmerced), transform=mean))

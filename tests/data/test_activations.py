import errno
import math
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from nec.data.activations import ActivationDataModule
from nec.data.scenes import Scenes
from nec.data.splits import BLOCK_SIZE

CPU = torch.device("cpu")


def scenes(**arguments):
    small = {"train_per_class": 3, "val_per_class": 1, "test_per_class": 2, "size": 32}
    return Scenes(**{"transform": lambda x: x.float() / 255} | small | arguments)


def prefix(pixels):
    return pixels.flatten(2).transpose(1, 2)


def prepared(data, folder, prefix=prefix, key="key"):
    cached = ActivationDataModule(data, prefix, folder, key, CPU)
    cached.prepare_data()
    return cached


def test_activations_are_the_prefix_of_every_image(tmp_path):
    data = scenes()
    cached = prepared(data, tmp_path)
    for split, images in data.datasets.items():
        activations = cached.datasets[split]
        assert activations.ids == images.ids
        for index in range(len(images)):
            found, image = activations[index], images[index]
            assert torch.equal(found["tokens"], prefix(image["image"][None])[0])
            assert (found["label"], found["id"]) == (image["label"], image["id"])


def test_nothing_is_computed_before_it_is_prepared(tmp_path):
    cached = ActivationDataModule(scenes(), prefix, tmp_path, "key", CPU)
    assert not cached.path.exists()
    cached.prepare_data()
    assert [*tmp_path.iterdir()] == [cached.path]


def test_classes_and_pixels_are_the_image_sets_own(tmp_path):
    data = scenes()
    cached = ActivationDataModule(data, prefix, tmp_path, "key", CPU)
    assert (cached.classes, cached.pixels_up_to(10**6)) == (data.classes, 32 * 32)


def test_a_second_run_computes_nothing_whatever_its_order_or_batch(tmp_path):
    prepared(scenes(), tmp_path)

    def never(pixels):
        raise AssertionError("computed again")

    again = prepared(scenes(batch_size=5, seed=3), tmp_path, never)
    assert next(iter(again.train_dataloader()))["tokens"].shape[1:] == (1024, 4)


@pytest.mark.parametrize(("key", "seed"), [("other", 0), ("key", 1)])
def test_another_prefix_or_other_pixels_have_another_file(tmp_path, key, seed):
    prepared(scenes(), tmp_path)
    prepared(scenes(generator_seed=seed), tmp_path, key=key)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_another_kind_of_device_has_another_file(tmp_path, encoder):
    places = [CPU, *(torch.device("cuda", index) for index in (0, 1))]
    cpu, *gpus = (
        ActivationDataModule.of(encoder, scenes(), tmp_path, place).path for place in places
    )
    assert (
        cpu == ActivationDataModule(scenes(), prefix, tmp_path, encoder.prefix_sha256(), CPU).path
    )
    assert gpus[0] == gpus[1] != cpu


def test_a_failed_pass_leaves_nothing_and_keeps_its_own_words(tmp_path):
    calls = []

    def fails(pixels):
        calls.append(1)
        if len(calls) == 2:
            raise OSError("a truncated image")
        return prefix(pixels)

    with pytest.raises(OSError, match=r"^a truncated image$"):
        prepared(scenes(), tmp_path, fails)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("side", [32, 1])  # a block beyond the limit, and one in a file's buffer
def test_a_full_disk_is_one_line_that_names_the_file_and_a_way_out(tmp_path, side):
    data = scenes(transform=lambda x: x[:, :side, :side].float())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 * 16 * side**2, hard))
    try:
        with pytest.raises(OSError) as caught:
            prepared(data, tmp_path / "kept")
    finally:  # before pytest writes
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert Path(caught.value.filename).parent == tmp_path / "kept"
    assert "activations of the frozen prefix" in caught.value.strerror
    assert "make room there or run from another folder" in caught.value.strerror
    assert not list((tmp_path / "kept").iterdir())


def test_a_folder_that_cannot_be_made_is_named_with_a_way_out(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"run from another folder.*file/activations/"):
        prepared(scenes(), tmp_path / "file" / "activations")


def test_the_file_is_plain_npy(tmp_path):
    prepared(scenes(), tmp_path)
    values = np.load(next(tmp_path.glob("*.npy")))
    assert values.shape == (72, 1024, 4)
    assert values.dtype == np.float32


def test_what_a_killed_process_left_is_removed(tmp_path):
    path = ActivationDataModule(scenes(), prefix, tmp_path, "key", CPU).path
    path.with_name(f".{path.name}.left.part").write_bytes(b"half")
    path.with_name(f".{path.name}.lock").touch()
    prepared(scenes(), tmp_path)
    assert [*tmp_path.iterdir()] == [path]


def test_of_jobs_that_start_together_one_computes_and_the_others_wait(tmp_path):
    seen = []

    def slow(pixels):
        seen.append(len(pixels))
        time.sleep(0.05)
        return prefix(pixels)

    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: prepared(scenes(), tmp_path, slow), range(3)))
    assert len(seen) == math.ceil(72 / BLOCK_SIZE)
    assert [*tmp_path.iterdir()] == [made[0].path]


def test_a_file_that_vanishes_while_it_is_written_is_an_error(tmp_path):
    def removes(pixels):
        for part in tmp_path.glob(".*.part"):
            part.unlink()
        return prefix(pixels)

    with pytest.raises(FileNotFoundError, match="activations of the frozen prefix"):
        prepared(scenes(), tmp_path, removes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept", [0, 1, 200, -1])
def test_a_damaged_file_is_made_again(tmp_path, kept):
    cached = prepared(scenes(), tmp_path)
    whole = cached.path.read_bytes()
    cached.path.write_bytes(whole[:kept])
    prepared(scenes(), tmp_path)
    assert cached.path.read_bytes() == whole


@pytest.mark.parametrize(("old", "new"), [(b"}", b" "), (b"(72, ", b"(71, "), (b"<f4", b"<i4")])
def test_a_file_whose_header_is_damaged_is_made_again(tmp_path, old, new):
    cached = prepared(scenes(), tmp_path)
    whole = cached.path.read_bytes()
    cached.path.write_bytes(whole.replace(old, new, 1))
    prepared(scenes(), tmp_path)
    assert cached.path.read_bytes() == whole

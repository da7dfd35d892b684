"""Laws of splits, loaders and identities, on images that are made up."""

import hashlib
import pickle

import pytest
import torch

from nec.data.images import ImageDataModule, ImageError, Images, SeededShuffle, hash_split


class Plain(Images):
    def read(self, index):
        return torch.full((1, 2, 2), self.labels[index], dtype=torch.uint8)

    def stamp(self, index):
        return "0"


class Made(ImageDataModule):
    classes, bands, raw_bytes_per_pixel, native_pixels = ["a", "b"], 1, 1, 4

    def __init__(self, count=11, **arguments):
        super().__init__(**arguments)
        self.count = count

    def load_splits(self):
        return {s: Plain([f"{s}{i}" for i in range(n)], [i % 2 for i in range(n)])
                for s, n in {"train": self.count, "val": 3, "test": 5}.items()}  # fmt: skip


def ids_of(loader):
    return [name for batch in loader for name in batch["id"]]


PATHS = [f"{name}{i}.tif" for name in "ab" for i in range(10)]
LABELS = [0] * 10 + [1] * 10


def test_hash_split_is_60_20_20_per_class_in_ascending_sha256():
    split = hash_split(PATHS, LABELS)
    for label in (0, 1):
        members = [p for p, x in zip(PATHS, LABELS, strict=True) if x == label]
        ranked = sorted(members, key=lambda p: hashlib.sha256(p.encode()).hexdigest())
        expected = {"train": ranked[:6], "val": ranked[6:8], "test": ranked[8:]}
        for name, paths in expected.items():
            assert {PATHS[i] for i in split[name] if LABELS[i] == label} == set(paths)


def test_a_split_above_0_hashes_its_number_before_the_path():
    ranked = sorted(PATHS[:10], key=lambda p: hashlib.sha256(f"3:{p}".encode()).hexdigest())
    assert {PATHS[i] for i in hash_split(PATHS[:10], LABELS[:10], 3)["train"]} == set(ranked[:6])


@pytest.mark.parametrize("salt", range(4))
def test_splits_are_disjoint_complete_and_ascending(salt):
    split = hash_split(PATHS, LABELS, salt)
    assert sorted(i for part in split.values() for i in part) == list(range(20))
    assert all(part == sorted(part) for part in split.values())


def test_salts_give_different_splits():
    splits = [tuple(hash_split(PATHS, LABELS, salt)["test"]) for salt in range(5)]
    assert len(set(splits)) == 5


def test_hash_split_follows_from_paths_and_not_from_their_order():
    forward = hash_split(PATHS, LABELS)
    backward = hash_split(PATHS[::-1], LABELS[::-1])
    for name, part in forward.items():
        assert {PATHS[i] for i in part} == {PATHS[::-1][i] for i in backward[name]}


@pytest.mark.parametrize(("count", "empty"), [(1, True), (2, True), (3, True), (4, False)])
def test_four_images_of_a_class_are_enough_for_every_split(count, empty):
    split = hash_split(PATHS[:count], LABELS[:count])
    assert any(not part for part in split.values()) == empty


def test_a_loader_goes_through_a_split_in_its_order_and_keeps_the_last_small_batch():
    data = Made(batch_size=4)
    sizes = [len(batch["id"]) for batch in data.loader("train")]
    assert sizes == [4, 4, 3]
    assert ids_of(data.loader("train")) == [f"train{i}" for i in range(11)]
    assert ids_of(data.loader("test", batch_size=2)) == [f"test{i}" for i in range(5)]


def test_a_train_batch_keeps_the_last_small_batch_and_every_image():
    loader = Made(batch_size=4).train_dataloader()
    assert [len(batch["id"]) for batch in loader] == [4, 4, 3]
    assert sorted(ids_of(loader)) == sorted(f"train{i}" for i in range(11))


def test_a_batch_holds_images_labels_as_int64_and_ids():
    batch = next(iter(Made().val_dataloader()))
    assert batch["image"].shape == (3, 1, 2, 2)
    assert batch["label"].dtype == torch.int64
    assert batch["id"] == ["val0", "val1", "val2"]


def order(seed, epoch):
    sampler = SeededShuffle(range(50), seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_the_train_order_is_a_function_of_seed_and_epoch():
    torch.manual_seed(1)
    first = order(0, 3)
    torch.manual_seed(2)
    assert order(0, 3) == first
    assert sorted(first) == list(range(50))
    assert len({tuple(order(s, e)) for s in range(3) for e in range(3)}) == 9


def test_an_empty_split_is_an_error_that_counts_all_splits():
    with pytest.raises(ValueError, match="split train is empty, of 0 train, 3 val, 5 test; "):
        _ = Made(count=0).datasets


def test_a_negative_split_is_an_error():
    with pytest.raises(ValueError, match=r"data\.split=-1 is negative; "):
        Made(split=-1)


def refuse(image):
    raise ValueError("has 1 bands, three are needed")


def test_an_error_of_the_transform_names_the_image():
    with pytest.raises(ImageError, match=r"^image 'val0': has 1 bands, three are needed$"):
        next(iter(Made(transform=refuse).val_dataloader()))


def test_the_transform_makes_what_a_batch_holds():
    batch = next(iter(Made(transform=torch.Tensor.float).val_dataloader()))
    assert batch["image"].dtype == torch.float32


def test_worker_processes_give_the_same_batches():
    one, two = Made(batch_size=4), Made(batch_size=4, workers=2)
    assert ids_of(two.loader("train")) == ids_of(one.loader("train"))


def test_data_sets_pickle():
    again = pickle.loads(pickle.dumps(Made().datasets["val"]))
    assert again.ids == ["val0", "val1", "val2"]

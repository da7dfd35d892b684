"""Laws of splits, loaders and identities, on images that are made up."""

import hashlib
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import SequentialSampler

from nec.data.batches import SeededShuffle, SharedBatches
from nec.data.images import ImageDataModule, ImageError, Images
from nec.data.splits import hash_split


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


def test_train_batches_are_of_nearly_one_size_and_hold_every_image():
    loader = Made(batch_size=4).train_dataloader()
    assert sorted(len(batch["id"]) for batch in loader) == [3, 4, 4]
    assert sorted(ids_of(loader)) == sorted(f"train{i}" for i in range(11))


@st.composite
def shares(draw):
    """N, batch size and ranks, of which each finds an item in every batch."""
    count, batch_size = draw(st.integers(1, 60)), draw(st.integers(1, 20))
    smallest = count // -(-count // batch_size)
    return count, batch_size, draw(st.integers(1, smallest))


def shared(count, batch_size, rank=0, ranks=1):
    return SharedBatches(SeededShuffle(range(count), 0), batch_size, rank, ranks)


@given(shares())
def test_the_ranks_of_a_batch_hold_what_one_rank_alone_would_get(share):
    count, batch_size, ranks = share
    alone = [*shared(count, batch_size)]
    parts = [[*shared(count, batch_size, rank, ranks)] for rank in range(ranks)]
    assert {len(batches) for batches in parts} == {len(alone)}
    for whole, *of_ranks in zip(alone, *parts, strict=True):
        assert sorted(whole) == sorted(item for part in of_ranks for item in part)
        assert max(map(len, of_ranks)) - min(map(len, of_ranks)) <= 1


@given(shares())
def test_an_epoch_holds_each_item_once_in_batches_of_nearly_one_size(share):
    count, batch_size, _ = share
    batches = [*shared(count, batch_size)]
    assert len(batches) == len(shared(count, batch_size)) == -(-count // batch_size)
    assert sorted(item for batch in batches for item in batch) == [*range(count)]
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("count", "batch_size", "ranks", "remedy"),
    [
        (8, 2, 3, "data.batch_size=4"),
        (9, 4, 4, "data.batch_size=5"),
        (2, 32, 3, "fewer devices"),
    ],
)
def test_a_batch_that_leaves_nothing_for_a_rank_names_what_would(count, batch_size, ranks, remedy):
    with pytest.raises(ValueError, match=f"set {remedy}$"):
        shared(count, batch_size, 0, ranks)


@pytest.mark.parametrize("first", range(4))
def test_a_pass_may_begin_in_the_middle_of_an_epoch_once(first):
    expected = [*SharedBatches(SequentialSampler(range(11)), 3, 1, 2)]
    resumed = SharedBatches(SequentialSampler(range(11)), 3, 1, 2)
    resumed.first = first
    assert [*resumed] == expected[first:]
    assert [*resumed] == expected


def test_training_that_is_stopped_goes_on_in_its_epoch_behind_the_batches_that_were_done():
    whole, resumed = Made(batch_size=4), Made(batch_size=4)
    loader = whole.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(3)
    resumed.load_state_dict({"epoch": 3, "batches": 2})
    done, left = ids_of(loader), ids_of(resumed.train_dataloader())
    assert left == done[-len(left) :]
    assert 3 <= len(left) <= 4
    assert ids_of(resumed.train_dataloader()) == done


def test_an_order_of_all_batches_is_drawn_though_a_part_is_left():
    """So that what comes after an interruption is what would have come."""
    first, second = (SeededShuffle(range(20), 7) for _ in range(2))
    resumed = SharedBatches(second, 6)
    resumed.first = 2
    first.set_epoch(5)
    second.set_epoch(5)
    assert [*resumed] == [*SharedBatches(first, 6)][2:]


def test_a_sample_to_fit_to_follows_from_its_seed_and_keeps_the_order_of_the_split(monkeypatch):
    monkeypatch.setattr("nec.data.splits.FIT_IMAGES", 5)
    names = [f"train{i}" for i in range(11)]
    drawn = [ids_of(Made(seed=other).sample(seed)) for seed in (0, 1) for other in (0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]
    assert all(len(ids) == 5 and ids == [n for n in names if n in ids] for ids in drawn)


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

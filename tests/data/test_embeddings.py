import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from nec.data.embeddings import EmbeddingDataModule, StoredEmbeddings
from nec.store import EmbeddingStore
from nec.store.codec import RawCodec


def stored(path, count=30):
    y = np.random.default_rng(0).standard_normal((count, 3, 2, 2)).astype(np.float32)
    codec = RawCodec((3, 2, 2), "float32")
    splits = [("train", "val", "test")[i % 3] for i in range(count)]
    ids = [f"image {i}" for i in range(count)]
    with EmbeddingStore.create(path, codec, {}, classes=["a", "b"]) as store:
        store.append(y.reshape(count, -1).view(np.int32), ids, splits, np.arange(count) % 2)
    return EmbeddingStore.open(path), y


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_is_a_dataset(tmp_path, workers):
    _, y = stored(tmp_path / "s.zarr")
    dataset = StoredEmbeddings(tmp_path / "s.zarr", split="val")
    found = list(DataLoader(dataset, batch_size=4, num_workers=workers))
    embeddings = torch.cat([batch["embedding"] for batch in found])
    assert torch.equal(embeddings, torch.from_numpy(y[1::3]))
    assert [name for batch in found for name in batch["id"]] == [
        f"image {i}" for i in range(1, 30, 3)
    ]
    assert torch.cat([batch["label"] for batch in found]).tolist() == [1, 0] * 5
    assert torch.equal(dataset[3]["embedding"], torch.from_numpy(y[10]))
    assert len(StoredEmbeddings(tmp_path / "s.zarr")) == 30
    with pytest.raises(ValueError, match="'holdout' is not one of"):
        StoredEmbeddings(tmp_path / "s.zarr", split="holdout")


class Means:
    def read(self, store, rows):
        return torch.from_numpy(store.read(rows)).mean(dim=(2, 3))


def test_features_are_of_the_decoded_embeddings_of_their_split(tmp_path):
    _, y = stored(tmp_path / "s.zarr")
    data = EmbeddingDataModule(str(tmp_path / "s.zarr"))
    data.keep(Means())
    assert (data.shape, data.classes) == ((3, 2, 2), ["a", "b"])
    for offset, split in enumerate(("train", "val", "test")):
        expected = torch.from_numpy(y[offset::3]).mean(dim=(2, 3))
        assert torch.equal(data.datasets[split].features, expected)
        assert data.datasets[split].ids == [f"image {i}" for i in range(offset, 30, 3)]
        assert data.datasets[split].labels.tolist() == [i % 2 for i in range(offset, 30, 3)]


def test_batches_hold_every_image_once_and_orders_follow_from_the_seed(tmp_path):
    stored(tmp_path / "s.zarr")

    def order(seed):
        data = EmbeddingDataModule(str(tmp_path / "s.zarr"), batch_size=4, seed=seed)
        train = data.datasets["train"]
        batches = list(data.train_dataloader())
        assert [len(b["id"]) for b in batches] == [3, 3, 4]
        for batch in batches:
            rows = [train.ids.index(name) for name in batch["id"]]
            assert torch.equal(batch["embedding"], train.features[rows])
        return [name for b in batches for name in b["id"]]

    assert sorted(order(0)) == sorted(f"image {i}" for i in range(0, 30, 3))
    assert order(0) == order(0) != order(1)


def test_another_kind_of_head_has_other_features(tmp_path):
    stored(tmp_path / "s.zarr")
    data = EmbeddingDataModule(str(tmp_path / "s.zarr"))
    assert data.datasets["train"].features.shape == (10, 3, 2, 2)
    data.keep(Means())
    first = data.datasets
    assert first["train"].features.shape == (10, 3)
    data.keep(Means())
    assert data.datasets is first  # decoded once

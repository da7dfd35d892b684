import numpy as np
import torch

from nec.data.embeddings import EmbeddingDataModule, read_splits
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


def test_features_are_of_the_decoded_embeddings_of_their_split(tmp_path):
    store, y = stored(tmp_path / "s.zarr")
    splits = read_splits(store, lambda x: x.mean(dim=(2, 3)))
    for offset, split in enumerate(("train", "val", "test")):
        expected = torch.from_numpy(y[offset::3]).mean(dim=(2, 3))
        assert torch.equal(splits[split].features, expected)
        assert splits[split].ids == [f"image {i}" for i in range(offset, 30, 3)]
        assert splits[split].labels.tolist() == [i % 2 for i in range(offset, 30, 3)]


def test_batches_hold_every_image_once_and_orders_follow_from_the_seed(tmp_path):
    store, _ = stored(tmp_path / "s.zarr")
    splits = read_splits(store, lambda x: x.flatten(1))

    def order(seed):
        data = EmbeddingDataModule(splits, batch_size=4, seed=seed)
        batches = list(data.train_dataloader())
        assert [len(b["id"]) for b in batches] == [4, 4, 2]
        for batch in batches:
            rows = [splits["train"].ids.index(name) for name in batch["id"]]
            assert torch.equal(batch["embedding"], splits["train"].features[rows])
        return [name for b in batches for name in b["id"]]

    assert sorted(order(0)) == sorted(splits["train"].ids)
    assert order(0) == order(0) != order(1)

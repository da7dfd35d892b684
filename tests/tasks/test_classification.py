import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from nec.data.embeddings import EmbeddingDataModule
from nec.store import EmbeddingStore
from nec.store.codec import RawCodec
from nec.tasks import LinearHead, SceneClassification

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


@pytest.fixture
def data(tmp_path):
    """A store of three classes that differ by their mean embedding."""
    rng = np.random.default_rng(0)
    labels = np.arange(270) % 3
    centers = rng.standard_normal((3, 4, 1, 1))
    y = centers[labels] + 0.1 * rng.standard_normal((270, 4, 2, 2))
    splits = [("train", "val", "test")[i // 90] for i in range(270)]
    path = tmp_path / "store.zarr"
    codec = RawCodec((4, 2, 2), "float32")
    with EmbeddingStore.create(path, codec, {}, classes=["a", "b", "c"]) as store:
        symbols = y.astype(np.float32).reshape(270, -1).view(np.int32)
        store.append(symbols, [str(i) for i in range(270)], splits, labels)
    return EmbeddingDataModule(str(path), batch_size=16)


@pytest.mark.filterwarnings("ignore")
def test_separable_classes_are_learned_and_reported_under_their_names(data):
    task = SceneClassification(LinearHead, lr=1e-2, weight_decay=1e-2)
    trainer = Trainer(max_epochs=15, **QUIET)
    trainer.fit(task, datamodule=data)
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy"} <= set(
        trainer.callback_metrics
    )
    assert float(trainer.callback_metrics["val/accuracy"]) > 0.95
    (tested,) = trainer.test(task, datamodule=data, verbose=False)
    batches = trainer.predict(task, datamodule=data)[2]  # train, val, test
    predicted = torch.cat([batch["predicted"] for batch in batches])
    assert tested["test/accuracy"] == float(
        (predicted == data.datasets["test"].labels).float().mean()
    )
    assert [name for batch in batches for name in batch["id"]] == data.datasets["test"].ids


@pytest.mark.filterwarnings("ignore")
def test_a_head_follows_from_its_seed_alone(data):
    def weights(seed, drawn):
        torch.manual_seed(drawn)
        task = SceneClassification(LinearHead, lr=1e-3, weight_decay=1e-2, seed=seed)
        Trainer(max_epochs=1, **QUIET).fit(task, datamodule=data)
        return task.head.linear.weight.detach()

    assert torch.equal(weights(0, 1), weights(0, 2))
    assert not torch.equal(weights(0, 1), weights(1, 1))

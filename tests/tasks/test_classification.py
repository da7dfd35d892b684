import torch
from lightning.pytorch import Trainer

from nec.data.embeddings import EmbeddingDataModule, Embeddings
from nec.tasks import LinearHead, SceneClassification


def splits(count=90):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    centers = torch.randn(3, 8, generator=generator)
    features = centers[labels] + 0.1 * torch.randn(count, 8, generator=generator)
    ids = [str(i) for i in range(count)]
    return {s: Embeddings(features, labels, ids) for s in ("train", "val", "test")}


def test_separable_classes_are_learned_and_reported_under_their_names():
    torch.manual_seed(0)
    task = SceneClassification(LinearHead((4, 2, 2), 3), lr=1e-2)
    data = EmbeddingDataModule(splits(), batch_size=16)
    trainer = Trainer(
        max_epochs=15,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, data.train_dataloader(), data.val_dataloader())
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy"} <= set(
        trainer.callback_metrics
    )
    assert float(trainer.callback_metrics["val/accuracy"]) > 0.95
    (tested,) = trainer.test(task, data.test_dataloader(), verbose=False)
    predicted = torch.cat(trainer.predict(task, data.test_dataloader()))
    right = (predicted == splits()["test"].labels).float().mean()
    assert tested["test/accuracy"] == float(right)

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from small_stores import segmented
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_jaccard_index,
)

from nec.data.embeddings import EmbeddingDataModule
from nec.data.scenes import Scenes
from nec.tasks import FCN, LinearHead, SemanticSegmentation, TokenLinear
from nec.tasks.segmentation import MeanIoU, OverallAccuracy, confusion

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
    images = segmented(tmp_path / "store.zarr")
    return EmbeddingDataModule(str(tmp_path / "store.zarr"), batch_size=4, images=images)


def cells(seed=0, batch=3, classes=4, side=5):
    """Logits, and pixel counts of cells of 3 x 3 pixels with their mask (B, H, W)."""
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(rng.integers(0, classes + 1, (batch, 3 * side, 3 * side)))
    mask[mask == classes] = 255
    blocks = mask.reshape(batch, side, 3, side, 3)
    counts = torch.stack([(blocks == k).sum(dim=(2, 4)) for k in range(classes)], dim=1)
    return torch.randn(batch, classes, side, side), counts.float(), mask


def spread(cell_values):
    """Values of cells (B, ..., R, C) at their pixels."""
    return cell_values.repeat_interleave(3, dim=-2).repeat_interleave(3, dim=-1)


def test_confusion_of_cells_is_that_of_their_pixels():
    logits, counts, mask = cells()
    named = spread(logits.argmax(dim=1))
    for image in range(3):
        oracle = multiclass_confusion_matrix(named[image], mask[image], 4, ignore_index=255)
        assert torch.equal(confusion(logits, counts)[image], oracle)


def test_metrics_over_batches_agree_with_torchmetrics_over_all_pixels():
    batches = [cells(seed) for seed in range(3)]
    miou, accuracy = MeanIoU(4), OverallAccuracy(4)
    for logits, counts, _ in batches:
        miou.update(logits, counts)
        accuracy.update(logits, counts)
    named = torch.cat([spread(logits.argmax(dim=1)) for logits, _, _ in batches])
    mask = torch.cat([mask for _, _, mask in batches])
    oracle = multiclass_jaccard_index(named, mask, 4, ignore_index=255)
    torch.testing.assert_close(miou.compute(), oracle)
    kept = mask != 255
    torch.testing.assert_close(accuracy.compute(), (named == mask)[kept].float().mean())


def test_the_loss_is_the_cross_entropy_of_the_pixels_that_count():
    logits, counts, mask = cells()
    losses, weights = SemanticSegmentation(TokenLinear, 1, 0).losses(logits, counts)
    oracle = F.cross_entropy(spread(logits), mask, ignore_index=255)
    torch.testing.assert_close(losses.sum() / weights.sum(), oracle)
    assert weights.sum() == (mask != 255).sum()


@pytest.mark.filterwarnings("ignore")
def test_separable_tokens_are_learned_and_scored_on_pixels(data):
    task = SemanticSegmentation(TokenLinear, lr=0.1, weight_decay=1e-2)
    trainer = Trainer(max_epochs=20, **QUIET)
    trainer.fit(task, datamodule=data)
    assert {"train/loss", "train/miou", "val/loss", "val/miou", "val/accuracy"} <= set(
        trainer.callback_metrics
    )
    (tested,) = trainer.test(task, datamodule=data, verbose=False)
    assert tested["test/miou"] > 0.99
    batches = trainer.predict(task, data.loader("test"))
    assert batches[0].keys() == {"statistics", "label", "id"}  # places are many, and not kept
    statistics = torch.cat([batch["statistics"] for batch in batches]).numpy()[None]
    measured = task.measured(statistics, data.mask_classes)
    assert measured["miou"].item() == pytest.approx(tested["test/miou"])
    assert measured["accuracy"].item() == pytest.approx(tested["test/accuracy"])
    assert statistics.sum() == (data.images.masks["test"] != 255).sum()
    assert list(measured) == ["miou", "accuracy", "iou/water", "iou/land", "iou/road"]


@pytest.mark.filterwarnings("ignore")
def test_labels_that_say_nothing_are_not_learned(data):
    rng = np.random.default_rng(1)
    for masks in data.images.masks.values():
        masks[:] = rng.integers(0, 3, masks.shape)
    task = SemanticSegmentation(TokenLinear, lr=1e-2, weight_decay=1e-2)
    trainer = Trainer(max_epochs=5, **QUIET)
    trainer.fit(task, datamodule=data)
    (tested,) = trainer.test(task, datamodule=data, verbose=False)
    assert tested["test/accuracy"] < 0.45


def test_targets_are_found_by_id_and_cut_at_the_heads_scale(data):
    head = FCN((5, 4, 4), 3, scale=2)
    SemanticSegmentation.prepare(data, head)
    batch = next(iter(data.loader("test")))
    assert batch["counts"].shape == (4, 3, 8, 8)  # a cell is a pixel
    for name, counts in zip(batch["id"], batch["counts"], strict=True):
        mask = data.images.masks["test"][int(name.split()[1])]
        for number in range(3):
            assert np.array_equal(counts[number].numpy(), mask == number)


@pytest.mark.parametrize("scale", [3, 4])
def test_a_scale_that_cuts_pixels_is_refused(data, scale):
    with pytest.raises(ValueError, match=f"scale is {scale}, but a token is 2 pixels wide"):
        SemanticSegmentation.check(FCN((5, 4, 4), 3, scale=scale), data.images, image_size=8)


def test_a_head_of_scenes_is_refused(data):
    with pytest.raises(ValueError, match="LinearHead gives one answer an image"):
        SemanticSegmentation.check(LinearHead((5, 4, 4), 3), data.images, image_size=8)


@pytest.mark.parametrize("encoder", ["dino", None, [8], {}, {"image_size": "8"}, {"image_size": 0}])
def test_a_store_that_does_not_say_what_its_encoder_saw_is_refused(tmp_path, encoder):
    images = segmented(tmp_path / "s.zarr", encoder=encoder)
    data = EmbeddingDataModule(str(tmp_path / "s.zarr"), images=images)
    data.keep_counts(1)
    with pytest.raises(ValueError, match="does not say which size its encoder saw"):
        data.datasets["train"]


def test_images_without_masks_are_refused(tmp_path, data):
    with pytest.raises(ValueError, match="EmbeddingDataModule has no masks"):
        SemanticSegmentation.classes_of(EmbeddingDataModule(data.store))


def test_other_images_than_those_of_the_store_are_refused(data):
    data.images = Scenes(train_per_class=1, val_per_class=1, test_per_class=1, size=32)
    data.keep_counts(1)
    with pytest.raises(ValueError, match=r"image 'train 11' of the store is not among the images"):
        _ = data.datasets

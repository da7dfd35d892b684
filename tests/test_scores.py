import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from nec.scores import iou, mean_iou, overall_accuracy


def test_miou_of_a_mask_of_two_pixels():
    # Pixels of classes 0 and 1, both called 0: class 0 hits 1 of a union of 2, class 1 0 of 1.
    confusion = np.array([[1, 0], [1, 0]])
    assert iou(confusion).tolist() == [0.5, 0.0]
    assert mean_iou(confusion) == 0.25
    assert overall_accuracy(confusion) == 0.5


def test_scores_agree_with_torchmetrics():
    rng = np.random.default_rng(0)
    true, named = rng.integers(0, 4, (2, 500))
    confusion = np.zeros((5, 5), np.int64)  # class 4 is nowhere
    np.add.at(confusion, (true, named), 1)
    oracle = multiclass_jaccard_index(torch.tensor(named), torch.tensor(true), 5)
    assert mean_iou(confusion) == pytest.approx(float(oracle), abs=1e-6)
    each = multiclass_jaccard_index(torch.tensor(named), torch.tensor(true), 5, average="none")
    np.testing.assert_allclose(iou(confusion)[:4], each[:4], atol=1e-6)
    assert overall_accuracy(confusion) == (true == named).mean()


def test_a_class_that_is_nowhere_counts_in_no_mean_and_one_that_is_missed_counts_as_zero():
    assert mean_iou(np.diag([3, 4, 0])) == 1
    assert mean_iou(np.array([[3, 0, 0], [0, 4, 0], [2, 0, 0]])) == pytest.approx((3 / 5 + 1) / 3)


def test_a_pixel_of_a_class_that_does_not_occur_moves_the_mean_by_what_it_takes():
    whole = np.array([[600, 200, 0], [150, 1050, 0], [0, 0, 0]])
    strayed = whole - np.array([[1, 0, -1], [0, 0, 0], [0, 0, 0]])
    lost = (600 / 950 - 599 / 950) / 2
    assert mean_iou(whole) - mean_iou(strayed) == pytest.approx(lost)
    assert iou(strayed)[2] == 0


def test_scores_of_several_seeds_at_once_are_those_of_each():
    several = np.random.default_rng(1).integers(0, 9, (3, 4, 4))
    for score in (iou, mean_iou, overall_accuracy):
        assert np.array_equal(score(several), [score(one) for one in several])


def test_no_pixel_gives_no_score():
    assert np.isnan(mean_iou(np.zeros((2, 2), int)))
    assert np.isnan(overall_accuracy(np.zeros((2, 2), int)))

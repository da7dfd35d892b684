import torch

from nec.data.embeddings import Embeddings
from nec.tasks import SceneClassification, SemanticSegmentation


def embeddings(labels, counts=None):
    return Embeddings(torch.zeros(len(labels), 1), torch.tensor(labels), labels, counts)


def test_scenes_are_named_after_most_of_train_not_of_test():
    train, test = embeddings([0, 2, 2]), embeddings([0, 0, 0, 2])
    found = SceneClassification.majority(train, test, 3)
    assert found.tolist() == [[0], [0], [0], [1]]


def test_pixels_are_named_after_most_pixels_of_train():
    pixels = torch.tensor([[1, 9], [6, 2]], dtype=torch.int32)[:, :, None, None]  # (2, K, 1, 1)
    found = SemanticSegmentation.majority(
        embeddings([0, 0], pixels), embeddings([0], pixels[1:]), 2
    )
    assert found.tolist() == [[0, 6, 0, 2]]  # most of train is class 1
    measured = SemanticSegmentation.measured(found[None].numpy(), ["a", "b"])
    assert measured["miou"].tolist() == [(0 + 2 / 8) / 2]

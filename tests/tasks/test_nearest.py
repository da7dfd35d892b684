import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier
from test_heads import split

from nec.tasks import NearestNeighbours


def clustered(count, noise, seed=0):
    """Features (count, 6) around three centres, with their labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, 6, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % 3
    drawn = torch.randn(count, 6, generator=generator)
    return split(centres[labels] + noise * drawn, labels)


def test_clusters_are_told_apart():
    head = NearestNeighbours((3, 2, 2), 3)
    head.fit(clustered(60, 0.2), clustered(30, 0.2, seed=1))
    test = clustered(30, 0.2, seed=2)
    assert torch.equal(head(test.features).argmax(dim=1), test.labels)


@pytest.mark.parametrize("k", [1, 7])
def test_votes_are_those_of_scikit_learn(k):
    train, test = clustered(60, 1.5), clustered(40, 1.5, seed=1)
    head = NearestNeighbours((3, 2, 2), 3, choices=[k])
    head.fit(train, test)
    standard = [head.norm(part.features).numpy() for part in (train, test)]
    oracle = KNeighborsClassifier(k, metric="cosine").fit(standard[0], train.labels)
    votes = torch.from_numpy(oracle.predict_proba(standard[1]) * k)
    torch.testing.assert_close(head(test.features).double(), votes, atol=0.01, rtol=0)


def test_k_is_chosen_on_val():
    train = clustered(60, 0.1)
    train.labels[:6] = (train.labels[:6] + 1) % 3  # wrong neighbours that a majority outvotes
    val = split(train.features[:6] + 0.001, torch.arange(6) % 3)
    head = NearestNeighbours((3, 2, 2), 3, choices=[9, 1])
    head.fit(train, val)
    assert head.neighbours == 9
    head.fit(clustered(60, 0.1), clustered(30, 0.1, seed=1))
    assert head.neighbours == 1  # the smallest of equals


def test_the_nearest_is_by_cosine():
    train, test = clustered(60, 1.0), clustered(20, 1.0, seed=1)
    head = NearestNeighbours((3, 2, 2), 3, choices=[1])
    head.fit(train, test)
    closeness = cosine_similarity(head.norm(test.features), head.norm(train.features))
    expected = train.labels[torch.from_numpy(closeness).argmax(dim=1)]
    assert torch.equal(head(test.features).argmax(dim=1), expected)


def test_more_neighbours_than_images_are_all_of_them():
    head = NearestNeighbours((3, 2, 2), 3, choices=[50])
    head.fit(clustered(6, 0.1), clustered(6, 0.1, seed=1))
    assert head(clustered(6, 0.1).features).sum(dim=1) == pytest.approx(6, abs=0.01)


@pytest.mark.parametrize("choices", [[], [0, 1]])
def test_a_choice_of_no_neighbour_is_refused(choices):
    with pytest.raises(ValueError, match=r"k is 1 or more, as in task\.NAME\.head\.choices"):
        NearestNeighbours((3, 2, 2), 3, choices=choices)

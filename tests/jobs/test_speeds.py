import numpy as np
import pytest
import torch

from nec.bottlenecks import Float16
from nec.coding import streams
from nec.data.splits import BLOCK_SIZE
from nec.jobs.speeds import speeds_of_embeddings


class Watched(Float16):
    """Float16 that notes how many threads it may use."""

    def __init__(self, fails=False):
        super().__init__(3, (2, 2))
        self.fails = fails
        self.seen = set()

    def _quantize(self, y):
        self.seen.add((torch.get_num_threads(), streams._MOST_THREADS.get()))
        if self.fails:
            raise KeyError
        return super()._quantize(y)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def speeds(watched):
    blocks = [torch.zeros(BLOCK_SIZE, 3, 2, 2)]
    return speeds_of_embeddings({"embedding": watched}, {"embedding": watched.export()}, blocks)


@pytest.mark.usefixtures("two_threads")
def test_embeddings_are_timed_on_one_thread_and_the_others_come_back():
    watched = Watched()
    assert np.all(speeds(watched) > 0)
    assert watched.seen == {(1, 1)}


@pytest.mark.usefixtures("two_threads")
def test_threads_come_back_after_an_error_too():
    watched = Watched(fails=True)
    with pytest.raises(KeyError):
        speeds(watched)
    assert watched.seen == {(1, 1)}

"""Which images a step sees: an order that follows from a seed, cut into batches and shares."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, RandomSampler, Sampler


class SeededShuffle(RandomSampler):
    """A random order that follows from a seed and an epoch, whatever else the process drew.

    Lightning announces the epoch (`set_epoch`), so a resumed run goes on in the order it would have
    had, and all ranks have the same order.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        super().__init__(dataset, generator=torch.Generator())
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Let the next order drawn be that of this epoch."""
        state = np.random.SeedSequence([self.seed, epoch]).generate_state(1)
        self.generator.manual_seed(int(state[0]))


class SharedBatches(Sampler[list[int]]):
    """One rank's share of each batch; nothing is padded, dropped or repeated.

    An order of N items is cut into ceil(N / batch_size) batches whose sizes differ by one at most,
    and rank r of R takes the items r, r + R, ... of each. So a step sees the same images on one
    process as on many, and every rank takes the same number of steps.

    Args:
        sampler: The order, the same on every rank.
        batch_size: Largest number of items in a batch, over all ranks.
        rank: Rank r of this process.
        ranks: Number of ranks R.

    Raises:
        ValueError: A batch would have fewer items than there are ranks.
    """

    def __init__(
        self, sampler: Sampler[int], batch_size: int, rank: int = 0, ranks: int = 1
    ) -> None:
        count = len(sampler)
        batches = -(-count // batch_size)
        if count // batches < ranks:
            larger = (size for size in range(batch_size, count + 1) if _least(count, size) >= ranks)
            remedy = f"data.batch_size={size}" if (size := next(larger, None)) else "fewer devices"
            raise ValueError(
                f"{count} images in batches of {batch_size} at most leave {count // batches} in "
                f"some, too few for {ranks} devices; set {remedy}"
            )
        self.sampler = sampler
        self.batch_size = batch_size
        self.rank = rank
        self.ranks = ranks
        self.first = 0  # batch that the next pass begins with; later ones begin with 0
        self._ends = [count * index // batches for index in range(batches + 1)]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        first, self.first = self.first, 0
        for start, end in zip(self._ends[first:-1], self._ends[first + 1 :], strict=True):
            yield order[start:end][self.rank :: self.ranks]


def _least(count: int, batch_size: int) -> int:
    """Number of items in the smallest batch."""
    return count // -(-count // batch_size)

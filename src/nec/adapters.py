"""Which encoder weights may learn."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from nec.encoders import Encoder


class Opened(NamedTuple):
    """Numbers of parameters after an adapter opened an encoder."""

    trainable: int  # parameters that may learn
    total: int  # parameters that a run executes, up to the encoder's block

    @property
    def share(self) -> float:
        """Trainable over total, 0 to 1."""
        return self.trainable / self.total


class Adapter(ABC):
    """Lets part of a frozen encoder learn."""

    def open(self, encoder: Encoder) -> Opened:
        """Let stages of the encoder learn, and count the parameters."""
        counts = [sum(p.numel() for p in stage) for stage in encoder.stage_parameters()]
        stages = self.stages(counts)
        encoder.open(stages)
        return Opened(sum(counts[len(counts) - stages :]), sum(counts))

    @abstractmethod
    def stages(self, counts: list[int]) -> int:
        """Return how many of the last stages may learn, given each stage's parameter count."""


class NoAdapter(Adapter):
    """Nothing learns; embeddings are the pretrained encoder's."""

    def stages(self, counts: list[int]) -> int:
        """Return 0: no stage learns."""
        return 0


class LastBlocks(Adapter):
    """The last half-blocks learn, as many as a share of the parameters allows.

    NEC (arXiv 2403.17886, section 3.1) adapts a share of the encoder's parameters; here it is a
    strict suffix, so everything before it is a prefix whose activations never change.

    Args:
        ratio: Largest share of the executed parameters that may learn, in (0, 1].
    """

    def __init__(self, ratio: float) -> None:
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio is {ratio}; a share lies in (0, 1], set adapter.ratio=0.25")
        self.ratio = ratio

    def stages(self, counts: list[int]) -> int:
        """Return how many half-blocks fit; the patch embedding stays frozen."""
        allowed = self.ratio * sum(counts)
        opened, stages = 0, 0
        for count in reversed(counts[1:]):
            if opened + count > allowed:
                break
            opened += count
            stages += 1
        if not stages:
            smallest = counts[-1] / sum(counts)
            raise ValueError(
                f"ratio is {self.ratio}; the last half-block alone is {smallest:.4f} of the "
                f"parameters, set adapter.ratio={_rounded_up(smallest)} or more, or adapter=none"
            )
        return stages


class Full(Adapter):
    """Everything learns, the patch embedding included."""

    def stages(self, counts: list[int]) -> int:
        """Return the number of all stages."""
        return len(counts)


def _rounded_up(share: float) -> float:
    """Round up to four decimals."""
    return round(share + 5e-5, 4)

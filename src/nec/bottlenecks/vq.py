"""Vector quantization: a codebook of tokens, and fields of codes with a spatial prior."""

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nec.bottlenecks.base import SUMMED_IMAGES, Bottleneck
from nec.bottlenecks.fields import Prices, settle
from nec.bottlenecks.tokens import PositionedKLT
from nec.coding import Neighbours
from nec.store.codec import Codec, VectorCodec

# Tokens that k-means sees, per code and at most in all, and its rounds.
TOKENS_PER_CODE, LARGEST_SAMPLE, ROUNDS = 256, 1 << 16, 15
CLASS_ROUNDS = 300  # of k-means over the centres themselves
SEED = 0  # for drawing those tokens, and for where k-means starts
# Rounds of refitting centres and prices to codes, and codes to them.
REFITS = 3
# Number of nearest codes that are tried at a position.
CANDIDATES = 32
# Largest number of classes that codes fall into as neighbours.
MOST_CLASSES = 256
# Weight, in observations, of a code's overall share in the counts beside each class.
PRIOR_WEIGHT = 10.0
# Candidates for the sharpness of the product of both tables; the best on train is taken.
POWERS = (0.6, 0.8, 1.0)


class VQ(Bottleneck):
    """Tokens as codes, chosen by distortion and bits over the whole grid, restored by a filter.

    Tokens less the mean of their position go through a KLT to `latents` channels; k-means finds the
    codes' centres. A code is priced given the codes to its left and above
    (`nec.coding.Neighbours`), and a grid's codes are those of least distortion + rate_weight · bits
    by iterated conditional modes (Besag 1986; entropy-constrained: Chou et al. 1989); centres and
    prices are refitted to them. A receiver restores a token by a linear filter over the centres of
    3 × 3 codes, fitted by ridge regression on train; it is worth half of the codes' bytes or more.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        codes: K, size of the codebook; at most the number of train tokens.
        rate_weight: What a bit is worth, as a share of a token's variance: 0 takes the nearest
            code; 0.02 to 0.2 halve the bytes.
        latents: M, number of KLT latents.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        codes: int = 256,
        rate_weight: float = 0.03,
        latents: int = 96,
    ) -> None:
        super().__init__(channels, grid)
        if not 2 <= codes <= 4096:
            raise ValueError(f"codes is {codes}; a codebook has 2 to 4096, set bottleneck.codes")
        if not 0 <= rate_weight < math.inf:
            raise ValueError(
                f"rate_weight is {rate_weight}; a bit is worth a number >= 0, set "
                "bottleneck.rate_weight"
            )
        self.codes, self.rate_weight = codes, rate_weight
        latents = min(latents, channels)
        self.klt = PositionedKLT(channels, grid, latents)
        self.register_buffer("centres", torch.zeros(codes, latents))
        self.register_buffer("filters", torch.zeros(9, latents, latents))
        self.neighbours: Neighbours | None = None

    def _fit(self, y: Tensor) -> None:
        """Fit transform, centres, prices and filters to train embeddings (N, D, h, w)."""
        self.neighbours = None  # prices of an earlier fit belong to other centres
        self.klt.fit(y)
        latents = torch.cat([self.klt(block) for block in y.split(SUMMED_IMAGES)])
        self.centres.copy_(self._kmeans(latents.flatten(0, 1)))
        classes = self._classes()
        fields = self._settled(latents)
        for _ in range(REFITS if self.rate_weight else 0):
            self.neighbours = priced(fields, classes)
            fields = self._settled(latents)
            self.centres.copy_(means(latents, fields, self.centres))
        self.neighbours = priced(fields, classes)
        self.filters.copy_(restoring(self.centres, fields, latents))

    def take(self, codec: Any) -> None:
        """Take over the codec's tables."""
        self.neighbours = codec.neighbours

    def _quantize(self, y: Tensor) -> Tensor:
        """Return codes (B, h * w), row-major."""
        return self._settled(self.klt(y)).flatten(1).int()

    def export(self) -> Codec:
        """Return the codec of centres, filters and tables."""
        klt = self.klt
        arrays = (klt.mean, self.centres, self.filters, klt.basis)
        numbers = [array.cpu().numpy() for array in arrays]
        return VectorCodec(self.shape, float(klt.scale), *numbers, self._fitted())

    def _settled(self, latents: Tensor) -> Tensor:
        """Choose fields (B, h, w) of codes for latents (B, h * w, M)."""
        return torch.cat([self._settle(block) for block in latents.split(SUMMED_IMAGES)])

    def _settle(self, latents: Tensor) -> Tensor:
        norms = self.centres.square().sum(dim=1)
        squares = [
            norms - 2 * each @ self.centres.T + each.square().sum(dim=1, keepdim=True)
            for each in latents
        ]
        count = min(CANDIDATES, self.codes) if self.neighbours and self.rate_weight else 1
        distances, found = torch.stack(squares).topk(count, dim=2, largest=False)
        found, distances = found.unflatten(1, self.grid), distances.unflatten(1, self.grid)
        if count == 1:
            return found[..., 0]
        prices = Prices.of(self._fitted(), latents.device)
        return settle(found, distances, prices, self.rate_weight)

    def _kmeans(self, tokens: Tensor) -> Tensor:
        """Find K centres (K, M) of tokens (n, M)."""
        if len(tokens) < self.codes:
            raise ValueError(
                f"codes is {self.codes}, train has {len(tokens)} tokens; set codes (of the "
                f"bottleneck or of its part) to {len(tokens)} or less"
            )
        size = min(len(tokens), TOKENS_PER_CODE * self.codes, LARGEST_SAMPLE)
        chosen = np.random.default_rng(SEED).choice(len(tokens), size, replace=False)
        sample = tokens[torch.from_numpy(np.sort(chosen)).to(tokens.device)].cpu().numpy()
        return torch.from_numpy(clustered(sample, self.codes, ROUNDS).cluster_centers_)

    def _classes(self) -> np.ndarray:
        """Return each code's class as a neighbour: the code itself, or its centre's cluster."""
        if self.codes <= MOST_CLASSES:
            return np.arange(self.codes)
        labels = clustered(self.centres.cpu().numpy(), MOST_CLASSES, CLASS_ROUNDS).labels_
        return np.unique(labels, return_inverse=True)[1]

    def _fitted(self) -> Neighbours:
        if self.neighbours is None:
            raise ValueError("VQ has no tables; fit(y) fits them to train embeddings")
        return self.neighbours


def clustered(points: np.ndarray, count: int, rounds: int) -> Any:
    """Run scikit-learn's k-means on points (n, M); if fewer than `count` differ, some are empty."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):  # sums of threads round otherwise
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(count, n_init=1, max_iter=rounds, random_state=SEED).fit(points)


def priced(fields: Tensor, classes: np.ndarray) -> Neighbours:
    """Build tables from fields (N, h, w) of codes, with the one of POWERS of fewest bits."""
    codes = fields.cpu().numpy()
    border, size = int(classes.max()) + 1, len(classes)
    left = np.pad(classes[codes], ((0, 0), (0, 0), (1, 0)), constant_values=border)[:, :, :-1]
    up = np.pad(classes[codes], ((0, 0), (1, 0), (0, 0)), constant_values=border)[:, :-1]
    share = np.bincount(codes.ravel(), minlength=size) + 1.0
    prior = PRIOR_WEIGHT * share / share.sum()
    counts = [
        np.bincount((near.astype(np.int64) * size + codes).ravel(), minlength=(border + 1) * size)
        for near in (left, up)
    ]
    tables = [each.reshape(border + 1, size) + prior for each in counts]
    found = [Neighbours.from_counts(*tables, classes, power) for power in POWERS]
    some = codes[:: max(1, len(codes) // SUMMED_IMAGES)]
    return min(found, key=lambda each: each.code_length(some).sum())


def means(latents: Tensor, fields: Tensor, centres: Tensor) -> Tensor:
    """Return each code's mean of latents (N, h * w, M); its old centre if no latent has it."""
    codes = fields.flatten()
    count = torch.bincount(codes, minlength=len(centres))[:, None]
    total = torch.zeros_like(centres).index_add_(0, codes, latents.flatten(0, 1))
    return torch.where(count > 0, total / count.clamp_min(1), centres)


def restoring(centres: Tensor, fields: Tensor, latents: Tensor) -> Tensor:
    """Fit filters (9, M, M) from the centres around a position to its latents by ridge regression.

    What is fitted is the difference to no filter at all, with a ridge worth as many tokens as a
    filter has inputs: nothing where tokens are many, and what keeps filters of a few images from
    undoing others.
    """
    size = centres.shape[1]
    normal = torch.zeros(9 * size, 9 * size, dtype=torch.float64, device=centres.device)
    target = torch.zeros(9 * size, size, dtype=torch.float64, device=centres.device)
    pairs = zip(fields.split(SUMMED_IMAGES), latents.split(SUMMED_IMAGES), strict=True)
    for codes, aim in pairs:
        near = around(centres[codes]).flatten(0, 1)  # (n * h * w, 9 M)
        normal += (near.T @ near).double()
        target += (near.T @ (aim.flatten(0, 1) - centres[codes].flatten(0, 2))).double()
    ridge = len(normal) / fields.numel()
    normal.diagonal().add_(ridge * normal.diagonal().mean() + 1e-12)
    filters = torch.linalg.solve(normal, target).float().unflatten(0, (9, size))
    filters[4] += torch.eye(size, device=filters.device)  # the position itself
    return filters


def around(grid: Tensor) -> Tensor:
    """Gather 3 x 3 vectors around positions of (n, h, w, M), edges repeated: (n, h * w, 9 * M)."""
    height, width = grid.shape[1:3]
    padded = torch.nn.functional.pad(grid.movedim(3, 1), (1, 1, 1, 1), mode="replicate")
    near = [padded[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return torch.cat(near, dim=1).flatten(2).transpose(1, 2)

"""Symbols and codecs depend on no number of threads."""

import os
import subprocess
import sys

# Run by an interpreter of its own, whose threads are set before anything is loaded.
CODE = """
from hashlib import sha256
import torch
from nec.bottlenecks import Pooled
from nec.bottlenecks.transform import Transform
from nec.bottlenecks.vq import VQ, clustered

generator = torch.Generator().manual_seed(0)
mix = torch.randn(32, 32, generator=generator) * torch.logspace(-2, 0, 32)
y = torch.einsum("nchw,cd->ndhw", torch.randn(128, 32, 6, 6, generator=generator), mix)
y += y.mean(dim=(2, 3), keepdim=True)
made = Pooled(32, (6, 6), components=16), Transform(32, (6, 6), step=0.3), VQ(32, (6, 6), codes=32)
for bottleneck in made:
    bottleneck.fit(y[:112])
    symbols = bottleneck.eval().quantize(y[112:]).numpy()
    print(sha256(symbols.tobytes()).hexdigest(), bottleneck.export().sha256)
points = y.permute(0, 2, 3, 1).reshape(-1, 32).numpy()
print(sha256(clustered(points, 32, 5).cluster_centers_.tobytes()).hexdigest())
"""


def found(threads: int) -> list[str]:
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(limits, str(threads))
    shown = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env=environment
    )
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.splitlines()


def test_symbols_and_codecs_are_the_same_on_one_thread_and_on_two() -> None:
    one, two = found(1), found(2)
    assert len(one) == 4
    assert one == two

from pathlib import Path

import nec.conf
import pytest
from omegaconf import OmegaConf

from nec import config as configs
from nec.adapters import Full, LastBlocks, NoAdapter

CONF = Path(next(iter(nec.conf.__path__)))


def trainable(encoder):
    return sum(p.numel() for p in encoder.parameters() if p.requires_grad)


@pytest.mark.parametrize("ratio", [0.21, 0.32, 0.35, 0.5, 0.9, 1.0])
def test_the_share_is_never_above_the_ratio_and_the_next_half_block_would_be(encoder, ratio):
    opened = LastBlocks(ratio).open(encoder)
    counts = [sum(p.numel() for p in stage) for stage in encoder.stage_parameters()]
    assert opened.total == sum(p.numel() for p in encoder.parameters()) == sum(counts)
    assert opened.trainable == trainable(encoder)
    assert opened.share <= ratio
    if encoder.split > 1:
        assert opened.trainable + counts[encoder.split - 1] > ratio * opened.total


def test_what_learns_is_a_strict_suffix(encoder):
    LastBlocks(0.35).open(encoder)
    opened = [all(p.requires_grad for p in stage) for stage in encoder.stage_parameters()]
    frozen = [not any(p.requires_grad for p in stage) for stage in encoder.stage_parameters()]
    assert frozen == [i < encoder.split for i in range(encoder.stages)]
    assert opened == [i >= encoder.split for i in range(encoder.stages)]


def test_a_ratio_that_fits_nothing_names_the_smallest_that_fits(encoder):
    with pytest.raises(ValueError, match=r"set adapter.ratio=(\d\.\d+)") as error:
        LastBlocks(0.01).open(encoder)
    smallest = float(str(error.value).split("adapter.ratio=")[1].split()[0])
    assert 0 < LastBlocks(smallest).open(encoder).share <= smallest


@pytest.mark.parametrize("ratio", [0, -1, 1.5])
def test_a_ratio_is_a_share(ratio):
    with pytest.raises(ValueError, match=f"ratio is {ratio}"):
        LastBlocks(ratio)


def test_none_and_full_open_nothing_and_everything(encoder):
    assert NoAdapter().open(encoder).share == 0 == trainable(encoder)
    assert Full().open(encoder).share == 1
    assert encoder.split == 0


def test_the_ratios_of_conf_open_parts_of_the_encoders_they_are_meant_for():
    swept = list(OmegaConf.load(CONF / "sweep" / "adapter_ratio.yaml").axes["adapter.ratio"])
    chosen = configs.build(configs.compose(["adapter=last_blocks"]).config.adapter)
    for name in ("scenes_vit", "vit_small_dinov2"):
        config = configs.compose([f"encoder={name}", "encoder.checkpoint=random"]).config
        encoder = configs.build(config.encoder)
        assert chosen.open(encoder).share > 0
        shares = [LastBlocks(ratio).open(encoder).share for ratio in swept]
        assert shares[0] > 0 and shares == sorted(set(shares)), name  # each opens more

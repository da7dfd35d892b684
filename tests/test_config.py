import inspect
from pathlib import Path

import nec.conf
import pytest
from omegaconf import OmegaConf

from nec import config as configs
from nec.config import UsageError, compose

CONF = Path(next(iter(nec.conf.__path__)))
OVERLAYS = sorted(p.stem for p in (CONF / "experiment").glob("*.yaml"))
CHOICES = sorted(
    (p.parent.name, p.stem) for p in CONF.glob("*/*.yaml") if p.parent.name != "experiment"
)


def overlay(folder, text):
    """Overrides that choose an overlay of one's own."""
    (folder / "experiment").mkdir()
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\n" + text)
    return [f"hydra.searchpath=[file://{folder}]", "experiment=mine"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_composes_and_adds_no_unknown_key(name):
    assert set(compose([f"experiment={name}"]).config) == set(compose([]).config)


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_begins_with_its_question(name):
    lines = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert "?" in lines[1]
    assert any(line.startswith("# nec run") for line in lines[:6])


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes_and_binds_to_its_constructor(group, name):
    composed = compose([f"{group}={name}"])
    assert composed.choices[group] == name
    for _, node in configs.targets(composed.config):
        allowed = configs.arguments_of(node["_target_"])
        assert {k for k in node if not k.startswith("_")} <= set(allowed)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_a_file_repeats_no_default(group, name):
    for _, node in configs.targets(OmegaConf.load(CONF / group / f"{name}.yaml")):
        defaults = configs.arguments_of(node["_target_"])
        chosen = OmegaConf.to_container(node, resolve=False).items()
        repeated = {k: v for k, v in chosen if k in defaults and v == defaults[k] and v is not None}
        assert not repeated


def test_an_option_that_no_file_mentions_can_be_typed():
    config = compose(["bottleneck=pooled", "bottleneck.components=5"]).config
    assert config.bottleneck.components == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lambda=3", "unknown key 'lambda'; did you mean 'lmbda'"),
        ("bottleneck=uniformm", "bottleneck has no 'uniformm'; did you mean 'uniform'"),
        ("experiment=demmo", "experiment has no 'demmo'; did you mean 'demo'"),
        ("bottleneck.latent=3", "has no option 'latent' .* did you mean 'latents'"),
        ("encoder.architectur.depth=3", "did you mean 'architecture'"),
        ("lmbda", "write key=value"),
        ("lmbda=[1", "lmbda"),
    ],
)
def test_a_misspelt_word_of_the_command_line_is_a_usage_error_with_its_neighbour(override, message):
    with pytest.raises(UsageError, match=message):
        compose([override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lamda: 3\n", "unknown key 'lamda' at the top level.* did you mean 'lmbda'"),
        ("bottleneck:\n  latent: 3\n", "no option 'latent' .* did you mean 'latents'"),
    ],
)
def test_a_misspelt_key_of_an_overlay_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        compose(overlay(tmp_path, text))
    assert not isinstance(error.value, UsageError)


def test_an_overlay_of_ones_own_is_found(tmp_path):
    assert compose(overlay(tmp_path, "lmbda: 3\n")).config.lmbda == 3


def test_only_trusted_packages_are_built():
    node = OmegaConf.create({"_target_": "os.system", "command": "true"})
    with pytest.raises(ValueError, match="not in a trusted package"):
        configs.build(node)
    nested = OmegaConf.create(
        {"_target_": "nec.adapters.NoAdapter", "x": {"_target_": "os.getcwd"}}
    )
    with pytest.raises(ValueError, match="not in a trusted package"):
        configs.build(nested)


def identity(*overrides):
    return configs.identity(compose(overrides).config)


def test_a_runs_identity_is_what_it_measures_not_where():
    base = identity("lmbda=1")
    assert base == identity("lmbda=1.0", "data.workers=2", "store=elsewhere", "trainer.devices=2")
    assert base == identity("lmbda=1", "bottleneck.latents=128")
    others = [("lmbda=2",), ("lmbda=1", "seed=1"), ("lmbda=1", "bottleneck.latents=64")]
    others += [("lmbda=1", "trainer.max_epochs=3"), ("lmbda=1", "task=attention")]
    assert len({base, *(identity(*other) for other in others)}) == 6


def test_a_sweep_override_is_its_values():
    assert configs.sweep_values("lmbda=1,3") == ["lmbda=1", "lmbda=3"]
    assert configs.sweep_values("lmbda=1") == ["lmbda=1"]


def test_defaults_come_from_the_constructor():
    from nec.bottlenecks.factorized import Factorized

    node = compose([]).config.bottleneck
    default = inspect.signature(Factorized.__init__).parameters["latents"].default
    assert configs.effective(node)["latents"] == default

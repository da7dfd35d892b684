"""A run's config as the Lightning CLI reads it: the same classes and options, in its words."""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from nec import config as configs
from nec.jobs import devices
from nec.jobs.evaluate import Probe
from nec.tasks import SemanticSegmentation

BEST = "lightning.pytorch.callbacks.ModelCheckpoint"
EMBEDDINGS = "nec.data.embeddings.EmbeddingDataModule"


def write(folder: Path, config: DictConfig, store: Path) -> None:
    """Write the configs with which `nec fit -c` trains as this run does.

    lightning.yaml is the adaptation, or where nothing is adapted the first task's head of seed 0;
    lightning-TASK.yaml are the other heads that train by gradient, at their first weight decay.

    Args:
        folder: Folder to write to.
        config: Config of the run.
        store: Where the embeddings will be, unless the config says so.
    """
    parts = {
        str(name): _head(config, str(name), config.store or store)
        for name, node in config.task.items()
        if issubclass(configs.class_of(node), Probe)
    }
    if configs.learns(config):
        parts = {"": adaptation(config), **parts}
    for index, (name, part) in enumerate(parts.items()):
        path = folder / (f"lightning-{name}.yaml" if index else "lightning.yaml")
        path.write_text(yaml.safe_dump(part, sort_keys=False, allow_unicode=True))


def adaptation(config: DictConfig) -> dict[str, Any]:
    """Return the config of `RateDistortionAdaptation` in this run."""
    strategy = _object(config.strategy) if config.strategy else "auto"
    model = _object(config.adaptation)
    groups = ("encoder", "adapter", "bottleneck", "distortion")
    model["init_args"] |= {group: _object(config[group]) for group in groups}
    model["init_args"] |= {"lmbda": config.lmbda, "seed": config.seed}
    return {
        "seed_everything": config.seed,
        "trainer": {**_object(config.trainer)["init_args"], "strategy": strategy},
        "model": model,
        "data": _object(config.data),
    }


def _head(config: DictConfig, name: str, store: str | Path) -> dict[str, Any]:
    """Return the config of a task's first head in this run."""
    probe = configs.build(config.task[name])
    task = probe.task
    best = {"class_path": BEST, "init_args": {**probe.chosen, "filename": "best"}}
    options = {"lr": probe.lr, "weight_decay": probe.weight_decays[0], "seed": 0}
    model = {"head": _object(config.task[name].head), **options}
    data = {"store": str(store), "batch_size": probe.batch_size, "seed": 0}
    if task is SemanticSegmentation:
        data["images"] = _object(config.data)
    trainer = devices.options(devices.first(config.trainer))
    return {
        "seed_everything": 0,
        "trainer": {**trainer, **probe.trainer_options(), "callbacks": [best]},
        "model": {"class_path": f"{task.__module__}.{task.__name__}", "init_args": model},
        "data": {"class_path": EMBEDDINGS, "init_args": data},
    }


def _object(node: DictConfig) -> dict[str, Any]:
    """Translate a node that names a class, and the nodes below it."""
    options = {str(key): value for key, value in node.items() if not str(key).startswith("_")}
    return {
        "class_path": str(node["_target_"]),
        "init_args": {key: _value(value) for key, value in options.items()},
    }


def _value(value: Any) -> Any:
    if isinstance(value, DictConfig) and "_target_" in value:
        return _object(value)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value

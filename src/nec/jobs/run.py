"""`nec run`: adapt, fit, encode to a store, train heads on what was decoded, record."""

import logging
import os
import shutil
import sys
import time
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from nec import config as configs
from nec.jobs import ranks
from nec.jobs.arguments import options_text, parser
from nec.jobs.lock import locked
from nec.jobs.names import describe, is_finished, run_folder, work_folder

# Where a training saves its state, in the folder of its run.
CHECKPOINTS = "checkpoints"
# What a stopped run goes on from, and the curves that led there.
KEPT = (CHECKPOINTS, "lightning_logs", "tensorboard")
# Val images that a logger shows beside their decoded tokens.
PICTURED = 8


def main(argv: list[str]) -> int:
    """Parse, then run one job here or every job of a sweep in a child process each."""
    ranks.follow_parent()
    args = parser().parse_intermixed_args(argv[1:])
    _quieten()
    if args.multirun:
        from nec.jobs import sweep

        return sweep.show(args.overrides) if args.cfg else sweep.sweep(args.overrides)
    composed = configs.compose(args.overrides)
    if args.cfg or args.options:
        config = composed.config
        print(options_text(config) if args.options else OmegaConf.to_yaml(config), end="")
        return 0
    folder = run_folder(composed)
    if not ranks.leads():
        if not is_finished(folder):
            join(composed, folder)
        return 0
    if is_finished(folder):
        print(f"{folder} is finished; remove it to run it again")
        return 0
    run(composed, folder)
    from nec.jobs.report import preview, print_report

    print_report(preview(folder))
    return 0


def run(composed: configs.Composed, folder: Path) -> None:
    """Do one run in a hidden folder beside `folder`, which it becomes when it is complete.

    Raises:
        RuntimeError: Another process is at work on it.
    """
    _check_trainer(composed.config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock"), str(folder)):
        if is_finished(folder):  # by another process, since we looked
            return
        _check_free(folder, composed.config.store)
        _record(composed, folder)


def join(composed: configs.Composed, folder: Path) -> None:
    """Take part in a run's adaptation as a rank above 0; what comes after it is done once."""
    from lightning.pytorch.loggers import CSVLogger

    part = work_folder(folder)
    parts = _build(composed, folder.parent / "activations")
    if parts.task is not None:
        _adapt(composed.config, parts, CSVLogger(part), part)


def _check_free(folder: Path, store: str | None) -> None:
    """Refuse to write over what is not a run that was killed."""
    if folder.exists():
        raise FileExistsError(
            f"{folder} exists but holds no finished run (no run.json); remove it and run again"
        )
    if store and os.path.lexists(store):
        raise FileExistsError(
            f"{store} exists; a store is never overwritten, remove it or name another with "
            "store=PATH"
        )


def _record(composed: configs.Composed, folder: Path) -> None:
    """Do the run; what is left of one that was stopped is where its training goes on from.

    If it fails nothing of it stays, but for a checkpoint and the curves that led there.
    """
    from nec.jobs import tracking, translate
    from nec.jobs.record import finish, provenance

    part = work_folder(folder)
    _clear(part)
    part.mkdir(exist_ok=True)
    about = describe(composed)
    try:
        OmegaConf.save(composed.config, part / "config.yaml")
        translate.write(part, composed.config, folder / "store.zarr")
        start = time.monotonic()
        with tracking.tracked(composed.config, about, part, folder) as logger:
            record = _execute(composed, part, folder.parent / "activations", logger)
            record["seconds"] = round(time.monotonic() - start, 1)
            finish(part, {**about, **record, **provenance()})
            part.rename(folder)
    except BaseException:
        _clear(part)
        raise


def _clear(part: Path) -> None:
    """Remove what a stopped run left, but for what it goes on from, if it left that."""
    kept = KEPT if any(part.glob(f"{CHECKPOINTS}/*.ckpt")) else ()
    for path in part.glob("*"):
        if path.name in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if part.is_dir() and not kept:
        part.rmdir()


class Parts(NamedTuple):
    """What a run is made of."""

    encoder: Any
    bottleneck: Any
    task: Any  # that adapts both, where something learns, or None
    data: Any
    cached: Any  # what the frozen prefix makes of the data
    probes: dict[str, Any]
    opened: Any  # what the adapter did
    device: Any


def _execute(composed: configs.Composed, folder: Path, cache: Path, logger: Any) -> dict[str, Any]:
    """The run itself, in the order of its sentence. Imports here: `nec run --help` needs none."""
    from nec.jobs import record
    from nec.jobs.encode import encode
    from nec.jobs.tracking import Display
    from nec.store import EmbeddingStore

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # importing it set INFO
    config = composed.config
    parts = _build(composed, cache)
    for probe in parts.probes.values():
        probe.check(parts.bottleneck.shape, len(parts.data.classes))
    history = _fit(config, parts) if parts.task is None else _adapt(config, parts, logger, folder)
    parts.cached.prepare_data()
    path = Path(config.store) if config.store else folder / "store.zarr"
    attrs = record.store_attributes(parts.data, parts.encoder)
    summary = encode(parts.cached, parts.encoder, parts.bottleneck, path, attrs, parts.device)
    with ExitStack() as failed:
        failed.callback(shutil.rmtree, path, ignore_errors=True)
        record.write_codec(folder / "codec", parts.encoder, parts.bottleneck)
        store = EmbeddingStore.open(path)
        if isinstance(logger, Display):
            logger.show_pictures(_pictures(parts.data, store))
        accelerator = config.trainer.accelerator
        predictions = {name: probe(path, name, accelerator) for name, probe in parts.probes.items()}
        about = describe(composed)
        share = parts.opened.share
        found = record.measure(folder, about, store, summary, predictions, history, share)
        failed.pop_all()
    return found


def _build(composed: configs.Composed, cache: Path) -> Parts:
    """Build everything, and open what may learn."""
    import torch
    from lightning.pytorch import seed_everything

    from nec.data.activations import ActivationDataModule

    config = composed.config
    device = torch.device("cuda" if config.trainer.accelerator == "gpu" else "cpu")
    seed_everything(config.seed, workers=True, verbose=False)
    encoder = configs.build(config.encoder)
    adapter = configs.build(config.adapter)
    probes = {name: configs.build(probe) for name, probe in config.task.items()}
    if configs.class_of(config.bottleneck).learned:
        task = configs.build(
            config.adaptation,
            encoder=encoder,
            adapter=adapter,
            bottleneck=partial(configs.build, config.bottleneck),
            distortion=partial(configs.build, config.distortion),
            lmbda=config.lmbda,
            seed=config.seed,
        )
        bottleneck, opened = task.bottleneck, task.opened
    else:
        task, opened = None, adapter.open(encoder)
        bottleneck = configs.build(config.bottleneck, encoder.channels, encoder.grid)
        _check_frozen(composed, opened.trainable)
    data = configs.build(config.data, transform=encoder.preprocess)
    cached = ActivationDataModule.of(encoder, data, cache, device)
    return Parts(encoder, bottleneck, task, data, cached, probes, opened, device)


def _fit(config: DictConfig, parts: Parts) -> dict[str, float]:
    """Fit a bottleneck that is not learned to train embeddings."""
    parts.cached.prepare_data()
    sample = parts.cached.sample(config.seed)
    parts.bottleneck.fit(parts.encoder.embed_all(sample, parts.device))
    return {}


def _adapt(config: DictConfig, parts: Parts, logger: Any, folder: Path) -> dict[str, float]:
    """Train encoder and bottleneck, from where a stopped run left off; what that gave on val."""
    from nec.jobs.adapt import adapt, last_checkpoint, trainer_options

    checkpoints = folder / CHECKPOINTS
    trainer = configs.build(
        config.trainer,
        logger=logger,
        strategy=configs.build(config.strategy) if config.strategy else "auto",
        enable_model_summary=False,
        **trainer_options(checkpoints),
    )
    data = parts.data if parts.task.distortion.needs_images else parts.cached
    left = last_checkpoint(checkpoints)
    if left and ranks.leads():
        print(f"goes on from {left}", flush=True)
    return adapt(parts.task, trainer, data, left)


def _quieten() -> None:
    """Keep what libraries say of their own insides out of the terminal.

    Before a config is checked, since that imports what the config names.
    """
    # Advice on worker processes, and that a frozen encoder is in eval mode: both on purpose.
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("hydra").setLevel(logging.CRITICAL)  # it logs errors that it also raises


def _check_trainer(config: DictConfig) -> None:
    """Refuse what no job can run on here, before any work."""
    from torch import cuda

    trainer = config.trainer
    if trainer.accelerator != "gpu":
        return
    if not cuda.is_available():
        raise ValueError("trainer=gpu needs a CUDA device and torch sees none; set trainer=cpu")
    if isinstance(trainer.devices, int) and trainer.devices > cuda.device_count():
        raise ValueError(
            f"trainer.devices is {trainer.devices}, torch sees {cuda.device_count()}; set "
            f"trainer.devices={cuda.device_count()}"
        )
    if "bf16" in str(trainer.get("precision")) and not cuda.is_bf16_supported():
        raise ValueError(
            f"trainer.precision is {trainer.precision}, which {cuda.get_device_name()} does not "
            "have; set trainer.precision=32-true"
        )


def _check_frozen(composed: configs.Composed, trainable: int) -> None:
    """An adapter needs a rate to learn from."""
    if trainable:
        raise ValueError(
            f"bottleneck {composed.choices['bottleneck']!r} has no rate to learn from, so adapter "
            f"{composed.choices['adapter']!r} has nothing to do; set adapter=none"
        )


def _pictures(data: Any, store: Any) -> dict[str, Any]:
    """Val images from all over the split beside their decoded tokens, by id."""
    import numpy as np

    from nec.jobs.pictures import side_by_side

    if store.codec.shape[1:] == (1, 1):  # pooled: no grid to look at
        return {}
    rows = np.flatnonzero(store.splits == "val")
    rows = rows[np.linspace(0, len(rows) - 1, min(PICTURED, len(rows))).astype(int)]
    images = data.datasets["val"].images
    places = {name: index for index, name in enumerate(images.ids)}
    names = [str(name) for name in store.ids[rows]]
    native = [images.read(places[name]).numpy() for name in names]
    return dict(zip(names, side_by_side(native, store.read(rows)), strict=True))


if __name__ == "__main__":
    from nec.cli import main as cli

    sys.exit(cli(["run", *sys.argv[1:]]))

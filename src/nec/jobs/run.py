"""`nec run`: adapt, fit, encode to a store, train heads on what was decoded, record."""

import argparse
import logging
import os
import shutil
import sys
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from nec import config as configs
from nec.jobs.lock import locked
from nec.jobs.names import describe, is_finished, run_folder

HELP = """\
One run: adapt (if anything learns), fit on train, encode every split to one store, train heads on
what was decoded, record. With -m: every job of a sweep, then the table and the figure.

  nec run -m experiment=demo                     the demo: a λ sweep and its baselines, 5 minutes
  nec run bottleneck=uniform bottleneck.bits=3   one training-free run
  nec run lmbda=3 adapter=last_blocks adapter.ratio=0.2
  nec run -m sweep=lmbda seed=0,1,2              a λ sweep over three seeds
  nec run -m sweep=lmbda logger=wandb            shown in W&B: a group, its table and figure
  nec run -m experiment=ucmerced_lmbda data.root=DATA encoder.checkpoint=FILE
"""
# Val images that a logger shows beside their decoded tokens.
PICTURED = 8
EPILOG = """\
An override is key=value. A group's value is a file in conf/<group>/; an option of it is an
argument of its constructor, written group.option=value, whether a file mentions it or not. Root
keys: name, seed, lmbda, store. A sweep is key=value,value,...; a stopped sweep is completed by the
same command. Overlays of your own: hydra.searchpath=[file:///ABSOLUTE/FOLDER] experiment=NAME,
where FOLDER/experiment/NAME.yaml begins like those in conf/experiment/.

groups:
"""


def main(argv: list[str]) -> int:
    """Parse, then run one job here or every job of a sweep in a child process each."""
    args = _parser().parse_intermixed_args(argv)
    _quieten()
    if args.multirun:
        from nec.jobs import sweep

        return sweep.show(args.overrides) if args.cfg else sweep.sweep(args.overrides)
    composed = configs.compose(args.overrides)
    if args.cfg:
        print(OmegaConf.to_yaml(composed.config), end="")
        return 0
    folder = run_folder(composed)
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
    """Do the run, and remove all of it if it fails; what a killed one left goes first."""
    from nec.jobs import tracking
    from nec.jobs.record import finish, provenance

    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    about = describe(composed)
    try:
        OmegaConf.save(composed.config, part / "config.yaml")
        start = time.monotonic()
        with tracking.tracked(composed.config, about, part, folder) as logger:
            record = _execute(composed, part, folder.parent / "activations", logger)
            record["seconds"] = round(time.monotonic() - start, 1)
            finish(part, {**about, **record, **provenance()})
            part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


class Parts(NamedTuple):
    """What a run is made of."""

    encoder: Any
    bottleneck: Any
    data: Any
    cached: Any  # what the frozen prefix makes of the data
    probes: dict[str, Any]
    pixels: float  # of an image, native or as the encoder gets it, whichever has fewer
    share: float  # of the parameters that may learn
    device: Any


def _execute(composed: configs.Composed, folder: Path, cache: Path, logger: Any) -> dict[str, Any]:
    """The run itself, in the order of its sentence. Imports here: `nec run --help` needs none."""
    from nec.jobs import adapt as stages
    from nec.jobs import record
    from nec.jobs.tracking import Display
    from nec.store import EmbeddingStore

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # importing it set INFO
    config = composed.config
    parts = _build(composed, cache)
    history = _learn(config, parts, logger)
    path = Path(config.store) if config.store else folder / "store.zarr"
    attrs = record.store_attributes(parts.data, parts.encoder, parts.pixels)
    summary = stages.encode(
        parts.cached, parts.encoder, parts.bottleneck, path, attrs, parts.device
    )
    with ExitStack() as failed:
        failed.callback(shutil.rmtree, path, ignore_errors=True)
        record.write_codec(folder / "codec", parts.encoder, parts.bottleneck)
        store = EmbeddingStore.open(path)
        if isinstance(logger, Display):
            logger.show_pictures(_pictures(parts.data, store))
        predictions = {name: probe(store, name) for name, probe in parts.probes.items()}
        about = describe(composed)
        found = record.measure(folder, about, store, summary, predictions, history, parts.share)
        failed.pop_all()
    return found


def _build(composed: configs.Composed, cache: Path) -> Parts:
    """Build everything, open what may learn, and run the frozen prefix."""
    import torch
    from lightning.pytorch import seed_everything

    from nec.data.activations import cached_activations

    config = composed.config
    device = torch.device("cuda" if config.trainer.accelerator == "gpu" else "cpu")
    seed_everything(config.seed, workers=True, verbose=False)
    encoder = configs.build(config.encoder).to(device)
    bottleneck = configs.build(config.bottleneck, channels=encoder.channels, grid=encoder.grid)
    probes = {name: configs.build(probe) for name, probe in config.task.items()}
    opened = configs.build(config.adapter).open(encoder)
    _check_learning(composed, bottleneck.learned, opened.trainable)
    data = configs.build(config.data, transform=encoder.preprocess)
    key = f"{encoder.weights_sha256()} {encoder.pixels_sha256()} {encoder.split}"
    cached = cached_activations(data, encoder.prefix, cache, key, device)
    pixels = min(data.native_pixels, encoder.image_size**2)
    return Parts(encoder, bottleneck, data, cached, probes, pixels, opened.share, device)


def _learn(config: DictConfig, parts: Parts, logger: Any) -> dict[str, float]:
    """Fit the bottleneck, and train it where it learns; the last validation's metrics."""
    from nec.jobs import adapt as stages

    encoder, bottleneck = parts.encoder, parts.bottleneck
    y = stages.fitting_sample(parts.cached, encoder, config.seed, parts.device)
    if bottleneck.learned:
        distortion = build_distortion(config, encoder)
        task = configs.build(
            config.adaptation,
            encoder=encoder,
            bottleneck=bottleneck,
            distortion=distortion,
            lmbda=config.lmbda,
            pixels=parts.pixels,
        )
        task.start(y)
    else:
        bottleneck.fit(y)
    del y
    for probe in parts.probes.values():
        probe.check(bottleneck.export().shape, len(parts.data.classes))
    if not bottleneck.learned:
        return {}
    images = parts.data if distortion.needs_images else parts.cached
    return stages.adapt(task, build_trainer(config, logger), images)


def _quieten() -> None:
    """Keep what libraries say of their own insides out of the terminal.

    Before a config is checked, since that imports what the config names.
    """
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")  # compressai, torchgeo
    # Advice on worker processes, and that a frozen encoder is in eval mode: both on purpose.
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("hydra").setLevel(logging.CRITICAL)  # it logs errors that it also raises


def _check_trainer(config: DictConfig) -> None:
    """Refuse what no job can run on here, before any work."""
    from torch import cuda

    if config.trainer.accelerator == "gpu" and not cuda.is_available():
        raise ValueError("trainer=gpu needs a CUDA device and torch sees none; set trainer=cpu")
    if config.trainer.devices != 1:
        raise ValueError(
            f"trainer.devices is {config.trainer.devices}; a run takes one device, set "
            "trainer.devices=1"
        )


def _check_learning(composed: configs.Composed, learned: bool, trainable: int) -> None:
    """A learned bottleneck needs a lambda; an adapter needs a rate to learn from."""
    from nec.tasks.rate_distortion import check_lmbda

    if learned:
        check_lmbda(composed.config.lmbda)
    elif trainable:
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


def build_trainer(config: DictConfig, logger: Any) -> Any:
    """A trainer that shows a logger losses, learning rates and images a second."""
    from lightning.pytorch.callbacks import LearningRateMonitor, ThroughputMonitor

    return configs.build(
        config.trainer,
        logger=logger,
        callbacks=[
            LearningRateMonitor("step"),
            ThroughputMonitor(lambda batch: len(batch["label"]), window_size=10),
        ],
        enable_checkpointing=False,
        enable_model_summary=False,
    )


def build_distortion(config: DictConfig, encoder: Any) -> Any:
    """A distortion knows the encoder's shape; only one that predicts pixels needs its patches."""
    arguments = {
        "channels": encoder.channels,
        "grid": encoder.grid,
        "patch_values": encoder.patch_size**2 * encoder.bands,
    }
    known = configs.arguments_of(config.distortion["_target_"])
    return configs.build(config.distortion, **{k: v for k, v in arguments.items() if k in known})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nec run",
        description=HELP,
        epilog=EPILOG + groups_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("-m", "--multirun", action="store_true", help="run every job of a sweep")
    parser.add_argument(
        "--cfg",
        action="store_true",
        help="run nothing; print the resolved config, with -m the overrides of each job",
    )
    return parser


def groups_text() -> str:
    """One line per config group with the files one may choose."""
    import nec.conf

    root = Path(next(iter(nec.conf.__path__)))
    folders = sorted(p for p in root.iterdir() if p.is_dir() and any(p.glob("*.yaml")))
    return "\n".join(
        f"  {folder.name:<11} {'  '.join(sorted(f.stem for f in folder.glob('*.yaml')))}"
        for folder in folders
    )


if __name__ == "__main__":
    from nec.cli import main as cli

    sys.exit(cli(["run", *sys.argv[1:]]))

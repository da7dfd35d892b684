"""`nec run`: adapt, fit, encode to a store, train heads on what was decoded, record."""

import logging
import os
import shutil
import sys
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from nec import config as configs
from nec.jobs import ranks
from nec.jobs.arguments import options_text, parser
from nec.jobs.names import (
    describe,
    is_begun,
    is_finished,
    lock_file,
    run_folder,
    store_of,
    work_folder,
)
from nec.store.lock import locked

# What a stopped run goes on from: its checkpoint, the curves that led there, the commits, and its
# config, which says of which data it is.
KEPT = ("checkpoints", "lightning_logs", "tensorboard", "commits.txt", "config.yaml")
# Val images that a logger shows beside their decoded tokens.
PICTURED = 8


def main(argv: list[str]) -> int:
    """Parse, then run one job here or every job of a sweep in a child process each."""
    ranks.follow_parent()
    args = parser().parse_intermixed_args(argv[1:])
    _quieten()
    if args.multirun:
        if not ranks.leads():
            raise configs.UsageError("a sweep starts the ranks of its jobs; run it as one process")
        if args.options:
            raise configs.UsageError("--options is of one run, without -m; the jobs are -m --cfg")
        from nec.jobs import sweep

        return sweep.show(args.overrides) if args.cfg else sweep.sweep(args.overrides)
    composed = configs.compose(args.overrides)
    if args.cfg or args.options:
        config = composed.config
        print(options_text(config) if args.options else OmegaConf.to_yaml(config), end="")
        return 0
    folder = run_folder(composed)
    if not ranks.leads():
        if not (is_finished(work_folder(folder)) or is_finished(folder)):
            join(composed, folder)
        return 0
    if is_finished(folder):
        _check_store(folder, composed.config.store)
        print(f"{folder} is finished; remove it to run it again")
        return 0
    run(composed, folder)
    from nec.jobs.report import preview, print_report

    print_report(preview(run_folder(composed)))
    return 0


def _check_store(folder: Path, store: str | None) -> None:
    """Refuse a place for the store of a finished run where none is."""
    if store and not os.path.lexists(store):
        kept = store_of(folder)
        way_out = f"copy {kept} there, or remove" if kept.exists() else "remove"
        raise ValueError(
            f"store={store} is not there, and {folder}, the same run, is finished; {way_out} "
            "that folder to run again"
        )


def run(composed: configs.Composed, folder: Path) -> None:
    """Do one run in a hidden folder beside `folder`, which it becomes when it is complete.

    Raises:
        RuntimeError: Another process is at work on it.
    """
    _check_trainer(composed.config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock_file(folder), str(folder)):
        if is_finished(run_folder(composed)):  # by another process, since we looked
            return
        if is_finished(work_folder(folder)):  # and was killed before it got its name
            _check_store(work_folder(folder), composed.config.store)
            _conclude(folder)
            return
        _check_free(folder, composed.config.store)
        _record(composed, folder)


def join(composed: configs.Composed, folder: Path) -> None:
    """Take part in a run's adaptation as a rank above 0; what comes after it is done once."""
    from lightning.pytorch.loggers import CSVLogger

    from nec.jobs.parts import build, learn

    _check_trainer(composed.config)
    _check_free(folder, composed.config.store)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if configs.learns(composed.config):
        part = work_folder(folder)
        parts = build(composed, folder.parent / "activations")
        parts.check_heads()  # as rank 0 does, which would else end and be waited for
        learn(composed.config, parts, [CSVLogger(part)], part)


def _check_free(folder: Path, store: str | None) -> None:
    """Refuse to write over what is not a run that was killed."""
    if folder.exists():
        raise FileExistsError(
            f"{folder} exists but holds no finished run (no run.json); remove it and run again"
        )
    if store and os.path.lexists(store):
        from nec.jobs.stores import is_unfinished

        if not is_unfinished(Path(store)):
            raise FileExistsError(
                f"{store} exists; a store is never overwritten, remove it or name another with "
                "store=PATH"
            )


def _record(composed: configs.Composed, folder: Path) -> None:
    """Do the run; training goes on from what is left of one that was stopped.

    If it fails, nothing of it stays except a checkpoint and the curves that led there.
    """
    from nec.jobs import tracking, translate
    from nec.jobs.record import begin, finish, provenance

    part = work_folder(folder)
    _clear(part)
    part.mkdir(exist_ok=True)
    about = describe(composed)
    try:
        OmegaConf.save(composed.config, part / "config.part")
        os.replace(part / "config.part", part / "config.yaml")  # whole, whenever it is read
        if _keeps_store(composed.config):
            translate.write(part, composed.config, folder / "store.zarr")
        commits = begin(part)
        start = time.monotonic()
        with tracking.tracked(composed.config, about, part, folder) as loggers:
            record = _execute(composed, part, folder.parent / "activations", loggers)
            record["seconds"] = round(time.monotonic() - start, 1)
            finish(part, {**about, **record, **provenance(), "commits": commits})
            _conclude(folder)
    except BaseException:
        if not is_finished(part):
            _clear(part)
        raise


def _conclude(folder: Path) -> None:
    """Complete the store of a run that is recorded, then give the run its name.

    A run that is killed before it is recorded so finds its store unfinished, and goes on with it.
    """
    from nec.jobs.stores import complete

    part = work_folder(folder)
    complete(store_of(part))
    part.rename(folder)


def _clear(part: Path) -> None:
    """Remove what a stopped run left, except what it goes on from, if it left that."""
    kept = KEPT if is_begun(part) else ()
    for path in part.glob("*"):
        if path.name in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if part.is_dir() and not kept:
        part.rmdir()


def _execute(
    composed: configs.Composed, folder: Path, cache: Path, loggers: list[Any]
) -> dict[str, Any]:
    """Do the run in the order of the docstring above. Imports here: `nec run --help` needs none."""
    from nec.jobs import notices, record
    from nec.jobs.parts import build, learn
    from nec.jobs.stores import encode
    from nec.jobs.tracking import Display
    from nec.store import EmbeddingStore

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # importing it set INFO
    config = composed.config
    parts = build(composed, cache)
    notices.say_missing(parts.data)
    notices.say_scale(parts.data.datasets["train"].images, parts.encoder)
    parts.check_heads()
    history = learn(config, parts, loggers, folder)
    parts.cached.prepare_data()
    path = Path(config.store) if config.store else folder / "store.zarr"
    attrs = record.store_attributes(parts.data, parts.encoder)
    if parts.data.pixel_codec:
        attrs["pixels"] = parts.data.pixel_codec.describe()
    summary = encode(parts.cached, parts.encoder, parts.bottleneck, path, attrs, parts.device)
    with ExitStack() as unkept:
        unkept.callback(shutil.rmtree, path, ignore_errors=True)
        if not config.pixels:  # archives are encoded with it; files of pixels need none
            options = configs.all_options(config)
            record.write_codec(folder / "codec", parts.encoder, parts.bottleneck, options)
        store = EmbeddingStore.open(path)
        for display in (logger for logger in loggers if isinstance(logger, Display)):
            display.show_pictures(_pictures(parts.data, store))
        predictions = {
            name: probe(path, name, parts.device, parts.data)
            for name, probe in parts.probes.items()
        }
        about = describe(composed)
        share = parts.opened.share
        rates = record.rates(store, summary, parts.cached.sizes("test"))
        found = record.measure(folder, about, store, summary, predictions, history, share, rates)
        if _keeps_store(config):
            unkept.pop_all()
    return found


def _keeps_store(config: DictConfig) -> bool:
    """Whether to keep the store; of coded pixels, only if asked for: files are what is stored."""
    return bool(config.store or not config.pixels)


def _quieten() -> None:
    """Keep what libraries say of their own insides out of the terminal.

    Before a config is checked, since that imports what the config names.
    """
    # Advice on worker processes, and that a frozen encoder is in eval mode: both on purpose.
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("hydra").setLevel(logging.CRITICAL)  # it logs errors that it also raises


def _check_trainer(config: DictConfig) -> None:
    """Refuse what no job can run on here, before any work."""
    from nec.jobs import devices

    trainer = config.trainer
    devices.check(trainer)
    if configs.learns(config):
        devices.check_steps(configs.effective(trainer))
    count = len(devices.indices(trainer)) * trainer.num_nodes
    batch_size = configs.effective(config.data)["batch_size"]
    if batch_size < count:
        raise ValueError(
            f"data.batch_size is {batch_size}, over all devices, of which there are {count}; set "
            f"data.batch_size={count} or more"
        )
    started = int(os.environ.get("WORLD_SIZE", count)) if "RANK" in os.environ else count
    if started != count:
        raise ValueError(
            f"{started} processes were started for {count} devices; set trainer.devices and "
            "trainer.num_nodes to what torchrun starts"
        )


def _pictures(data: Any, store: Any) -> dict[str, Any]:
    """Val images from all over the split beside their decoded tokens, by id."""
    import numpy as np

    from nec.jobs.pictures import has_grid, side_by_side

    if not has_grid(store.codec):
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

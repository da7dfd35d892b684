"""What W&B and TensorBoard are shown of runs and sweeps: a view, the record is in the folders."""

import csv
import math
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import loggers
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from nec import config as configs
from nec.jobs.names import store_of
from nec.report.combine import combine
from nec.report.results import BOUNDS, Run, collect
from nec.report.table import COLUMNS, TableRow, by_task, cell, tabulate

# Project of W&B, where neither an option nor WANDB_PROJECT names one.
PROJECT = "nec"
# Columns of the table that a run shows as its result.
RATES = ("bytes_per_image", "payload_bpp", "payload_ratio", "estimated_bytes_per_image")
SHARE = "adapter/share"  # of the parameters that might learn
# W&B draws everything over this, as Lightning names it.
STEP = "trainer/global_step"


class Display(ABC):
    """A logger that is also shown what a run came to."""

    @abstractmethod
    def show_pictures(self, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Show pictures (H, W, 3), by the id of their image."""

    @abstractmethod
    def conclude(self, folder: Path | None) -> None:
        """Show what the run that lies in a folder came to; None: it failed."""


class WandbLogger(loggers.WandbLogger, Display):
    """Weights & Biases: a run in the group of its experiment; offline where there is no key.

    WANDB_MODE, WANDB_ENTITY and the other variables of W&B are respected.

    Args:
        place: Folder of the experiment's runs; offline runs lie below it, in wandb/.
        about: What the run is called (`nec.jobs.names.describe`).
        project: Project of W&B; None means WANDB_PROJECT, or "nec".
    """

    def __init__(self, place: str, about: Mapping[str, Any], project: str | None = None) -> None:
        super().__init__(
            save_dir=str(Path(place).resolve()), **_identity(about), **_settings(project)
        )

    def show_pictures(self, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Show them as images with their ids."""
        self.log_image("val/decoded", list(pictures.values()), caption=list(pictures))

    def conclude(self, folder: Path | None) -> None:
        """Show the result as the run's summary, refer to its store, and end the run."""
        if folder is not None:
            _conclude(self.experiment, folder)
            print(f"shown to W&B: {_where(self.experiment, folder.parent)}")
        self.experiment.finish(exit_code=1 if folder is None else 0)


class TensorBoardLogger(loggers.TensorBoardLogger, Display):
    """TensorBoard: event files in the run's folder.

    Args:
        save_dir: The run's folder.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="tensorboard", default_hp_metric=False)
        self.step = 0

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics, and remember the last step."""
        super().log_metrics(dict(metrics), step)
        self.step = max(self.step, step or 0)

    def show_pictures(self, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Show them as images under their ids, at the last step."""
        for name, picture in pictures.items():
            self.experiment.add_image(f"decoded/{name}", picture, self.step, dataformats="HWC")

    def conclude(self, folder: Path | None) -> None:
        """Show the result as scalars, where the event files lie now."""
        from torch.utils.tensorboard import SummaryWriter

        self.experiment.close()
        if folder is not None:
            with SummaryWriter(folder / "tensorboard") as writer:
                for name, value in measured(folder).items():
                    writer.add_scalar(name, value, self.step)


@contextmanager
def tracked(
    config: DictConfig, about: Mapping[str, Any], part: Path, folder: Path
) -> Iterator[list[loggers.Logger]]:
    """Open a run's loggers, show them the config, and close them with the run.

    Curves are always written as CSV: what is shown elsewhere is a view.

    Args:
        config: The whole config of the run.
        about: What the run is called.
        part: Where the run is at work.
        folder: Where it lies when the context is left without an error.
    """
    known = {"save_dir": str(part), "place": str(folder.parent), "about": dict(about)}
    taken = configs.arguments_of(config.logger["_target_"])
    chosen = configs.build(config.logger, **{k: v for k, v in known.items() if k in taken})
    if not isinstance(chosen, Display):
        yield [chosen]
        return
    over = None
    try:
        chosen.log_hyperparams(configs.all_options(config))
        yield [loggers.CSVLogger(part), chosen]
        over = folder
    finally:
        chosen.conclude(over)


def measured(folder: Path) -> dict[str, float]:
    """A run's result by name, utilities under their task; what was not measured is left out."""
    runs = collect([folder]).runs
    table = tabulate(combine(runs))
    found = {f"test/{name}": getattr(table[0], name) for name in RATES}
    found["store/side_bytes"] = table[0].side_bytes
    found |= {row.metric: row.value for row in runs[0].rows if row.metric == SHARE}
    for line in table:
        name = f"{line.task}/test/{line.metric}"
        found |= {name + end: getattr(line, column) for column, end in BOUNDS.items()}
        found |= {f"{line.task}/test/{further}": v for further, v in line.further.items()}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def publish(
    experiment: str,
    table: Sequence[TableRow],
    figures: Mapping[str, Path],
    runs: Sequence[Run],
    place: Path,
    project: str | None = None,
) -> str:
    """Show W&B a finished sweep: each run that was not shown yet, then tables and figures.

    Args:
        experiment: Group of the runs.
        table: One row per point.
        figures: A picture file of each task.
        runs: Runs whose folders are at hand; a results.csv alone has none.
        place: Folder whose wandb/ holds the offline run of tables and figures.
        project: Project of W&B; None means that of the runs.

    Returns:
        The address where it is shown, or the command that sends it there.
    """
    import wandb

    place.mkdir(parents=True, exist_ok=True)
    project = project or next(filter(None, map(_project, runs)), None)
    for run in runs:
        identity = _identity(run.about)
        if not any(run.folder.parent.glob(f"wandb/*/run-{identity['id']}.wandb")):
            _publish_run(run, identity, project)
    for earlier in place.glob(f"wandb/offline-run-*-{experiment}-report"):
        shutil.rmtree(earlier)  # else both would be sent, as one run
    with wandb.init(
        dir=place.resolve(),  # W&B writes through a service with perhaps another working folder
        id=f"{experiment}-report",
        group=experiment,
        name=f"{experiment} report",
        job_type="report",
        resume="allow",
        **_settings(project),
    ) as shown:
        told: dict[str, Any] = {}
        for task, lines in by_task(table).items():
            rows = [list(map(_cell, line)) for line in lines]
            told[f"{task}/table"] = wandb.Table(columns=list(COLUMNS), data=rows)
            told[f"{task}/rate_utility"] = wandb.Image(str(figures[task]))
        shown.log(told)
        return _where(shown, place)


def _publish_run(run: Run, identity: dict[str, Any], project: str | None) -> None:
    """Show config, training curves and result of a run that is over."""
    import wandb

    options = configs.all_options(OmegaConf.load(run.folder / "config.yaml"))
    place = run.folder.parent
    with wandb.init(dir=place.resolve(), config=options, **identity, **_settings(project)) as shown:
        shown.define_metric(STEP)
        shown.define_metric("*", step_metric=STEP, step_sync=True)
        for step, values in _curves(run.folder):
            shown.log({**values, STEP: step})
        _conclude(shown, run.folder)


def _curves(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """What a run logged, by step; what it repeated after an interruption is there once."""
    found: list[tuple[int, dict[str, float]]] = []
    for path in sorted(folder.glob("lightning_logs/*/metrics.csv"), key=os.path.getmtime):
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(int(row["step"]), row) for row in csv.DictReader(file)]
        first = min((step for step, _ in rows), default=0)
        found = [(step, values) for step, values in found if step < first]
        found += [
            (step, {k: float(v) for k, v in row.items() if v and k != "step"}) for step, row in rows
        ]
    return found


def _conclude(shown: Any, folder: Path) -> None:
    """Show a run's result, and its store as an artifact: where it lies and how big it is."""
    import wandb

    shown.summary.update(measured(folder))
    store = store_of(folder)
    if not store.is_dir():
        return
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    artifact = wandb.Artifact(f"store-{shown.id}", "store", metadata={"bytes": size})
    artifact.add_reference(store.resolve().as_uri(), checksum=False)
    shown.log_artifact(artifact)


def _identity(about: Mapping[str, Any]) -> dict[str, Any]:
    """How W&B knows a run: the same run again is the same there."""
    words = (about["setting"], about["variant"], f"seed {about['seed']}")
    return {
        "id": f"{about['experiment']}-{about['run']}",
        "group": about["experiment"],
        # What differs within a group comes first: names are cut off.
        "name": " · ".join(filter(None, words)),
        "job_type": "run",
        "resume": "allow",
    }


def mode() -> str | None:
    """Return what WANDB_MODE says; offline if it says nothing and there is no key."""
    import wandb

    return os.environ.get("WANDB_MODE") or (None if wandb.login(prompt=False) else "offline")


def _settings(project: str | None) -> dict[str, Any]:
    """The project, and offline where nothing says otherwise and there is no key."""
    import wandb

    return {
        "project": project or os.environ.get("WANDB_PROJECT", PROJECT),
        "mode": mode(),
        "settings": wandb.Settings(silent=True, console="off"),
    }


def _project(run: Run) -> str | None:
    """The project that a run was shown in, if its config names one."""
    return OmegaConf.load(run.folder / "config.yaml").logger.get("project")


def _where(shown: Any, place: Path) -> str:
    """Where one finds a run of W&B, or what sends it there."""
    if shown.disabled:
        return "nothing, WANDB_MODE is disabled"
    return f"wandb sync {place / 'wandb'}/offline-run-*" if shown.offline else str(shown.url)


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping):
        return cell("further", value)
    return None if isinstance(value, float) and math.isnan(value) else value

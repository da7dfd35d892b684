"""A multirun: Hydra expands and launches, every job is a child process, the report comes last."""

import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from nec import config as configs
from nec.jobs.names import check_same, is_finished, run_folder
from nec.jobs.ranks import environment_of_job


def sweep(overrides: Sequence[str]) -> int:
    """Run all jobs of the sweep, skip finished ones, report on all."""
    products = expand(overrides)
    jobs = [job for product in products for job in jobs_of(product)]
    composed, of_jobs = [], []
    firsts: dict[Path, DictConfig] = {}
    for job in _counted(jobs):  # every error of a config, and missing weights, before any work
        one = configs.compose(job)
        folder = run_folder(one)
        check_same(one.config, firsts.setdefault(folder, one.config), folder)
        if not is_finished(folder):
            _check_weights(one.config.encoder)
        composed.append(one)
        of_jobs.append(folder)
    on_slurm = any(one.choices["launcher"] == "submitit" for one in composed)
    if on_slurm and not which("srun") and not any("hydra/launcher=" in text for text in overrides):
        raise ValueError(
            "launcher=submitit needs SLURM, and there is no srun here; set launcher=local, or try "
            "it without SLURM: hydra/launcher=submitit_local"
        )
    if any(one.config.store for one in composed) and len(jobs) > 1:
        raise configs.UsageError("store=PATH is of one run; the jobs of a sweep need one each")
    folders = list(firsts)
    _check_data(config for folder, config in firsts.items() if not is_finished(folder))
    done = {_key(job) for job, folder in zip(jobs, of_jobs, strict=True) if is_finished(folder)}
    places = " and ".join(sorted({str(folder.parent) for folder in folders}))
    print(f"{len(folders)} jobs in {places}, {sum(map(is_finished, folders))} of them finished")
    for product in products:
        if not done.issuperset(map(_key, jobs_of(product))):
            _launch(product, done)
    projects = {
        folder.parent: configs.effective(one.config.logger)["project"]
        for folder, one in zip(of_jobs, composed, strict=True)
        if one.choices["logger"] == "wandb"
    }
    return _conclude(folders, projects)


def _counted(jobs: Sequence[list[str]]) -> Iterable[list[str]]:
    """Yield jobs to compose; say how many on stderr, in a terminal also how far it is."""
    console, text = Console(stderr=True), f"composing {len(jobs)} jobs"
    if console.is_terminal:
        return track(jobs, text, console=console, transient=True)
    print(text, file=sys.stderr, flush=True)
    return jobs


def _check_weights(node: DictConfig) -> None:
    options = configs.effective(node)
    configs.class_of(node).check_weights(
        options["name"], options["pretrained"], options["checkpoint"]
    )


def _check_data(of_jobs: Iterable[DictConfig]) -> None:
    """Refuse images that are not there, a split that they lack, and a codec that codes none.

    Each split is asked for once, and one image by the first job of each pixel codec.
    """
    from nec.data.coded import CodedDataModule

    sets: dict[str, Any] = {}
    coded = set()
    for config in of_jobs:
        options = {**configs.effective(config.data), "seed": None}
        key = repr(sorted(options.items()))
        if key not in sets:
            sets[key] = configs.build(config.data)
            _ = sets[key].datasets
        if config.pixels:
            kind = configs.class_of(config.pixels), configs.effective(config.pixels)["whole"]
            if kind not in coded:
                CodedDataModule(sets[key], configs.build(config.pixels)).load_splits()
            coded.add(kind)


def show(overrides: Sequence[str]) -> int:
    """Print every job of the sweep, checked, as one would type it after `nec run`; run none."""
    jobs = [job for product in expand(overrides) for job in jobs_of(product)]
    for job in _counted(jobs):
        configs.compose(job)
    print("\n".join(map(shlex.join, jobs)))
    return 0


def _conclude(folders: Sequence[Path], projects: Mapping[Path, str | None]) -> int:
    """Report on every experiment that has finished runs; fail where a job failed.

    It covers all runs that lie there, of this sweep and of others, if these are comparable.

    Args:
        folders: Folders of all jobs.
        projects: W&B project by the experiment's folder, for those to be shown there.
    """
    from nec.jobs.report import print_report, report, show_wandb
    from nec.report.results import beside

    for place in sorted({folder.parent for folder in folders}):
        finished = [f for f in folders if f.parent == place and is_finished(f)]
        if finished:
            try:
                result = report(beside(finished), place)
            except ValueError as error:  # from what lies beside; a sweep's own runs are comparable
                print(f"{error}\nso the report is of this sweep's runs alone")
                result = report(finished, place)
            print_report(result)
            if place in projects:
                show_wandb(result, finished, place, projects[place])
    failed = [folder.name for folder in folders if not is_finished(folder)]
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(folders)} jobs failed ({', '.join(failed)}); their errors are "
            "above, or in .submitit beside them; the same command completes the sweep"
        )
    return 0


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Return the products of a sweep: the command line's axes with each of the config's.

    `sweep.axes` is one product; `sweep.also` holds further ones beside it; `sweep.each` is part of
    all products. What the command line names wins over a config's axis of the same key.
    """
    plain = [configs.sweep_values(text)[0] for text in overrides]
    node = OmegaConf.to_container(configs.compose(plain).config.sweep, resolve=True)
    typed = {text.split("=")[0].lstrip("+~") for text in overrides}
    products = []
    for axes in [node.get("axes") or {}, *(node.get("also") or [])]:
        if (not axes and node.get("also")) or (products and typed & axes.keys()):
            continue  # a product beside the axes is for what it names, not for what was typed
        named = {**(node.get("each") or {}), **axes}.items()
        _check_axes(named)
        ours = [f"{k}={_choices(v)}" for k, v in named if k not in typed]
        products.append([*overrides, *ours])
    return products


def _check_axes(named: Iterable[tuple[str, object]]) -> None:
    """Refuse an axis that dots on the command line made a group of: it would have no values."""
    for key, value in named:
        if "." not in key and isinstance(value, dict):
            option, values = next(iter(value.items()))
            raise configs.UsageError(
                f"an axis of the sweep is {key}={value}; it names an option in full, as in "
                f"'sweep.each={{{key}.{option}: {values}}}', or type {key}.{option}=... without "
                "sweep"
            )


def jobs_of(product: Sequence[str]) -> list[list[str]]:
    """Return every job of one product, as the overrides of a single run."""
    jobs: list[list[str]] = [[]]
    for text in product:
        jobs = [[*job, value] for job in jobs for value in configs.sweep_values(text)]
    return jobs


def _choices(value: object) -> str:
    """A value of an axis, or several, as one would type it."""
    spelt = configs.spelt
    return ",".join(map(spelt, value)) if isinstance(value, list) else spelt(value)


def _key(job: Sequence[str]) -> frozenset[str]:
    """A job by what Hydra will call it; not asked in a launcher's process, where Hydra is busy."""
    return frozenset(configs.explicit(text) for text in job if not text.startswith("hydra"))


def _launch(product: list[str], done: set[frozenset[str]]) -> None:
    """Hand one product to Hydra, so that its launchers and sweepers apply; skip what is done."""

    def job(_: DictConfig) -> None:
        given = HydraConfig.get().overrides
        overrides = list(given.task)
        if frozenset(overrides) not in done:
            _run([*(text for text in given.hydra if "searchpath" in text), *overrides])

    argv = sys.argv
    sys.argv = ["nec run", "-m", *(configs.explicit(text) for text in product)]
    try:
        hydra.main(version_base="1.3", config_path="pkg://nec.conf", config_name="config")(job)()
    finally:
        sys.argv = argv


def _run(overrides: Sequence[str]) -> None:
    """Run one job as a child process with its own ranks, seeds and memory."""
    print(f"\n── {' '.join(overrides)}", flush=True)
    command = [sys.executable, "-m", "nec.jobs.run", *overrides]
    subprocess.run(command, env=environment_of_job(), check=False)

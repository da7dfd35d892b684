"""A multirun: Hydra expands and launches, every job is a child process, the report comes last."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from nec import config as configs
from nec.jobs.run import run_name


def sweep(overrides: Sequence[str]) -> int:
    """Run all jobs of the sweep, skip finished ones, report on all."""
    products = expand(overrides)
    jobs = [job for product in products for job in jobs_of(product)]
    composed = [configs.compose(job) for job in jobs]  # every error of a config, before any work
    out = Path("runs", composed[0].config.name)
    folders = list(dict.fromkeys(out / run_name(one) for one in composed))
    done = sum((folder / "run.json").is_file() for folder in folders)
    print(f"{len(folders)} jobs in {out}, {done} of them finished", flush=True)
    for product in products:
        _launch(product)
    failed = [folder.name for folder in folders if not (folder / "run.json").is_file()]
    finished = [folder for folder in folders if (folder / "run.json").is_file()]
    if finished:
        from nec.jobs.report import print_report, report

        print_report(report(finished, out))
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(folders)} jobs failed ({', '.join(failed)}); their errors are "
            "above, the same command completes the sweep"
        )
    return 0


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The products of a sweep: the command line's axes with each of the config's.

    `sweep.axes` is one product; `sweep.also` holds further ones beside it. What the command line
    names wins over a config's axis of the same key.
    """
    plain = [configs.sweep_values(text)[0] for text in overrides]
    node = OmegaConf.to_container(configs.compose(plain).config.sweep, resolve=True)
    typed = {text.split("=")[0].lstrip("+~") for text in overrides}
    products = []
    for axes in [node.get("axes") or {}, *(node.get("also") or [])]:
        ours = [f"{k}={_choices(v)}" for k, v in axes.items() if k not in typed]
        if not axes and node.get("also"):
            continue
        products.append([*overrides, *ours])
    return products


def jobs_of(product: Sequence[str]) -> list[list[str]]:
    """Every job of one product, as the overrides of a single run."""
    jobs: list[list[str]] = [[]]
    for text in product:
        jobs = [[*job, value] for job in jobs for value in configs.sweep_values(text)]
    return jobs


def _choices(value: object) -> str:
    return ",".join(str(v) for v in value) if isinstance(value, list) else str(value)


def _launch(product: list[str]) -> None:
    """Hand one product to Hydra, so that its launchers and sweepers apply."""
    argv = sys.argv
    sys.argv = ["nec run", "-m", *(configs.explicit(text) for text in product)]
    try:
        hydra.main(version_base="1.3", config_path="pkg://nec.conf", config_name="config")(_job)()
    finally:
        sys.argv = argv


def _job(_: DictConfig) -> None:
    """One job, as a child process with its own ranks, seeds and memory."""
    overrides = list(HydraConfig.get().overrides.task)
    print(f"\n── {' '.join(overrides)}", flush=True)
    subprocess.run([sys.executable, "-m", "nec.jobs.run", *overrides], check=False)

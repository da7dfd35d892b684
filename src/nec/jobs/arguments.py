"""The arguments of `nec run`."""

import argparse
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from nec import config as configs

HELP = """\
One run: adapt (if anything learns), fit on train, encode every split to one store, train heads on
what was decoded, record. With -m: every job of a sweep, then the table and the figure.

  nec run -m experiment=demo                     the demo: a λ sweep and its baselines, 5 minutes
  nec run bottleneck=uniform bottleneck.bits=3   one training-free run
  nec run -m 'sweep=[lmbda,adapter_ratio]' seed=0,1,2 logger=wandb
                                                 two axes of conf/sweep, three seeds, shown in W&B
  nec run lmbda=3 strategy=ddp trainer=gpu trainer.devices=4
                                                 one run on four GPUs
  nec run data.split=1 bottleneck=vq codec=runs/scenes/RUN
                                                 the codec that another run fitted, as it is
  nec run -m launcher=submitit 'experiment=[ucmerced_lmbda,a100_8]' data.root=DATA
                                                 each job of a sweep as a job of SLURM
"""
EPILOG = """\
An override is key=value. A group's value is a file in conf/<group>/; an option of it is an
argument of its constructor, written group.option=value, whether a file mentions it or not:
--options shows them all. Root keys: name, seed, lmbda, codec, store. Several files of experiment,
sweep or task are a list, as in 'task=[linear,attention]'. A sweep is key=value,value,... What was
stopped, a sweep or a run in the middle of its training, is completed by the same command. Overlays
of your own: hydra.searchpath=[file:///ABSOLUTE/FOLDER] experiment=NAME, where
FOLDER/experiment/NAME.yaml begins like those in conf/experiment/. More: docs/running.md

groups:
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nec run`."""
    made = argparse.ArgumentParser(
        prog="nec run",
        description=HELP,
        epilog=EPILOG + groups_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    made.add_argument("-m", "--multirun", action="store_true", help="run every job of a sweep")
    made.add_argument(
        "--cfg",
        action="store_true",
        help="run nothing; print the resolved config, with -m the overrides of each job",
    )
    made.add_argument(
        "--options",
        action="store_true",
        help="run nothing; print every option of what is chosen, with its value",
    )
    return made


def groups_text() -> str:
    """Return one line per config group with the files one may choose."""
    import nec.conf

    root = Path(next(iter(nec.conf.__path__)))
    folders = sorted(p for p in root.iterdir() if p.is_dir() and any(p.glob("*.yaml")))
    return "\n".join(
        f"  {folder.name:<11} {'  '.join(sorted(f.stem for f in folder.glob('*.yaml')))}"
        for folder in folders
    )


def options_text(config: DictConfig) -> str:
    """Every option of every object of a config: `path.option: value`, chosen or by default."""
    lines = []
    for path, node in configs.targets(config):
        lines.append(f"# {path}: {node['_target_']}\n")
        for name, value in sorted(configs.choosable(path, node).items()):
            lines.append(OmegaConf.to_yaml({f"{path}.{name}": value}, resolve=True))
    return "".join(lines)

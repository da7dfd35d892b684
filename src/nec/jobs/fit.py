"""`nec fit`, `validate`, `test`, `predict`: the Lightning CLI over the classes of `nec run`."""

import csv
import re
import warnings
from argparse import RawDescriptionHelpFormatter
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import DefaultHelpFormatter
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from nec.data.activations import ActivationDataModule
from nec.data.splits import SPLITS, SplitDataModule
from nec.jobs import adapt, ranks, record
from nec.jobs.stores import complete, encode
from nec.tasks import RateDistortionAdaptation, SemanticSegmentation

# What jsonargparse says of a value that none of several types takes.
UNION = "Union subtypes"
# Characters of a mistaken value that an error repeats.
LONGEST_GIVEN = 80
# Imported, so that their classes are found by short names.
MODULES = ("bottlenecks.factorized", "data.crops", "data.embeddings", "data.folder", "data.geo")
MODULES += ("data.scenes",)
USAGE = "nec {} [-c FILE.yaml] [--KEY VALUE ...]"
HELP = {
    "fit": """\
Train an adaptation by rate and distortion, or a head on a store.

  nec fit -c examples/fit.yaml                  the encoder that ships with nec, generated scenes
  nec fit -c examples/fit.yaml --model.lmbda 30 --model.bottleneck.latents 64
  nec fit -c examples/fit.yaml --trainer.devices 2 --trainer.strategy ddp
  nec fit -c FILE.yaml --data Folder --data.root CLASS_FOLDERS     images of your own
  nec fit -c FILE.yaml --ckpt_path LOGS/checkpoints/last.ckpt      go on after an interruption
  nec fit -c RUN/lightning.yaml                 what `nec run` trained, once more
  nec fit --model SceneClassification --model.head LinearHead --model.lr 0.01 \\
          --model.weight_decay 1 --data EmbeddingDataModule --data.store RUN/store.zarr \\
          --trainer.max_epochs 60
                                                a head on what was stored

A FILE.yaml holds seed_everything, trainer, model and data; --print_config shows all of it, defaults
too. What a class takes: --model.help RateDistortionAdaptation, --model.bottleneck.help Factorized,
--data.help Folder. Logs, and a checkpoint after every epoch, lie in lightning_logs/version_N.
""",
    "validate": """\
Loss, rate and distortion of an adaptation, or the accuracy of a head, on val.

  nec validate -c LOGS/config.yaml --ckpt_path LOGS/checkpoints/last.ckpt
""",
    "test": """\
The same on test.

  nec test -c LOGS/config.yaml --ckpt_path LOGS/checkpoints/last.ckpt
""",
    "predict": """\
Of an adaptation: encode all images to a store, LOGS/store.zarr, as `nec run` does. Of a head: what
it says about every image, LOGS/predictions.csv.

  nec predict -c LOGS/config.yaml --ckpt_path LOGS/checkpoints/last.ckpt
""",
}


class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """jsonargparse's help, under a description that keeps its lines."""


# In jsonargparse's errors: what else it tried, and the whole of what it was given.
BESIDES = re.compile(
    r"""\s*(Subtypes|Errors|Given\ value|Does\ not\ validate|-\ Does\ not|tip:
    |-\ Expected\ a\ (<class\ 'NoneType'>|path|dot\ import)).*""",
    re.VERBOSE,
)


class Parser(LightningArgumentParser):
    """Lightning's parser, whose errors are one line that says what is wrong and where."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Keep only the mistake of jsonargparse's tree of attempts."""
        if not self.exit_on_error:  # the value may still be of another type
            super().error(message, ex)
        lines = message.splitlines()
        given = next((line.split("value: ")[1] for line in lines if "Given value: " in line), "")
        words = " ".join(" ".join(line for line in lines if not BESIDES.fullmatch(line)).split())
        words = re.sub(
            r"- (?=Problem)|Type \S*Callable.*callable class: | Got value: Namespace.*", "", words
        )
        words = words if not words.endswith(":") else f"{words} no class or file of this name"
        given = re.sub(r"NestedArg\(key='(.*)', val='(.*)'\)", r"\1 \2", given)
        told = f" (given: {given})" if given and len(given) < LONGEST_GIVEN else ""
        self.exit(2, f"nec: error: {words}{told}; see nec fit --help\n")


class SavedConfig(SaveConfigCallback):
    """Writes config.yaml beside the checkpoints, wherever the logger put those."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing yet: the folder is known when the fit starts."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the config once."""
        if trainer.is_global_zero:
            folder = Path(trainer.checkpoint_callbacks[0].dirpath).parent
            folder.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, folder / "config.yaml", overwrite=True, multifile=False)


class CLI(LightningCLI):
    """Lightning's CLI, with a trainer that shows, saves and shares like that of `nec run`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Let an adaptation be the default model."""
        parser.set_defaults({"model": {"class_path": "nec.tasks.RateDistortionAdaptation"}})

    def before_instantiate_classes(self) -> None:
        """Set W&B offline if there is no key, as in `nec run`."""
        chosen = self._get(self.config, "trainer.logger")
        for logger in chosen if isinstance(chosen, list) else [chosen]:
            if getattr(logger, "class_path", "").endswith("WandbLogger"):
                from nec.jobs.tracking import mode  # else "WandbLogger" could mean two classes

                logger.init_args.mode = mode()

    def instantiate_trainer(self, **options: Any) -> Trainer:
        """Add to what was chosen what code sets for every trainer."""
        given = self._get(self.config_init, "trainer")
        for key, value in adapt.trainer_options(logged=given["logger"] is not False).items():
            options[key] = [*(given[key] or []), *value] if isinstance(value, list) else value
        return super().instantiate_trainer(**options)

    def instantiate_classes(self) -> None:
        """Give an adaptation images as its encoder takes them, through the frozen prefix once."""
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            raise ValueError(_said(error)) from error
        if isinstance(self.model, RateDistortionAdaptation):
            encoder, device = self.model.encoder, self.trainer.strategy.root_device
            self.datamodule.transform = encoder.preprocess
            folder = Path(self.trainer.default_root_dir, "activations")
            self.cached = ActivationDataModule.of(encoder, self.datamodule, folder, device)
            if not self.model.distortion.needs_images:
                self.datamodule = self.cached

    def fit(self, model: LightningModule, **options: Any) -> None:
        """Show loggers the config, train, and say what one may do with the result."""
        shown = yaml.safe_load(self.parser.dump(self.config))
        for logger in self.trainer.loggers:
            logger.log_hyperparams(shown[self.subcommand])
        try:
            self.trainer.fit(model, **options)
        except SystemExit:  # Lightning's, after Ctrl-C
            self._next("stopped", "fit")
            raise
        self._next("trained", "predict")

    def _next(self, what: str, command: str) -> None:
        """Say where the checkpoint lies, and the command that goes on with it."""
        path = Path(self.trainer.checkpoint_callbacks[0].best_model_path)
        if self.trainer.is_global_zero and path.is_file():
            config = path.parent.parent / "config.yaml"
            print(f"{what}: {path}\nnext: nec {command} -c {config} --ckpt_path {path}")

    def predict(self, model: LightningModule, ckpt_path: str | None, **options: Any) -> None:
        """Store what an adaptation makes of all images, or write down what a head says of them."""
        if self.trainer.world_size > 1:
            raise ValueError("predict runs on one device; set --trainer.devices 1")
        if isinstance(model, RateDistortionAdaptation):
            self._encode(model, ckpt_path)
            return
        if isinstance(model, SemanticSegmentation):
            raise ValueError(
                "predict writes a table of one answer an image, segmentation has one at every "
                "place; nec test says its mean IoU"
            )
        batches = self.trainer.predict(model, ckpt_path=ckpt_path, **options)
        path = self._logs() / "predictions.csv"
        classes = self.datamodule.classes
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "split", "label", "predicted"])
            for split, parts in zip(SPLITS, batches, strict=True):
                for part in parts:
                    named = [[classes[i] for i in part[key]] for key in ("label", "predicted")]
                    rows = zip(part["id"], *named, strict=True)
                    writer.writerows([name, split, *words] for name, *words in rows)
        print(f"wrote {path}")

    def _encode(self, model: RateDistortionAdaptation, checkpoint: str | None) -> None:
        if checkpoint is None:
            raise ValueError("predict needs what was trained; give --ckpt_path FILE")
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.on_load_checkpoint(state)
        model.load_state_dict(state["state_dict"])
        self.cached.prepare_data()
        attrs = record.store_attributes(self.cached.data, model.encoder)
        path = self._logs() / "store.zarr"
        device = self.trainer.strategy.root_device
        encode(self.cached, model.encoder, model.bottleneck, path, attrs, device)
        complete(path)
        print(f"wrote {path}; look at it with: nec inspect {path}")

    def _logs(self) -> Path:
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _said(error: Exception) -> str:
    """What a constructor said, without the tree of attempts that jsonargparse puts around it."""
    while UNION in str(error) and error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def main(argv: list[str]) -> int:
    """Let Lightning parse and run a subcommand.

    Args:
        argv: The subcommand, then what was typed after it.
    """
    ranks.follow_parent()
    warnings.filterwarnings("ignore", module="lightning")  # advice on workers, and on args below
    for name in MODULES:
        import_module(f"nec.{name}")
    CLI(
        LightningModule,
        SplitDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,  # the model's own has groups
        parser_class=Parser,
        save_config_callback=SavedConfig,
        seed_everything_default=0,
        parser_kwargs={
            "formatter_class": Formatter,
            **{
                name: {"description": text, "usage": USAGE.format(name)}
                for name, text in HELP.items()
            },
        },
        args=argv,
    )
    return 0

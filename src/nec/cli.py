"""The `nec` command: names of modules, none of which is imported before a job is chosen."""

import difflib
import os
import re
import signal
import sys
import traceback
import warnings
from importlib import import_module
from importlib.metadata import requires, version

COMMANDS = {
    "run": "nec.jobs.run",
    "fit": "nec.jobs.fit",
    "validate": "nec.jobs.fit",
    "test": "nec.jobs.fit",
    "predict": "nec.jobs.fit",
    "encode": "nec.jobs.encode",
    "inspect": "nec.jobs.inspect",
    "report": "nec.jobs.report",
}
HELP = """\
nec: neural embedding compression for earth observation

usage: nec COMMAND ... [--debug]     nec COMMAND --help     nec --version

  run [-m] KEY=VALUE ...   adapt, fit, encode to a store, train heads on what
                           was decoded; -m: a sweep, then table and figure
  fit -c FILE.yaml ...     train with the Lightning CLI, over the same classes;
                           then validate, test, predict
  report DIR ...           runs -> results.csv, tables, figures, a page
  encode CODEC SOURCE STORE
                           images -> a store, by the codec that a run left
  inspect STORE            what is in a store, what an image of it costs, how it
                           looks (--picture); --verify checks every byte

first steps:
  nec run -m experiment=demo              a sweep on generated scenes, 5 minutes
  nec run bottleneck=uniform              one run
  nec inspect runs/demo/RUN               what it stored
  python examples/probe.py STORE          what that is worth, without torch

exit status: 0; 1: an error, named in one line (--debug: with its traceback);
2: the command line is wrong
all but inspect need more than the base: pip install 'nec[train]'\
"""
# Errors that users cause and can repair. Anything else is our mistake and keeps its traceback.
NAMED_ERRORS = (ValueError, OSError, RuntimeError, ImportError, MemoryError)
# Packages whose modules have another name.
PACKAGES = {"PIL": "pillow", "hydra": "hydra-core", "sklearn": "scikit-learn", "yaml": "pyyaml"}


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments after `nec`; None for sys.argv[1:], which is left unchanged.

    Returns:
        Exit status.
    """
    typed = sys.argv[1:] if argv is None else argv
    words = [word for word in typed if word != "--debug"]
    name = words[0] if words else ""
    if name in ("-h", "--help"):
        print(HELP)
        return 0
    if name == "--version":
        print(f"nec {version('nec')}")
        return 0
    if name not in COMMANDS:
        return _fail(_unknown(name), 2)
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")  # compressai, torchgeo
    # A batch system's TERM ends a job as Ctrl-C does: nothing half-written stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = int(import_module(COMMANDS[name]).main(words) or 0)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except NAMED_ERRORS as error:
        if len(words) < len(typed):
            traceback.print_exc()
        return _fail(_line(error), _status(error))


def _fail(message: str, status: int) -> int:
    word = "nec:" if status == 130 else "nec: error:"
    print(f"{word} {message}", file=sys.stderr)
    return status


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)};"
    said = f"unknown command {name!r}" if name else "no command is given"
    return f"{said}; {hint} see nec --help"


def _line(error: BaseException) -> str:
    """Describe in one line what went wrong."""
    if isinstance(error, ModuleNotFoundError) and (extra := _extra(str(error.name))):
        return f"{error.name} is not installed; pip install 'nec[{extra}]'"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _extra(module: str) -> str | None:
    """Name the extra of nec that installs a module, if one does; no extra installs nec's own."""
    root = module.partition(".")[0]
    package = re.escape(PACKAGES.get(root, root))
    for requirement in requires("nec") or ():  # as 'torch>=2.4; extra == "train"'
        if found := re.fullmatch(rf"(?!nec\b){package}[^\w-].*extra == .(\w+).", requirement):
            return found[1]
    return None


def _status(error: BaseException) -> int:
    """Return 2 for a usage error, else 1; only a job that imported nec.config can raise one."""
    config = sys.modules.get("nec.config")
    return 2 if config is not None and isinstance(error, config.UsageError) else 1


if __name__ == "__main__":
    sys.exit(main())

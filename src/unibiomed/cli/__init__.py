"""The command: one thin function a verb; what it prints on stderr, and its exit codes, are in `EXIT_CODES`."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .. import __version__
from ..errors import InputError, UniBiomedError
from ..tasks import TASKS
from .data import add_data_commands
from .evaluate import add_evaluate_command
from .train import add_train_commands
from .volume import interpret_studies, parse_slices, studies

if TYPE_CHECKING:
    from ..interpret import Result

NOTICE = "Not for clinical use without validation."
EXIT_CODES = """exit codes:
  0    everything was done
  2    nothing was done; one line on stderr says what is wrong and what to do
  3    of several images some failed, each named on stderr; the others were done
       (data check: the data set has errors, all of them in the table)
  130  interrupted; what was finished is kept
"""


class Parser(argparse.ArgumentParser):
    """A parser that complains in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and end."""
        complain(f"{message}; see {self.prog} --help")
        sys.exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # a terminal that lacks a letter shows a substitute
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    given = _glue_numbers(sys.argv[1:] if arguments is None else arguments)
    options = make_parser().parse_args(given)
    # an evaluation keeps what was typed beside its numbers
    options.command_line = ["unibiomed", *given]
    usual, warnings.formatwarning = warnings.formatwarning, _warning_line
    try:
        code: int = options.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except UniBiomedError as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        complain("interrupted; what was finished is kept")
        return 130
    except BrokenPipeError:
        # whoever read our output has left (`| head`): not an error, but Python would complain once more at exit
        _close_stdout()
        return 0
    except OSError as error:
        if error.filename is not None:
            raise
        # without a file's name it is about what is printed
        _close_stdout()
        complain(f"what is printed cannot be written ({error.strerror or error}); make room")
        return 2
    finally:
        warnings.formatwarning = usual


def _close_stdout() -> None:
    """Let what is still to be printed go nowhere: Python would complain once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _glue_numbers(arguments: Sequence[str]) -> list[str]:
    """``--window -600,1500`` as one word with ``=``: argparse would take what begins with ``-`` for an option."""
    glued: list[str] = []
    for argument in arguments:
        if glued and glued[-1] in ("--window", "--box") and re.match(r"-[\d.]", argument):
            glued[-1] += f"={argument}"
        else:
            glued.append(argument)
    return glued


def complain(message: str) -> None:
    """Put `message` on stderr, on one line whatever file names are in it."""
    print(_line(message), file=sys.stderr)


def _line(message: str) -> str:
    return "unibiomed: " + "".join(c if c.isprintable() else " " for c in message)


def _warning_line(message: Warning | str, *_: object, **__: object) -> str:
    """A warning as one line: where in the code it was given is of no use to who runs the command."""
    return f"{_line(f'warning: {message}')}\n"


def make_parser() -> argparse.ArgumentParser:
    """The command line; see ``unibiomed --help``."""
    parser = Parser(
        prog="unibiomed",
        description=f"Interpret biomedical images. {NOTICE}",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"unibiomed {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    verb = verbs.add_parser(
        "interpret",
        help="ask about images",
        description=f"Ask about images. {NOTICE}",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000 or DICOM; a volume: NIfTI, NRRD, MHA, or a folder or zip file "
        "with a DICOM series",
    )
    tasks = "; ".join(f"{task.name}: {task.summary}" for task in TASKS.values())
    verb.add_argument("--task", help=f"{tasks} (default: the one that fits what else is given, or recognize)")
    verb.add_argument("--target", action="append", default=[], metavar="T", help="what to outline; may be repeated")
    verb.add_argument(
        "--allow-unknown",
        action="store_true",
        help="also search targets that are not in the model's vocabulary, with a warning (default: not searched)",
    )
    verb.add_argument("--box", metavar="X0,Y0,X1,Y1", help="a region in pixels; X1 and Y1 are just outside of it")
    verb.add_argument("--ask", metavar="TEXT", help="a question in plain words")
    verb.add_argument(
        "--modality",
        metavar="NAME",
        help="such as CT or ultrasound, when the file does not say (default: as the model recognizes it)",
    )
    verb.add_argument(
        "--slice",
        type=int,
        metavar="N",
        help="one slice of a volume as a picture, frame of a DICOM file or animation, page of a TIFF; from 0",
    )
    verb.add_argument(
        "--slices",
        type=parse_slices,
        metavar="A:B",
        help="of a volume, read slices A to B - 1 only; from 0 (default: all)",
    )
    verb.add_argument(
        "--series", type=int, metavar="N", help="which of several DICOM series in a folder or zip file, from 1"
    )
    verb.add_argument("--window", metavar="W", help="lung, abdomen, bone, brain, mediastinum, or CENTRE,WIDTH")
    verb.add_argument(
        "--presence-threshold",
        type=_probability,
        metavar="P",
        help="below it a target is reported as not found, 0 to 1; 0 shows every mask (default: the model's own)",
    )
    verb.add_argument(
        "--out", type=_folder, default=Path("unibiomed-results"), metavar="DIR", help="default: %(default)s"
    )
    verb.add_argument("--json", action="store_true", help="print JSON (one object an image) instead of text")
    _model_options(verb)
    verb.set_defaults(run=run_interpret)

    verb = verbs.add_parser("demo", help="interpret a real image that is already installed")
    verb.add_argument("--out", type=Path, default=Path("unibiomed-demo"), metavar="DIR", help="default: %(default)s")
    _model_options(verb)
    verb.set_defaults(run=run_demo)

    verb = verbs.add_parser("info", help="versions, tasks and the shipped model, at once")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(run=run_info)

    verb = verbs.add_parser("convert", help="turn the authors' weights into this package's format")
    verb.add_argument("source", type=Path, metavar="SRC", help="folder with config.json and safetensors or .bin files")
    verb.add_argument("destination", type=Path, metavar="DST", help="folder to make")
    verb.set_defaults(run=run_convert)

    add_train_commands(verbs)
    add_data_commands(verbs)
    add_evaluate_command(verbs)
    return parser


def _name(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("a name is needed; leave the option out for the usual one")
    return text


def _folder(text: str) -> Path:
    return Path(_name(text))


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1")
    return value


def _model_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--model", type=_name, metavar="M", help="model folder or hub name (default: the shipped nano)")
    verb.add_argument("--device", help="cpu, cuda, mps (default: the best there is)")
    verb.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32)")


def run_interpret(options: argparse.Namespace) -> int:
    """``unibiomed interpret``."""
    from ..images import check_modality, parse_box, parse_window
    from ..tasks import choose_task

    # what is wrong with the command line is told before the model is loaded
    box = None if options.box is None else parse_box(options.box)
    if options.window is not None:
        parse_window(options.window)
    if options.modality is not None:
        check_modality(options.modality)
    if options.ask is not None and options.target:
        raise InputError("--target and --ask are two questions: give one of them")
    if options.ask is not None and options.task not in (None, "ask"):
        raise InputError(f"--ask is a question of its own: leave out --task {options.task}, or --ask")
    choose_task(options.task, options.target, options.ask, box is not None)
    if not any(os.path.exists(path) for path in options.images):
        # found before the model is loaded, which takes seconds
        for path in options.images:
            complain(f"{path}: no such file: check the path")
        return 2

    volumes = studies(options)
    pictures = [path for path in options.images if path not in volumes]

    from tqdm import tqdm

    from ..interpret import load
    from ..interpret.batch import check_output, interpret_batch

    check_output(options.out)
    model = load(options.model, device=options.device, dtype=options.dtype)
    if options.presence_threshold is not None:
        model.presence_threshold = options.presence_threshold
    items = interpret_batch(
        model,
        pictures,
        options.out,
        progress=len(pictures) > 1 and sys.stderr.isatty(),
        task=options.task,
        targets=options.target,
        box=box,
        question=options.ask,
        modality=options.modality,
        slice_index=options.slice,
        window=options.window,
        allow_unknown=options.allow_unknown,
    )
    failed = 0
    for item in items:
        with tqdm.external_write_mode():  # takes the progress bar away while something else is printed
            if item.result is None:
                failed += 1
                complain(item.problem)
            elif options.json:
                files = {name: str(path) for name, path in (item.files or {}).items()}
                print(json.dumps(item.result.to_dict() | {"files": files}), flush=True)
            else:
                print(f"{item.path}{_which_slice(item.result)}")
                _show(item.result)
    failed += interpret_studies(options, model, volumes, complain)
    if not options.json and failed < len(options.images):
        print(f"Written to {options.out}. {NOTICE}")
    return 0 if not failed else 2 if failed == len(options.images) else 3


def _which_slice(result: Result) -> str:
    """Which slice, frame or page was looked at, of a file that has several."""
    details = result.details
    if not isinstance(count := details.get("slices"), int) or count < 2:
        return ""
    plane = f", {details['plane']}" if details.get("plane") else ""
    return f": slice {details.get('slice')} of 0 to {count - 1}{plane}"


def _show(result: Result) -> None:
    print(result.text or "(no words)")
    if result.findings:  # a table without rows would read like a diagnosis
        print(result.table())
    if result.searched:
        from ..export.wording import percent

        print(f"Looked for: {', '.join(f'{target.label} {percent(target.score)}' for target in result.searched)}")
    for note in result.notes:
        print(f"Note: {note}" if note.endswith("?") else f"Note: {note}.")
    print(flush=True)


def run_demo(options: argparse.Namespace) -> int:
    """``unibiomed demo``."""
    from ..interpret import load
    from ..interpret.batch import check_output
    from ..interpret.demo import run_demo as demo

    check_output(options.out)
    for result in demo(load(options.model, device=options.device, dtype=options.dtype), options.out):
        print(f"{result.image}: {result.question} ({result.seconds:.1f} s)")
        _show(result)
    print(f"Look at {options.out / 'retina_overlay.png'}. {NOTICE}")
    return 0


def run_info(options: argparse.Namespace) -> int:
    """``unibiomed info``; loads neither torch nor a model."""
    from ..images.modality import MODALITIES
    from ..images.windowing import WINDOWS

    nano = Path(__file__).parent.parent / "weights" / "nano"
    card = nano / "card.json"
    facts = {
        "version": __version__,
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in ("torch", "transformers", "numpy", "pydicom", "nibabel")},
        "tasks": {task.name: task.summary for task in TASKS.values()},
        "modalities": list(MODALITIES),
        "windows": sorted(WINDOWS),
        "model": {"name": "nano", "folder": str(nano), **(json.loads(card.read_text()) if card.exists() else {})},
        "notice": NOTICE,
    }
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        print("\n".join(_outline(facts)))
    return 0


def _outline(facts: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A line a fact, those of a table below its name."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from _outline(value, indent + "  ")
        else:
            yield f"{indent}{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}".rstrip()


def run_convert(options: argparse.Namespace) -> int:
    """``unibiomed convert``."""
    from ..model.weights import convert

    convert(options.source, options.destination)
    print(f"Written to {options.destination}; use it with --model {options.destination}")
    return 0

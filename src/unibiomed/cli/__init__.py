"""The command line: one short function per command."""

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
    from ..export.dicom import DicomOptions
    from ..interpret import Result

NOTICE = "Not for clinical use without validation."
EXIT_CODES = """exit codes:
  0    success
  2    failure; one line on stderr says what is wrong and how to fix it
  3    some of several images failed, each with a line on stderr; the others are complete
       (data check: the data set has errors, which the table lists)
  130  interrupted; finished results are kept
"""


class Parser(argparse.ArgumentParser):
    """A parser that reports errors in one line, like all other errors of the command."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with code 2."""
        print_error(f"{message}; see {self.prog} --help")
        sys.exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # Characters that the terminal cannot encode are replaced.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    given = _join_negative_numbers(sys.argv[1:] if arguments is None else arguments)
    options = make_parser().parse_args(given)
    # An evaluation stores the command line with its results.
    options.command_line = ["unibiomed", *given]
    usual, warnings.formatwarning = warnings.formatwarning, _warning_line
    try:
        code: int = options.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except UniBiomedError as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt:
        print_error("interrupted; finished results are kept")
        return 130
    except BrokenPipeError:
        # The reader of the output has ended, as in `| head`, which is not an error.
        _close_stdout()
        return 0
    except OSError as error:
        if error.filename is not None:
            raise
        # Without a file name, the error concerns the standard output.
        _close_stdout()
        print_error(f"the output cannot be written ({error.strerror or error}): free some disk space")
        return 2
    finally:
        warnings.formatwarning = usual


def _close_stdout() -> None:
    """Discard the rest of the output, because Python would report the error again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _join_negative_numbers(arguments: Sequence[str]) -> list[str]:
    """Join ``--window -600,1500`` with ``=``, because argparse takes values that start with ``-`` for options."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--window", "--box") and re.match(r"-[\d.]", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def print_error(message: str) -> None:
    """Print `message` to stderr as one line; control characters in file names are replaced."""
    print(_line(message), file=sys.stderr)


def _line(message: str) -> str:
    return "unibiomed: " + "".join(c if c.isprintable() else " " for c in message)


def _warning_line(message: Warning | str, *_: object, **__: object) -> str:
    """Format a warning as one line without its location in the code."""
    return f"{_line(f'warning: {message}')}\n"


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = Parser(
        prog="unibiomed",
        description=f"Interpret biomedical images. {NOTICE}",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"unibiomed {__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)

    verb = verbs.add_parser(
        "interpret",
        help="segment targets, describe images and answer questions",
        description=f"Segment targets in images, describe images, and answer questions about them. {NOTICE}",
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
    verb.add_argument("--task", help=f"{tasks} (default: inferred from the other options, otherwise recognize)")
    verb.add_argument("--target", action="append", default=[], metavar="T", help="name of a target; may be repeated")
    verb.add_argument(
        "--allow-unknown",
        action="store_true",
        help="also search targets that are not in the model's vocabulary, with a warning (default: not searched)",
    )
    verb.add_argument("--box", metavar="X0,Y0,X1,Y1", help="a region in pixels; X1 and Y1 are exclusive")
    verb.add_argument("--ask", metavar="TEXT", help="a question")
    verb.add_argument(
        "--modality",
        metavar="NAME",
        help="imaging modality, for example CT or ultrasound (default: from the file, else recognized)",
    )
    verb.add_argument(
        "--slice",
        type=int,
        metavar="N",
        help="slice of a volume, frame of a DICOM file or animation, or page of a TIFF file, counted from 0",
    )
    verb.add_argument(
        "--slices",
        type=parse_slices,
        metavar="A:B",
        help="slices A to B - 1 of a volume, counted from 0 (default: all)",
    )
    verb.add_argument(
        "--series", type=int, metavar="N", help="number of the DICOM series in a folder or zip file, from 1"
    )
    verb.add_argument(
        "--window", metavar="W", help="CT window: lung, abdomen, bone, brain, mediastinum, or CENTRE,WIDTH"
    )
    verb.add_argument(
        "--presence-threshold",
        type=_probability,
        metavar="P",
        help="presence score from 0 to 1 below which a target is reported as not found; 0 keeps every mask "
        "(default: that of the model)",
    )
    verb.add_argument(
        "--no-second-look",
        action="store_true",
        help="do not refine masks of small parts (nuclei) on a larger copy of the image (default: nano does)",
    )
    verb.add_argument(
        "--out",
        type=_folder,
        default=Path("unibiomed-results"),
        metavar="DIR",
        help="folder of the results (default: %(default)s)",
    )
    verb.add_argument("--json", action="store_true", help="print JSON, one object per image, instead of text")
    verb.add_argument(
        "--dicom",
        action="store_true",
        help="also write DICOM SEG and SR for DICOM images; these files contain patient data of the images",
    )
    verb.add_argument(
        "--seg-type",
        type=str.upper,
        choices=["BINARY", "LABELMAP", "FRACTIONAL"],
        metavar="TYPE",
        help="type of the DICOM SEG: binary, labelmap or fractional (default: binary)",
    )
    verb.add_argument("--empty-seg", action="store_true", help="write an empty DICOM SEG if nothing was found")
    _model_options(verb)
    verb.set_defaults(run=run_interpret)

    verb = verbs.add_parser("demo", help="interpret the included example image")
    verb.add_argument(
        "--out",
        type=Path,
        default=Path("unibiomed-demo"),
        metavar="DIR",
        help="folder of the results (default: %(default)s)",
    )
    _model_options(verb)
    verb.set_defaults(run=run_demo)

    verb = verbs.add_parser("info", help="show versions, tasks, modalities and the included model")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(run=run_info)

    verb = verbs.add_parser("convert", help="convert the authors' weights to the format of this package")
    verb.add_argument("source", type=Path, metavar="SRC", help="folder with config.json and safetensors or .bin files")
    verb.add_argument("destination", type=Path, metavar="DST", help="new folder for the converted model")
    verb.set_defaults(run=run_convert)

    add_train_commands(verbs)
    add_data_commands(verbs)
    add_evaluate_command(verbs)
    return parser


def _name(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("the name is empty: give a name, or leave the option out for the default")
    return text


def _folder(text: str) -> Path:
    return Path(_name(text))


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not valid: give a number from 0 to 1")
    return value


def _model_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--model", type=_name, metavar="M", help="model folder or hub name (default: the included nano)")
    verb.add_argument("--device", help="cpu, cuda or mps (default: the fastest available device)")
    verb.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32)")


def run_interpret(options: argparse.Namespace) -> int:
    """``unibiomed interpret``."""
    from ..images import check_modality, parse_box, parse_window
    from ..tasks import choose_task

    # The command line is checked before the model is loaded.
    box = None if options.box is None else parse_box(options.box)
    if options.window is not None:
        parse_window(options.window)
    if options.modality is not None:
        check_modality(options.modality)
    if options.ask is not None and options.target:
        raise InputError("--target and --ask cannot be combined: give one of them")
    if options.ask is not None and options.task not in (None, "ask"):
        raise InputError(f"--ask cannot be combined with --task {options.task}: leave one of them out")
    choose_task(options.task, options.target, options.ask, box is not None)
    dicom = _dicom_options(options)
    if not any(os.path.exists(path) for path in options.images):
        for path in options.images:
            print_error(f"{path}: no such file: check the path")
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
        dicom=dicom,
        task=options.task,
        targets=options.target,
        box=box,
        question=options.ask,
        modality=options.modality,
        slice_index=options.slice,
        window=options.window,
        allow_unknown=options.allow_unknown,
        second_look=not options.no_second_look,
    )
    failed = 0
    for item in items:
        with tqdm.external_write_mode():  # hides the progress bar while printing
            if item.result is None:
                failed += 1
                print_error(item.problem)
            elif options.json:
                files = {name: str(path) for name, path in (item.files or {}).items()}
                print(json.dumps(item.result.to_dict() | {"files": files}), flush=True)
            else:
                print(f"{item.path}{_slice_text(item.result)}")
                _show(item.result, item.notes)
    failed += interpret_studies(options, model, volumes, dicom, print_error)
    if not options.json and failed < len(options.images):
        print(f"Results written to {options.out}. {NOTICE}")
    return 0 if not failed else 2 if failed == len(options.images) else 3


def _dicom_options(options: argparse.Namespace) -> DicomOptions | None:
    if not options.dicom:
        if options.seg_type or options.empty_seg:
            raise InputError("--seg-type and --empty-seg need --dicom: add --dicom, or leave them out")
        return None
    from ..export.dicom import DicomOptions, check_toolkit

    check_toolkit()
    return DicomOptions(options.seg_type or "BINARY", options.empty_seg)


def _slice_text(result: Result) -> str:
    """Slice, frame or page that was interpreted, for files that have several."""
    details = result.details
    if not isinstance(count := details.get("slices"), int) or count < 2:
        return ""
    plane = f", {details['plane']}" if details.get("plane") else ""
    return f": slice {details.get('slice')} of 0 to {count - 1}{plane}"


def _show(result: Result, notes: Sequence[str] = ()) -> None:
    print(result.text or "(empty answer)")
    if result.findings:  # an empty table reads "No findings.", which the model may not have said
        print(result.table())
    if result.searched:
        from ..export.formatting import percent

        print(f"Searched: {', '.join(f'{target.label} {percent(target.presence)}' for target in result.searched)}")
    for note in (*result.notes, *notes):
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
    print(f"Overlay written to {options.out / 'retina_overlay.png'}. {NOTICE}")
    return 0


def run_info(options: argparse.Namespace) -> int:
    """``unibiomed info``; does not import torch."""
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
    """Format nested facts as indented lines."""
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
    print(f"Model written to {options.destination}; use it with --model {options.destination}")
    return 0

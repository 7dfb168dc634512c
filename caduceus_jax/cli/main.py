"""The entry point `caduceus-jax COMMAND`: finds the command, runs it, and reports its errors."""

import difflib
import os
import pathlib
import sys
import traceback

from caduceus_jax.cli.commands import COMMANDS, load, signature_of
from caduceus_jax.cli.errors import in_options
from caduceus_jax.cli.log import shown_log
from caduceus_jax.errors import UserError
from caduceus_jax.version import __version__

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
_HELP = ("-h", "--help", "--help-all", "--help_all")


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after `caduceus-jax`; by default the process's own.

    Returns:
        The exit status: 0 done, 1 failed, 2 bad usage or input, 130 interrupted, or the command's
        own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if words[:1] == ["help"]:  # `help embed` is `embed --help`
        words = [*words[1:], "--help"]
    try:
        status = _front_page(words)
        if argv is None and status is None and not set(words) & set(_HELP):
            _use_large_pages()
        status = _reported(*_split(words), debug) if status is None else status
        sys.stdout.flush()
    except BrokenPipeError:  # `caduceus-jax embed --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def _use_large_pages() -> None:
    """Starts this process over with large memory pages, where the C library reads that at start.

    XLA takes fresh memory in every call on a CPU. In pages of 4 KiB a fifth of the time can
    go into them (docs/benchmarks.md). A GLIBC_TUNABLES that is set already is left alone.
    """
    setting = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION") or ""
        on_request = "[madvise]" in setting.read_text()
    except (AttributeError, OSError, ValueError):  # another system or C library
        return
    known = version.startswith("glibc") and _numbers(version.split()[-1]) >= (2, 35)
    ours = sys.orig_argv[1 - len(sys.argv) :] == sys.argv[1:]  # not a function of another program
    if on_request and known and ours and sys.executable and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _front_page(words: list[str]) -> int | None:
    """Prints an overview or the version if that is what is asked for, and returns the status."""
    if not words or words[0] in _HELP:
        print(_overview())
        return DONE if words else BAD_INPUT
    if words[0] in ("-V", "--version"):
        print(f"caduceus-jax {__version__}")
        return DONE
    if words[0] in _groups() and (not words[1:] or words[1] in _HELP):
        print(_overview(words[0]))
        return DONE if words[1:] else BAD_INPUT
    return None


def _reported(name: str, words: list[str], debug: bool) -> int:
    """Runs a command, prints its error in one line, and returns the status."""
    try:
        with shown_log():
            _run(name, words)
    except SystemExit as stop:  # --help, or a command with a status of its own
        return stop.code if isinstance(stop.code, int) else FAILED
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, UserError):
            print(f"caduceus-jax {name}: {error}", file=sys.stderr)
            return error.exit_status
        hint = "" if debug else " (--debug shows where)"
        print(f"caduceus-jax {name}: {type(error).__name__}: {error}{hint}", file=sys.stderr)
        return FAILED
    return DONE


def _split(words: list[str]) -> tuple[str, list[str]]:
    """Splits off the command's name, of two words where there is one, from the other words."""
    for count in (2, 1):
        name = " ".join(words[:count]).replace("_", "-")
        if name in COMMANDS:
            return name, words[count:]
    if words[0] in _groups() and words[1:] and not words[1].startswith("-"):
        return " ".join(words[:2]), words[2:]
    return words[0], words[1:]


def _groups() -> set[str]:
    """Lists first words that are not commands themselves."""
    return {name.partition(" ")[0] for name in COMMANDS} - set(COMMANDS)


def _overview(group: str = "") -> str:
    """Lists all commands, or those of two words of which `group` is the first."""
    names = [name for name in COMMANDS if name.startswith(f"{group} " if group else "")]
    width = max(map(len, names))
    lines = [f"  {name:{width}}  {COMMANDS[name].summary}" for name in names]
    return "\n".join(
        [
            f"usage: caduceus-jax {group or 'COMMAND'} [ARGUMENT ...]",
            "",
            "Caduceus DNA language models: pretrain, fine-tune, convert, embed, score.",
            "",
            *lines,
            "",
            "caduceus-jax COMMAND --help shows the manual page of a command. With any command,",
            "--debug shows where an error came from. --version prints the version.",
        ]
    )


def _run(name: str, words: list[str]) -> None:
    if name not in COMMANDS:
        group = name.partition(" ")[0]
        known = [c for c in COMMANDS if c.startswith(f"{group} ")] or [*COMMANDS, *_groups()]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise UserError(f"is not a command; {hint}")
    from caduceus_jax.cli.arguments import parse  # jsonargparse takes longer than --version may

    signature = signature_of(COMMANDS[name])
    arguments = parse(f"caduceus-jax {name}", signature, words)
    function = load(COMMANDS[name].function)
    with in_options(signature, arguments.lines):
        function(**arguments.keywords)

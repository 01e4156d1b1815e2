"""All commands, assembled. Heavy libraries load inside the commands that need them."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from typer.exceptions import TyperException

from keepsight import __version__
from keepsight.cli import (
    batch,
    ci,
    data,
    demo,
    follow,
    gallery,
    models,
    monitor,
    privacy,
    review,
    runs,
    server,
    settings,
    tokens,
    zoo,
)
from keepsight.cli.common import EXIT_ERROR, tell_error
from keepsight.errors import BadInputError, KeepsightError

app = typer.Typer(
    name="keepsight",
    help="Keeps a small business's vision models seeing straight.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


for module in (server, batch, follow, demo, gallery):
    module.register(app)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(runs.app, name="runs")
app.add_typer(ci.app, name="ci")
app.add_typer(review.app, name="review")
app.add_typer(gallery.app, name="gallery")
app.add_typer(monitor.app, name="monitor")
app.add_typer(privacy.app, name="privacy")
app.add_typer(zoo.app, name="zoo")
app.add_typer(settings.app, name="settings")
app.add_typer(tokens.app, name="token")


def run_app(arguments: Sequence[str]) -> int:
    """Runs one command; the exit code: 0 fine, 2 an error, else what the command says."""
    as_json = "--json" in arguments
    try:
        result = app(list(arguments), standalone_mode=False)
    except KeepsightError as error:
        tell_error(error, as_json=as_json)
        return EXIT_ERROR
    except typer.Abort:
        return 130
    except TyperException as error:
        # Without a command Typer has shown the help already and has nothing to add.
        told = error.format_message()
        if told:
            mistake = BadInputError(told, expected="a command as `--help` shows it.", do="Correct the command.")
            tell_error(mistake, as_json=as_json)
        return EXIT_ERROR
    return result if isinstance(result, int) else 0

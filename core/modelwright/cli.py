"""The command line: parsing and printing only. Imports torch in no command that can do without.

Exit codes: 0 done, 1 a user's error (one line on stderr), 2 wrong usage, 130 interrupted with a checkpoint saved.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelwright import cli_bundle, cli_compress
from modelwright.errors import ConfigError, Interrupted, ModelwrightError
from modelwright.printing import console, first_rank, print_metrics, table, watch

if TYPE_CHECKING:
    from modelwright.plugins import Catalog
    from modelwright.run import Run


class Split(StrEnum):
    """The splits that can be scored."""

    train = "train"
    valid = "valid"
    test = "test"


app = typer.Typer(
    name="modelwright",
    help="Train, evaluate and shrink models of any domain: one engine, every task a plugin.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _complete_task(incomplete: str) -> list[str]:
    from modelwright.plugins import discover

    return [name for name in discover().tasks if name.startswith(incomplete)]


TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A task's name.", autocompletion=_complete_task)]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings, for example train.epochs=20.", show_default=False),
]
ConfigFile = Annotated[Path | None, typer.Option("-c", "--config", metavar="FILE", help="A YAML file of settings.")]
Recipe = Annotated[str | None, typer.Option("--recipe", metavar="NAME", help="One of the task's recipes.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The run folder to make.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run that lies there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if version:
        from modelwright import __version__

        print(f"modelwright {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


@app.command()
def tasks(as_json: AsJson = False) -> None:
    """List the installed tasks, and the plugins that failed with the reason."""
    from modelwright.plugins import discover, missing_modules, recipes_of

    catalog = discover()
    rows: list[dict[str, Any]] = []
    for name, entry in sorted(catalog.tasks.items()):
        missing = missing_modules(entry.requires)
        rows.append(
            {
                "task": name,
                "summary": entry.summary,
                "provider": str(catalog.providers[name]),
                "recipes": list(recipes_of(entry)),
                "missing": missing,
                "install": catalog.install_command(name) if missing else None,
            }
        )
    conflicts = {name: [str(provider) for provider in each] for name, each in catalog.conflicts.items()}
    if as_json:
        failures = [
            {"plugin": f.plugin, "distribution": f.distribution, "error": f.error, "mend": f.mend}
            for f in catalog.failures
        ]
        print(json.dumps({"tasks": rows, "failures": failures, "conflicts": conflicts}))
        return
    _print_tasks(catalog, rows, conflicts)


def _print_tasks(catalog: Catalog, rows: list[dict[str, Any]], conflicts: dict[str, list[str]]) -> None:
    listed = table("task", "what it does", "recipes", "from")
    for row in rows:
        state = "" if not row["missing"] else f"needs {', '.join(row['missing'])}: {row['install']}"
        listed.add_row(row["task"], row["summary"], state or ", ".join(row["recipes"]), row["provider"])
    if rows:
        console().print(listed)
    else:
        print('no task is installed; install one: pip install "modelwright[all]"')
    for name, providers in conflicts.items():
        print(f"conflict: task '{name}' is offered by {' and '.join(providers)}; uninstall one of them")
    for failure in catalog.failures:
        print(f"failed: plugin '{failure.plugin}' of {failure.distribution}: {failure.error}; {failure.mend}")


@app.command()
def config(task: TaskName, overrides: Overrides = None, file: ConfigFile = None, recipe: Recipe = None) -> None:
    """Print the full effective settings of a task, commented."""
    from modelwright.config import to_yaml
    from modelwright.plugins import discover, settings_of

    entry = discover().task(task)
    effective = settings_of(entry, recipe=recipe, config=file, settings=overrides or [])
    print(to_yaml(effective, head=f"{task}: {entry.summary}", comments=True), end="")


@app.command()
def train(
    task: TaskName,
    overrides: Overrides = None,
    file: ConfigFile = None,
    recipe: Recipe = None,
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a model, evaluate it and write a report."""
    from modelwright.plugins import discover, settings_of

    catalog = discover()
    # Mistakes in the settings are told before torch is imported, which takes seconds.
    settings_of(catalog.task(task), recipe=recipe, config=file, settings=overrides or [])

    def start(**watch: Any) -> Run:
        from modelwright import run

        return run.train(
            task,
            recipe=recipe,
            config=file,
            settings=overrides or [],
            out=out,
            overwrite=overwrite,
            catalog=catalog,
            **watch,
        )

    watch(start)


@app.command()
def resume(run: RunFolder) -> None:
    """Go on with an interrupted run, at the exact step."""
    from modelwright.folder import read_task

    read_task(run)

    def start(**watch: Any) -> Run:
        from modelwright import run as runs

        return runs.resume(run, **watch)

    watch(start)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN|BUNDLE", help="A run folder, or a bundle's.", show_default=False)],
    split: Annotated[Split, typer.Option(help="Which samples to score.")] = Split.test,
    variant: Annotated[str | None, typer.Option("--variant", metavar="NAME", help="A variant of the run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a run's kept weights, one of its variants, or a bundle."""
    from modelwright.bundle.runtime import is_bundle
    from modelwright.folder import read_task

    bundle = is_bundle(run)
    if bundle and variant is not None:
        raise ConfigError(f"{run} is a bundle, which has no variants: leave --variant out, or name the run")
    if not bundle:
        read_task(run)  # a mistake is told before torch is imported, which takes seconds
    from modelwright import run as runs
    from modelwright.bundle import scoring

    if bundle:
        found = scoring.evaluate_bundle(run, split=split.value)
    elif variant is not None:
        found = scoring.evaluate_variant(run, variant, split=split.value)
    else:
        found = runs.evaluate(run, split=split.value)
    if not first_rank():
        return
    if as_json:
        print(json.dumps({key: found[key] for key in ("task", "split", "samples", "metrics")}))
        return
    print_metrics([found])


@app.command()
def report(run: RunFolder) -> None:
    """Write a run's report again."""
    from modelwright.report.page import write_report

    print(write_report(run))


@app.command()
def demo(
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", autocompletion=_complete_task)] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where the run folders go.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train every installed task (or one) on embedded data, compress and export it, all with recipes `quick`."""
    from modelwright.errors import PluginError
    from modelwright.plugins import discover, recipes_of

    catalog = discover()
    names = [name for name, entry in sorted(catalog.tasks.items()) if "quick" in recipes_of(entry)]
    if task is not None:
        names = [task]
    if not names:
        raise PluginError('no task with a demo is installed; install one: pip install "modelwright[all]"')
    for name in names:
        if "quick" not in recipes_of(catalog.task(name)):
            raise PluginError(f"{name} has no demo (no recipe 'quick'); try: modelwright train {name}")
    for name in names:
        print(f"{name}: {catalog.tasks[name].summary}", flush=True)

        def start(name: str = name, **watch: Any) -> Run:
            from modelwright import run

            folder = None if out is None else out / name
            return run.train(name, recipe="quick", out=folder, overwrite=overwrite, catalog=catalog, **watch)

        done = watch(start)
        if done is not None:
            cli_compress.finish(done.folder, catalog)


@app.command("new-plugin")
def new_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of project and task: lowercase words and hyphens.")],
    kind: Annotated[str, typer.Option(help="classification, detection, sequence, tabular or blank.")] = "blank",
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The parent folder.")] = None,
) -> None:
    """Write the project of a new plugin: a small working task of the given kind, with its tests."""
    from modelwright.scaffold import scaffold

    project = scaffold.new_plugin(name, kind=kind, out=out)
    print(f"{project.folder}: a {project.kind} task to begin with, on data that it makes itself. Next:\n")
    print("\n".join(f"  {step}" for step in project.next_steps))


@app.command()
def check(
    task: TaskName,
    as_json: AsJson = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Run this check; may repeat.")
    ] = None,
) -> None:
    """Check a task against the contract that every plugin keeps, on its own small data."""
    from modelwright.plugins import discover

    entry = discover().task(task)  # a mistake is told before torch is imported, which takes seconds
    from modelwright.testing.kit import check_task
    from modelwright.testing.table import print_counts, print_result

    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):  # a plugin may print what it likes, too
        results = check_task(entry, only=only, report=print_result)
    good = all(result.good for result in results)
    if as_json:
        rows = [{key: getattr(r, key) for key in ("check", "outcome", "message", "seconds")} for r in results]
        print(json.dumps({"task": task, "ok": good, "checks": rows}))
    else:
        print_counts(task, results)
    if not good:
        raise typer.Exit(1)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at the installation: versions that fit together, plugins, devices."""
    from modelwright.doctor import diagnose

    findings = diagnose()
    broken = any(finding.status == "broken" for finding in findings)
    if as_json:
        rows = [{"status": f.status, "what": f.what, "detail": f.detail, "mend": f.mend} for f in findings]
        print(json.dumps({"ok": not broken, "findings": rows}))
    else:
        listed = table("", "what", "found")
        for finding in findings:
            mend = f"\nmend: {finding.mend}" if finding.mend else ""
            listed.add_row(finding.status, finding.what, finding.detail + mend)
        console().print(listed)
    if broken:
        raise typer.Exit(1)


cli_bundle.register(app)
cli_compress.register(app)


def main() -> None:
    """Entry point of `modelwright` and of `python -m modelwright`."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        try:
            app(args=arguments, prog_name="modelwright")
        finally:
            sys.stdout.flush()  # at exit nobody could catch a broken pipe any more
    except ModelwrightError as error:
        if debug:
            traceback.print_exception(error)
        elif first_rank():
            print(f"modelwright: {error}", file=sys.stderr)
        sys.exit(130 if isinstance(error, Interrupted) else 1)
    except SystemExit as leaving:
        if leaving.code == 130:  # typer turns Ctrl-C into that, and says nothing
            print("modelwright: interrupted", file=sys.stderr)
        raise
    except BrokenPipeError:  # the reader of a pipe went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)

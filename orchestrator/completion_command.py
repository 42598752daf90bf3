"""``orchestrator completion``: what a shell needs to complete our commands."""

import click
from click.shell_completion import get_completion_class

from orchestrator.api_command import plain_ends
from orchestrator.cli import orchestrator


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@plain_ends
def command(shell: str) -> None:
    """Write the script by which SHELL completes commands and options.

    \b
    Examples:
      eval "$(orchestrator completion bash)"      in ~/.bashrc
      eval "$(orchestrator completion zsh)"       in ~/.zshrc, after compinit
      orchestrator completion fish > ~/.config/fish/completions/orchestrator.fish
    """
    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - click knows these three
        raise click.UsageError(f"{shell} is not known")
    completion = kind(orchestrator, {}, "orchestrator", "_ORCHESTRATOR_COMPLETE")
    # click's own source() runs bash to look at its version.
    click.echo(completion.source_template % completion.source_vars())

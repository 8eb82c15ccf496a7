"""The ``gary`` command: a thin client of the agent on this host, and the way to start that agent."""


def main() -> None:
    """Run the command line in ``sys.argv`` and exit."""
    from gary.cli.app import app  # Not at the top: who imports this package does not want typer at once.

    app(prog_name="gary")

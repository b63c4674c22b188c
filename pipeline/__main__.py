"""The `dasnet` command, also as `python -m pipeline`.  Signals are seen to before anything large is imported."""

from pipeline.interruption import end_quietly


def main() -> None:
    end_quietly()
    from pipeline.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()

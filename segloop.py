"""The command `segloop`, by a name that no other project has."""

import importlib.util
import os


def run() -> None:
    """Starts the program, if its packages are its own."""
    # By its place: `import trainer` may find another project's.
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "trainer")
    spec = importlib.util.spec_from_file_location(
        "segloop_namesakes", os.path.join(folder, "namesakes.py")
    )
    namesakes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(namesakes)
    namesakes.check()

    from trainer import main

    main.run()


if __name__ == "__main__":
    run()

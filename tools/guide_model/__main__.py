"""Makes the model of the package: ``python -m tools.guide_model`` (or ``make guide-model``).

Trains in an environment of its own, because the project does not depend on JAX, then scores the file with llama.cpp.
"""

from __future__ import annotations

import subprocess
import sys
import venv

from tools.guide_model.config import BUILD_DIR, REPO, ROOM


def main() -> None:
    environment = BUILD_DIR / "venv"
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
    requirements = str(ROOM / "requirements.txt")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
    subprocess.run([python, "-m", "tools.guide_model.train", *sys.argv[1:]], check=True, cwd=REPO)
    for options in (["--export-check"], []):
        subprocess.run([sys.executable, "-m", "tools.guide_model.evaluate", *options], check=True, cwd=REPO)


if __name__ == "__main__":
    main()

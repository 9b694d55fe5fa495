"""Makes the two pictures of the README from a demo: python docs/pictures.py FOLDER

FOLDER is where `ens demo` was run. terminal.svg is what `ens blend` prints of it, report.png the top of its report. It
needs Chromium, and playwright.
"""

import os
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).parent / "pages" / "images"
WIDTH = 92  # characters
SIDES = {"width": 1280, "height": 760}  # px
BROWSERS = ("/usr/bin/chromium", "/usr/bin/google-chrome")


def main(folder: Path) -> None:
    IMAGES.mkdir(exist_ok=True)
    words = ["blend", "ens-demo/run", "--method", "stack"]
    with Path(os.devnull).open("w") as nothing:
        console = Console(record=True, width=WIDTH, file=nothing, force_terminal=True)
        console.print(f"$ ens {' '.join(words)}", style="bold", highlight=False)
        console.print(Text.from_ansi(_ens(folder, *words)))
    console.save_svg(str(IMAGES / "terminal.svg"), title="ens")
    _ens(folder, "report", "ens-demo/run")
    with sync_playwright() as browsers:
        path = next((path for path in BROWSERS if Path(path).exists()), None)
        browser = browsers.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIDES)
        page.goto((folder / "ens-demo" / "run" / "report.html").absolute().as_uri())
        page.screenshot(path=IMAGES / "report.png")
        browser.close()


def _ens(folder: Path, *words: str) -> str:
    environment = {**os.environ, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1"}
    command = [sys.executable, "-m", "ensemble.cli", *words]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return "\n".join(line for line in done.stdout.splitlines() if line.strip())


if __name__ == "__main__":
    main(Path(sys.argv[1]))

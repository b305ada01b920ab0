"""A running JupyterLab and a real browser to drive it with."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Error, sync_playwright

import lab as lab_tool

ROOT = Path(__file__).resolve().parent.parent.parent
SCREENSHOTS = ROOT / "build" / "screenshots"
TOKEN = "for-these-tests-only"
TIMEOUT, RUN_TIMEOUT = 180, 600  # seconds for one step, and for all cells on a busy machine
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# No news box, and every cell in the page, also those not scrolled to.
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}


def unavailable(reason):
    """Skip on a laptop; in CI a browser that is missing is a failure."""
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser():
    """A Chromium of the system, else playwright's own."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        except Error as error:
            cure = "install Chromium, or run `python -m playwright install chromium`"
            unavailable(f"no browser: {cure} ({error.message[:200]})")
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Address and folder of a JupyterLab on a reader's copy of notebooks/, offline."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    lab_tool.refresh(mine=folder)
    for name, values in SETTINGS.items():
        path = home / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    (home / "data").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    env |= {"VAELAB_STRICT": "1", "VAELAB_OFFLINE": "1", "VAELAB_DATA": str(home / "data")}
    env |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "IPYTHONDIR": str(home / "ipython")}
    for kind in ("JUPYTERLAB_WORKSPACES", "JUPYTER_CONFIG", "JUPYTER_RUNTIME"):
        env[f"{kind}_DIR"] = str(home / kind.lower())
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}",
        "--expose-app-in-browser",
    ]  # fmt: skip
    log = home / "jupyter.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/api?token={TOKEN}", process, log)
        yield f"http://127.0.0.1:{port}", folder
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(address, process, log):
    """Wait until the server answers."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


class Lab:
    """JupyterLab in a browser page, as a reader sees it."""

    def __init__(self, page, address, folder):
        self.page, self.address, self.folder = page, address, folder

    def open(self, name):
        """Open a notebook and wait until its kernel is ready."""
        self.page.goto(f"{self.address}/lab/tree/{name}?token={TOKEN}&reset")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.page.wait_for_function(
            """() => {
                const panel = window.jupyterapp?.shell.currentWidget;
                const kernel = panel?.sessionContext?.session?.kernel;
                return kernel?.status === 'idle' && panel.content.model;
            }"""
        )

    def run_all(self, name):
        """Open a notebook, clear it, choose Run > Run All Cells; return it as it is then saved."""
        self.open(name)
        self.page.evaluate(
            "() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')"
        )
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.page.wait_for_function(
            """() => {
                const panel = window.jupyterapp.shell.currentWidget;
                const code = [...panel.content.model.cells].filter(
                    cell => cell.type === 'code' && cell.sharedModel.getSource().trim());
                const failed = code.some(
                    cell => cell.outputs.toJSON().some(o => o.output_type === 'error'));
                const done = code.every(
                    cell => cell.executionCount && cell.executionState !== 'running');
                return failed || (done && panel.sessionContext.session.kernel.status === 'idle');
            }""",
            timeout=RUN_TIMEOUT * 1000,
        )
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        self.page.wait_for_function(
            "() => !window.jupyterapp.shell.currentWidget.content.model.dirty"
        )
        return nbformat.read(self.folder / name, as_version=4)

    def figures(self):
        """Width in pixels of every figure in the page; 0 is a picture that did not load."""
        pictures = self.page.locator(".jp-Notebook .jp-OutputArea-output img")
        return pictures.evaluate_all("all => all.map(one => one.complete ? one.naturalWidth : 0)")

    def output_text(self):
        """Everything the outputs in the page say."""
        return "\n".join(self.page.locator(".jp-Notebook .jp-OutputArea-output").all_inner_texts())

    def screenshot(self, name):
        """Keep a picture of the page in build/screenshots/."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / name)

    def screenshots(self, stem):
        """Pictures of the whole notebook, one page after the other."""
        panel = self.page.locator(".jp-WindowedPanel-outer").first
        height, page = panel.evaluate("panel => [panel.scrollHeight, panel.clientHeight]")
        for number, top in enumerate(range(0, height, page)):
            panel.evaluate("(panel, top) => panel.scrollTo(0, top)", top)
            self.page.wait_for_timeout(200)
            self.screenshot(f"{stem}_{number:02d}.png")


@pytest.fixture
def lab(browser, server, request):
    """A fresh JupyterLab page; its last sight is kept as a picture, passed or failed."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(TIMEOUT * 1000)
    lab = Lab(context.new_page(), *server)
    yield lab
    lab.screenshot(f"{request.node.name}_end.png")
    context.close()

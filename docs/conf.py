"""How Sphinx builds the web site from what `tools/website.py` laid out. Nothing is executed."""

import hashlib
import json
import sys
from base64 import b64decode
from pathlib import Path

import latex2mathml.converter
from docutils import nodes

SOURCE = Path(__file__).resolve().parent
SETTINGS = json.loads((SOURCE / "settings.json").read_text(encoding="utf-8"))
sys.path.insert(0, SETTINGS["root"])

project = "vaelab"
author = "the vaelab authors"
copyright = "the vaelab authors, MIT licence"
release = SETTINGS["version"]
language = "en"

extensions = ["myst_nb", "sphinx_design", "sphinx.ext.autodoc"]
exclude_patterns = ["_static"]

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True

html_title = "vaelab"
html_math_renderer = "mathml"  # registered below
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "path_to_docs": "",
    "navbar_persistent": [],
    "repository_branch": SETTINGS["branch"],
}
if SETTINGS["repository"]:
    html_theme_options |= {
        "repository_url": f"https://github.com/{SETTINGS['repository']}",
        "use_repository_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }


def alternative_texts():
    """Hash of a picture -> its alternative text, of all pictures in all notebooks."""
    texts = {}
    for path in (SOURCE / "notebooks").rglob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            outputs = [output.get("data", {}) for output in cell.get("outputs", [])]
            pictures = [b64decode(data["image/png"]) for data in outputs if "image/png" in data]
            for picture, text in zip(pictures, cell["metadata"].get("alt", []), strict=False):
                texts[hashlib.sha256(picture).hexdigest()] = text
    return texts


ALTERNATIVE_TEXTS = alternative_texts()


def add_alternative_texts(app, doctree):
    """myst-nb names the file of a picture by its hash."""
    for image in doctree.findall(nodes.image):
        text = ALTERNATIVE_TEXTS.get(Path(image["uri"]).stem)
        if text:
            image["alt"] = text


def inline_formula(self, node):
    """A formula as MathML, which browsers draw without a script."""
    formula = latex2mathml.converter.convert(node.astext())
    self.body.append(f'<span class="inline-formula">{formula}</span>')
    raise nodes.SkipNode


def displayed_formula(self, node):
    """The same on a line of its own."""
    formula = latex2mathml.converter.convert(node.astext(), display="block")
    self.body.append(f'<div class="formula">{formula}</div>')
    raise nodes.SkipNode


def setup(app):
    """Register the alternative texts and the formulas."""
    app.connect("doctree-read", add_alternative_texts)
    app.add_html_math_renderer("mathml", (inline_formula, None), (displayed_formula, None))

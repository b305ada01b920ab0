"""The README's pictures and links inside the repository exist, and every picture says what it shows."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURES = re.findall(r'<img src="([^"]+)"[^>]*?alt="([^"]*)"', TEXT)
PICTURES += [(path, alt) for alt, path in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", TEXT)]


def test_every_picture_exists_and_has_alt_text():
    assert len(PICTURES) >= 7
    assert len(re.findall(r"<img ", TEXT)) == len(re.findall(r'<img src="[^"]+"[^>]*?alt="', TEXT))
    for path, alt in PICTURES:
        assert path.startswith("https://") or (ROOT / path).is_file(), path
        assert path.startswith("https://") or len(alt) > 20, path


def test_every_link_inside_the_repository_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if not link.startswith(("http", "mailto:"))]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_every_notebook_has_a_row():
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"](notebooks/{notebook.name})" in TEXT, notebook.name

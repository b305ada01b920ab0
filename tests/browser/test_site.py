"""The web site: no warning, every link leads somewhere, and it fits on a phone."""

from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

import symptoms
import vaelab
import website

pytestmark = pytest.mark.site
PHONE = {"width": 390, "height": 844}
LOOKED_AT = ("index", "symptoms/all-black", "notebooks/01_loss_scale", "findings", "api", "normal")
WIDTH = "document.documentElement.scrollWidth"


@pytest.fixture(scope="module")
def pages():
    """Path -> parsed HTML of each page of a new build."""
    assert website.main() == 0
    paths = [path for path in website.SITE.rglob("*.html") if "_static" not in path.parts]
    return {path: BeautifulSoup(path.read_text("utf-8"), "html.parser") for path in paths}


def anchors(page):
    """Every anchor of a page."""
    return {tag[key] for key in ("id", "name") for tag in page.find_all(attrs={key: True})}


def internal(page):
    """(address, tag) of whatever a page takes from the site itself, or links there."""
    for tag in page.find_all(["a", "img", "link", "script"]):
        address = tag.get("href") or tag.get("src")
        if address and not address.startswith(("http:", "https:", "mailto:", "data:")):
            yield address


def lost(path, pages):
    """The addresses of one page that lead nowhere."""
    for address in internal(pages[path]):
        parts = urlsplit(address)
        there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not there.is_file():
            yield address
        elif parts.fragment and there in pages and parts.fragment not in anchors(pages[there]):
            yield address


def test_every_link_anchor_and_picture_is_there(pages):
    pages = {path.resolve(): page for path, page in pages.items()}
    missing = {path.name: list(lost(path, pages)) for path in pages}
    assert {name: found for name, found in missing.items() if found} == {}


def test_no_script_style_or_font_comes_from_elsewhere(pages):
    for path, page in pages.items():
        tags = page.find_all("script", src=True) + page.find_all("link", rel="stylesheet")
        outside = [tag.get("src") or tag.get("href") for tag in tags]
        assert [address for address in outside if address.startswith("http")] == [], path.name


def test_every_picture_has_an_alternative_text(pages):
    for path, page in pages.items():
        for image in page.find_all("img"):
            assert len(image.get("alt", "")) > 20, (path.name, image.get("src"))


def test_every_symptom_is_one_click_from_the_front_page(pages):
    front = pages[website.SITE / "index.html"].find("article")
    targets = {unquote(link["href"]) for link in front.find_all("a", href=True)}
    assert {f"symptoms/{name}.html" for name in symptoms.names()} <= targets


def test_every_notebook_is_linked_by_a_symptom(pages):
    linked = set()
    for name in symptoms.names():
        article = pages[website.SITE / "symptoms" / f"{name}.html"].find("article")
        linked |= {unquote(link["href"]) for link in article.find_all("a", href=True)}
    for path in (website.ROOT / "notebooks").glob("*.ipynb"):
        assert f"../notebooks/{path.stem}.html" in linked


def test_setup_cells_are_folded_and_first_minutes_are_there(pages):
    for path in (website.ROOT / "notebooks").glob("*.ipynb"):
        page = pages[website.SITE / "notebooks" / f"{path.stem}.html"]
        assert page.find(id="in-one-minute"), path.name
        folded = page.find("details", class_="hide")
        assert folded and "Setup: run this cell first" in folded.text, path.name


def test_the_package_is_documented(pages):
    page = pages[website.SITE / "api.html"]
    documented = {heading.get_text().removesuffix("#") for heading in page.find_all("h2")}
    assert set(vaelab.__all__) - {"__version__"} <= documented
    assert all(entry.get_text(strip=True) for entry in page.find_all("dd"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", LOOKED_AT)
def test_a_page_fits_on_a_phone_and_asks_nobody_else(name, scheme, pages, browser):
    context = browser.new_context(viewport=PHONE, color_scheme=scheme)
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((website.SITE / f"{name}.html").as_uri())
    assert page.evaluate(WIDTH) <= PHONE["width"]
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    context.close()


def test_no_page_scrolls_sideways_on_a_phone(pages, browser):
    page = browser.new_page(viewport=PHONE)
    wide = []
    for path in pages:
        page.goto(path.as_uri())
        if page.evaluate(WIDTH) > PHONE["width"]:
            wide.append(path.name)
    page.close()
    assert wide == []


def test_the_search_finds_other_words(pages, browser):
    """Without a server the index is read as a script, so this works from a file as well."""
    page = browser.new_page(viewport=PHONE)
    page.goto((website.SITE / "search.html").as_uri() + "?q=grey+blob")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert "same blob" in page.locator("#search-results").inner_text()
    page.close()

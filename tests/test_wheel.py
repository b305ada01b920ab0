"""What a reader installs: the wheel holds everything, and `vaelab.checkup` works from it alone."""

import shutil
import site
import zipfile

import pytest

import links
import release

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of this project, made from its source archive, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(links.ROOT / "vaelab", source / "vaelab")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(links.ROOT / name, source)
    return release.build(folder / "dist", "--no-isolation", root=source)


def test_the_wheel_holds_the_whole_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = links.ROOT / "vaelab"
    sources = [*package.rglob("*.py"), *package.rglob("*.mplstyle")]
    assert names >= {path.relative_to(links.ROOT).as_posix() for path in sources}
    assert "vaelab/clinic/__init__.py" in names and "vaelab/vaelab.mplstyle" in names
    assert not [name for name in names if name.startswith(("tests", "tools", "build"))]


def test_the_wheel_has_the_version_of_the_package(wheel):
    assert wheel.name.split("-")[1] == release.version()


def test_the_checkup_works_from_the_wheel(wheel, tmp_path):
    """In an environment of its own, to which only the dependencies are lent."""
    lent = site.getsitepackages()
    report = release.try_wheel(wheel, tmp_path, "--no-deps", lent=lent)
    assert "serious" in report


def test_change_log_and_citation_name_this_version():
    release.check_version(f"v{release.version()}")
    with pytest.raises(SystemExit, match="the tag is v9, and"):
        release.check_version("v9")


def test_a_version_without_a_change_log_is_refused(tmp_path):
    (tmp_path / "vaelab").mkdir()
    (tmp_path / "vaelab" / "__init__.py").write_text('__version__ = "7.0.0"\n')
    shutil.copy(links.ROOT / "CHANGELOG.md", tmp_path)
    with pytest.raises(SystemExit, match="CHANGELOG.md must have a line '## 7.0.0'"):
        release.check_version("", tmp_path)

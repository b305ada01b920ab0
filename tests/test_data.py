"""Image sets: pixels, subsets, stand-ins, downloads, and every way in which files can be wrong."""

import contextlib
import gzip
import hashlib
import io
import os
import pickle
import struct
import sys
import tarfile
import time

import numpy as np
import pytest
import torch
from misbehaving_server import serve
from PIL import Image
from torchvision import datasets

from vaelab import data
from vaelab.data import load
from vaelab.progress import Progress

RAW_FILES = [file.removesuffix(".gz") for file, _ in datasets.MNIST.resources]


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """An empty data root, the network switched off, no other switch set."""
    for switch in ("VAELAB_DOWNLOAD", "VAELAB_SEED"):
        monkeypatch.delenv(switch, raising=False)
    monkeypatch.setenv("VAELAB_OFFLINE", "1")
    monkeypatch.setenv("VAELAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "data"


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def tiny_mnist(seed=0):
    rng, files = np.random.RandomState(seed), {}
    for split, n in (("train", 40), ("t10k", 20)):
        files[f"{split}-images-idx3-ubyte"] = idx(rng.randint(0, 256, (n, 28, 28), dtype=np.uint8))
        files[f"{split}-labels-idx1-ubyte"] = idx((np.arange(n) % 10).astype(np.uint8))
    return files


def write_raw(root, files, folder="MNIST"):
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for name, content in files.items():
        (raw / name).write_bytes(content)
    return raw


def write_images(folder, n, size=(20, 30), mode="RGB", suffix="png", seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    for i in range(n):
        pixels = np.random.RandomState(seed + i).randint(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.{suffix}")


def own_set(root, name="pets", classes=("cat", "dog"), **options):
    for split, n in (("train", 6), ("test", 3)):
        for label in classes:
            write_images(root / name / split / label, n, **options)
    return root / name


def everything_in(root):
    return sorted(path for path in root.rglob("*") if path.is_file()) if root.exists() else []


# ---- the embedded sets


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("digits", (1, 28, 28), 10), ("photos", (3, 32, 32), 10), ("shapes", (3, 64, 64), 3)],
)
def test_embedded_sets(name, shape, classes, capsys, monkeypatch, root):
    first = load(name, n_train=60, n_test=30)
    monkeypatch.setenv("VAELAB_SEED", "7")
    torch.manual_seed(99)
    again = load(name, n_train=60, n_test=30)
    for x, y, n in ((first.x_train, first.y_train, 60), (first.x_test, first.y_test, 30)):
        assert x.shape == (n, *shape) and x.dtype == torch.float32 and x.is_contiguous()
        assert 0 <= x.min() and x.max() <= 1
        assert y.dtype == torch.int64 and y.bincount().tolist() == [n // classes] * classes
    assert torch.equal(first.x_train, again.x_train) and torch.equal(first.y_test, again.y_test)
    assert len(first.classes) == classes and first.real and first.name == name
    assert capsys.readouterr().out == ""
    assert not root.exists()


@pytest.mark.parametrize("name", ["digits", "photos", "shapes"])
def test_splits_are_disjoint(name):
    images = load(name)
    train = {x.numpy().tobytes() for x in images.x_train}
    assert not train & {x.numpy().tobytes() for x in images.x_test}


def test_shapes_are_drawn_fast_on_a_black_background_and_nested():
    start = time.perf_counter()
    images = load("shapes")
    assert time.perf_counter() - start < 4
    background = (images.x_train.amax(1) == 0).float().mean()
    assert 0.85 < background < 0.92
    assert len(images.x_train) == 2000 and len(images.x_test) == 500
    torch.testing.assert_close(load("shapes", n_train=50).x_train, images.x_train[:50])
    edges = images.x_train[..., [0, -1]].abs().max(), images.x_train[..., [0, -1], :].abs().max()
    assert max(edges) == 0  # every shape lies inside its image


def test_one_line_summary_and_device():
    images = load("digits")
    assert (
        "\n" not in repr(images) and "tensor" not in repr(images) and "1,497 + 300" in repr(images)
    )
    moved = images.to("meta")
    assert moved.x_train.device.type == moved.y_test.device.type == "meta"
    assert images.x_train.device.type == "cpu" and moved.source == images.source


@pytest.mark.parametrize("argument", ["n_train", "n_test", "image_size"])
@pytest.mark.parametrize("value", [0, -3, 2.5, "all"])
def test_bad_counts_are_named(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be a positive whole number.*{value}"):
        load("digits", **{argument: value})


def test_more_than_there_is_and_another_size():
    with pytest.raises(ValueError, match="n_train=5,000 is more than the 1,497"):
        load("digits", n_train=5000)
    assert load("digits", n_train=10, n_test=5, image_size=16).x_test.shape == (5, 1, 16, 16)


# ---- MNIST on disk


def test_mnist_from_disk_is_read_exactly_and_nothing_is_written(root, capsys):
    files = tiny_mnist()
    write_raw(root, files)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    images = load("mnist")
    pixels = np.frombuffer(files["train-images-idx3-ubyte"], np.uint8, offset=16).reshape(
        40, 1, 28, 28
    )
    assert np.array_equal((images.x_train * 255).round().numpy(), pixels)
    assert (
        images.real and images.classes == list("0123456789") and images.y_test.dtype == torch.int64
    )
    assert str(root) not in images.source and "MNIST/raw" in images.source
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert capsys.readouterr().out == ""


def test_fashion_mnist_has_its_own_folder_and_classes(root):
    write_raw(root, tiny_mnist(), "FashionMNIST")
    images = load("fashion-mnist")
    assert images.real and images.classes[9] == "Ankle boot" and len(images.x_train) == 40
    assert not load("mnist").real


def test_subsets_are_balanced_nested_and_independent_of_the_seed(root, monkeypatch):
    write_raw(root, tiny_mnist())
    large = load("mnist", n_train=20, n_test=10)
    monkeypatch.setenv("VAELAB_SEED", "3")
    small = load("mnist", n_train=10)
    assert large.y_train.bincount().tolist() == [2] * 10 and sorted(large.y_test.tolist()) == list(
        range(10)
    )
    assert torch.equal(small.x_train, large.x_train[:10]) and len(small.x_test) == 20
    with pytest.raises(ValueError, match="n_test=21 is more than the 20"):
        load("mnist", n_test=21)


@pytest.mark.parametrize("file", RAW_FILES)
@pytest.mark.parametrize("damage", ["truncated", "longer", "empty", "gzip", "html", "axes"])
def test_a_damaged_file_is_an_error_that_names_it_and_the_cure(root, file, damage):
    raw = write_raw(root, tiny_mnist())
    good = (raw / file).read_bytes()
    (raw / file).write_bytes(
        {
            "truncated": good[:-7],
            "longer": good + b"x",
            "empty": b"",
            "gzip": gzip.compress(good),
            "html": b"<html>" * 100,
            "axes": good[:3] + bytes([2]) + good[4:],
        }[damage]
    )
    with pytest.raises(RuntimeError, match=f"{file} is damaged.*[Dd]elete it"):
        load("mnist")
    (raw / file).write_bytes(good)
    assert load("mnist").real  # the cure works


def test_labels_of_another_split_are_blamed_and_the_cure_names_both_files(root):
    files = tiny_mnist()
    files["train-labels-idx1-ubyte"] = files["t10k-labels-idx1-ubyte"]
    write_raw(root, files)
    blame = "train-labels-idx1-ubyte is damaged: it has 20 labels, .* has 40 images.*both files"
    with pytest.raises(RuntimeError, match=blame):
        load("mnist")


def test_labels_above_nine_are_refused(root):
    files = tiny_mnist()
    files["t10k-labels-idx1-ubyte"] = idx(np.arange(20, dtype=np.uint8))
    write_raw(root, files)
    with pytest.raises(RuntimeError, match="t10k-labels-idx1-ubyte is damaged: it has a label 19"):
        load("mnist")


@pytest.mark.parametrize(("split", "n"), [("train", 40), ("t10k", 20)])
@pytest.mark.parametrize("shape", [(14, 14), (2, 3)])
def test_images_of_another_size_are_refused(root, split, n, shape):
    files = tiny_mnist()
    files[f"{split}-images-idx3-ubyte"] = idx(np.zeros((n, *shape), dtype=np.uint8))
    write_raw(root, files)
    found = f"{shape[0]}x{shape[1]} pixels, those of this set are 28x28"
    with pytest.raises(RuntimeError, match=f"{split}-images-idx3-ubyte is damaged.*{found}"):
        load("mnist")


def test_an_idx_file_that_may_not_be_read_is_named(root, monkeypatch):
    write_raw(root, tiny_mnist())

    def forbid(path, *_):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("torchvision.datasets.mnist.open", forbid, raising=False)
    with pytest.raises(
        RuntimeError, match=r"idx3-ubyte cannot be read \(Permission denied\): allow"
    ):
        load("mnist")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_among_the_idx_files_does_not_hang(root, capsys):
    raw = write_raw(root, tiny_mnist())
    (raw / RAW_FILES[0]).unlink()
    os.mkfifo(raw / RAW_FILES[0])
    assert not load("mnist").real
    assert f"{RAW_FILES[0]} is not in the data folder" in capsys.readouterr().out


# ---- stand-ins and switches


@pytest.mark.parametrize(
    ("name", "stand_in"),
    [("mnist", "digits"), ("fashion-mnist", "digits"), ("cifar10", "photographs")],
)
def test_a_stand_in_says_once_what_why_and_what_instead(name, stand_in, root, capsys):
    images = load(name, n_train=10**9)
    notice = capsys.readouterr().out
    assert notice.count("vaelab:") == 1 and notice.count("\n") == 2
    assert repr(name) in notice and stand_in in notice
    assert "VAELAB_OFFLINE=1" in notice or "download=True" in notice
    assert not images.real and images.name == name and stand_in in images.source
    assert len(images.x_train) > 1000 and everything_in(root) == []
    assert len(load(name, n_train=100, n_test=50).x_test) == 50


def test_offline_wins_over_every_wish_to_download(monkeypatch, capsys):
    monkeypatch.setenv("VAELAB_DOWNLOAD", "1")
    monkeypatch.setattr(data, "_download", lambda *_: pytest.fail("touched the network"))
    for name in ("mnist", "fashion-mnist", "cifar10"):
        assert not load(name, download=True).real
        assert "VAELAB_OFFLINE=1 forbids" in capsys.readouterr().out


def test_cifar_is_downloaded_only_when_asked(monkeypatch, capsys):
    asked = []

    def refuse(request, _):
        asked.append(request.name)
        raise data._Unavailable("refused")

    monkeypatch.delenv("VAELAB_OFFLINE")
    monkeypatch.setattr(data, "_download", refuse)
    load("cifar10")
    load("mnist", download=False)
    assert not asked
    load("cifar10", download=True)
    monkeypatch.setenv("VAELAB_DOWNLOAD", "1")
    load("cifar10")
    load("cifar10", download=False)
    assert asked == ["cifar10", "cifar10"] and "refused" in capsys.readouterr().out


# ---- downloads

FAKE_CHILD = """
import pathlib, sys, urllib.request
raw = pathlib.Path(sys.argv[2], "MNIST", "raw")
raw.mkdir(parents=True)
print("ready", flush=True)
for name in FILES:
    with urllib.request.urlopen(URL + name) as response, open(raw / name, "wb") as file:
        while part := response.read1(1000):
            file.write(part)
            file.flush()
"""


@pytest.fixture
def online(monkeypatch):
    """Tiny MNIST files as a mirror holds them, and the network switched on."""
    monkeypatch.delenv("VAELAB_OFFLINE")
    return {name + ".gz": gzip.compress(content) for name, content in tiny_mnist().items()}


def use_mirrors(monkeypatch, files, *urls):
    """Let torchvision in the child process look for tiny files at these addresses."""
    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in files.items()]
    patch = f"""
from torchvision import datasets
datasets.MNIST.mirrors = {list(urls)!r}
datasets.MNIST.resources = {resources!r}
"""
    monkeypatch.setattr(data, "CHILD", patch + data.CHILD)


def use_fake_child(monkeypatch, files, url):
    """A child without torch, which starts at once."""
    names = f"FILES, URL = {list(files)!r}, {url!r}\n"
    monkeypatch.setattr(data, "CHILD", names + FAKE_CHILD)


def test_torchvision_downloads_from_the_first_mirror_that_delivers(
    online, root, monkeypatch, capsys
):
    """Behind a mirror that forbids, one that drops the connection and one that sends a web page."""
    with contextlib.ExitStack() as stack:
        behaviours = ("forbids", "drops", "wrong", "good")
        servers = [stack.enter_context(serve(behaviour, online)) for behaviour in behaviours]
        use_mirrors(monkeypatch, online, *(server.url for server in servers))
        assert load("mnist").real
    assert capsys.readouterr().out.startswith("downloaded mnist\n")
    assert [path.name for path in everything_in(root)] == sorted(RAW_FILES)
    assert [path.name for path in root.iterdir()] == ["MNIST"]
    monkeypatch.setenv("VAELAB_OFFLINE", "1")
    assert load("mnist").real and capsys.readouterr().out == ""


def test_where_torchvision_gets_nothing_the_stand_in_says_why(online, root, monkeypatch, capsys):
    with serve("wrong", online) as server:
        use_mirrors(monkeypatch, online, server.url)
        assert not load("mnist").real
    notice = capsys.readouterr().out
    assert notice.count("vaelab:") == 1 and notice.count("\n") == 2 and "corrupted" in notice
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("hangs", "nothing came for 1 s"),
        ("stalls", "nothing came for 1 s"),
        ("dribbles_headers", "nothing came for 1 s"),
        ("slow", "it took over 3 s"),
        ("lacks", "HTTP Error 404"),
        ("not_http", "what is this"),
    ],
)
def test_the_time_limits_hold_against_any_server(
    behaviour, reason, online, root, monkeypatch, capsys
):
    monkeypatch.setattr(data, "STALL_LIMIT", 1.0)
    monkeypatch.setattr(data, "TOTAL_LIMIT", 3.0)
    with serve(behaviour, online) as server:
        use_fake_child(monkeypatch, online, server.url)
        start = time.perf_counter()
        assert not load("mnist").real
        assert time.perf_counter() - start < 8
    notice = capsys.readouterr().out
    assert notice.count("vaelab:") == 1 and notice.count("\n") == 2 and reason in notice
    assert list(root.iterdir()) == []


def test_an_existing_file_is_not_replaced_by_a_download(online, root, tmp_path, monkeypatch):
    raw = write_raw(root, tiny_mnist(seed=1))
    (raw / "t10k-labels-idx1-ubyte").unlink()
    before = (raw / "train-images-idx3-ubyte").read_bytes()
    write_raw(tmp_path / "mirror", tiny_mnist())
    mirror = str(tmp_path / "mirror")
    copy = f"shutil.copytree({mirror!r}, sys.argv[2], dirs_exist_ok=True)"
    monkeypatch.setattr(data, "CHILD", f"import shutil, sys\n{copy}")
    assert load("mnist").real
    assert (raw / "train-images-idx3-ubyte").read_bytes() == before
    assert (raw / "t10k-labels-idx1-ubyte").exists()


def test_an_interrupted_download_ends_its_child_and_leaves_nothing(online, root, monkeypatch):
    children = []

    def interrupt(child, *_):
        children.append(child)
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "CHILD", "import time\ntime.sleep(60)")
    monkeypatch.setattr(data, "_wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("mnist")
    assert children[0].returncode is not None
    assert list(root.iterdir()) == []


def test_a_python_that_cannot_be_started_ends_in_the_stand_in(online, root, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", "no-such-python")
    assert not load("mnist").real
    assert "no-such-python" in capsys.readouterr().out and list(root.iterdir()) == []


def test_a_data_root_that_cannot_be_written_ends_in_the_stand_in(
    online, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("VAELAB_DATA", str(tmp_path / "file" / "data"))
    monkeypatch.setattr(data, "_download", lambda *_: pytest.fail("nowhere to keep it"))
    assert not load("mnist").real
    assert str(tmp_path / "file") in capsys.readouterr().out


def test_the_progress_line_shows_bytes_and_leaves_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("vaelab.progress.SECONDS_BETWEEN_UPDATES", 0)
    progress = Progress(None, "downloading mnist")
    progress.update(1_500_000, "1.5 MB on disk")
    progress.close("downloaded mnist")
    lines = [line.strip() for line in capsys.readouterr().out.split("\r")]
    assert [line for line in lines if line] == [
        "downloading mnist: 1.5 MB on disk",
        "downloaded mnist",
    ]
    training = Progress(10, "training")
    training.update(0, "starting")
    training.update(5, "loss 3")
    training.close()
    shown = capsys.readouterr().out
    assert "training: starting" in shown and "training:  50%, about 0 s left loss 3" in shown
    assert not shown.endswith("\n")


# ---- CIFAR-10


@pytest.fixture
def tiny_cifar(monkeypatch):
    """CIFAR-10's archive with 40 + 20 images, and its checksums in torchvision's place."""
    kind, files = datasets.CIFAR10, {}
    for name, n in (("data_batch_1", 40), ("test_batch", 20)):
        pixels = np.random.RandomState(n).randint(0, 256, (n, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": pixels, "labels": [i % 10 for i in range(n)]})
    files["batches.meta"] = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(kind, "train_list", [["data_batch_1", md5["data_batch_1"]]])
    monkeypatch.setattr(kind, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5["batches.meta"]})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{kind.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(buffer.getvalue()).hexdigest())
    return buffer.getvalue()


def test_cifar_downloaded_then_damaged(online, tiny_cifar, root, monkeypatch):
    kind = datasets.CIFAR10
    patch = "from torchvision import datasets\nkind = datasets.CIFAR10\n"
    for name in ("train_list", "test_list", "meta", "tgz_md5"):
        patch += f"kind.{name} = {getattr(kind, name)!r}\n"
    with serve("good", {kind.filename: tiny_cifar}) as server:
        patch += f"kind.url = {server.url + kind.filename!r}\n"
        monkeypatch.setattr(data, "CHILD", patch + data.CHILD)
        images = load("cifar10", download=True)
    assert (
        images.real and images.x_train.shape == (40, 3, 32, 32) and images.classes[3] == "class 3"
    )
    assert images.y_test.bincount().tolist() == [2] * 10
    assert [path.name for path in root.iterdir()] == ["cifar-10-batches-py"]
    assert torch.equal(load("cifar10").x_train, images.x_train)
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(b"half")
    with pytest.raises(RuntimeError, match="test_batch is damaged.*Delete it"):
        load("cifar10")


def test_cifar_archive_fetched_by_hand(tiny_cifar, root):
    root.mkdir()
    archive = root / "cifar-10-python.tar.gz"
    archive.write_bytes(tiny_cifar[:-5])
    with pytest.raises(RuntimeError, match="tar.gz is damaged"):
        load("cifar10")
    archive.write_bytes(tiny_cifar)
    assert load("cifar10", n_train=10).x_train.shape == (10, 3, 32, 32)


def test_known_names_accept_class_folders_in_their_own_format(root):
    own_set(root, "cifar10", size=(32, 32), mode="L", suffix="jpg")
    own_set(root, "mnist", size=(40, 28), suffix="jpg")
    cifar, mnist = load("cifar10"), load("mnist")
    assert cifar.x_train.shape == (12, 3, 32, 32) and mnist.x_test.shape == (6, 1, 28, 28)
    assert cifar.real and mnist.real and "class folders cifar10/train" in cifar.source


# ---- a reader's own folders


def test_own_images_of_any_size_and_mode(root):
    folder = own_set(root, size=(50, 30))
    write_images(folder / "train" / "cat", 2, size=(90, 120), mode="L", seed=50)
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / "cat" / "._000.png").write_bytes(b"left by another system")
    (folder / "train" / "cat" / "notes.txt").write_text("not an image")
    images = load("pets")
    assert images.x_train.shape == (12, 3, 32, 32) and images.classes == ["cat", "dog"]
    assert set(images.y_train[:2].tolist()) == {0, 1}  # not sorted by class
    assert str(root) not in images.source and load("pets", image_size=48).x_test.shape == (
        6,
        3,
        48,
        48,
    )
    assert load("pets", n_train=4).y_train.bincount().tolist() == [2, 2]


@pytest.mark.parametrize(
    ("size", "mode", "shape"),
    [
        ((48, 48), "L", (1, 48, 48)),
        ((64, 64), "RGB", (3, 64, 64)),
        ((65, 65), "RGB", (3, 32, 32)),
        ((48, 40), "L", (1, 32, 32)),
    ],
)
def test_the_default_format(root, size, mode, shape):
    own_set(root, size=size, mode=mode)
    assert load("pets").x_train.shape[1:] == shape


def test_the_crop_is_central_and_keeps_proportions(root):
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = 255  # a white square in the middle third
    for split in ("train", "test"):
        (root / "pets" / split / "a").mkdir(parents=True)
        Image.fromarray(wide).save(root / "pets" / split / "a" / "0.png")
    assert load("pets").x_train[..., 1:-1].min() == 1


def test_transparent_pixels_are_black_and_16_bits_keep_their_scale(root):
    clear = np.full((8, 8, 4), 255, np.uint8)
    clear[:, :4, 3] = 0
    grey = np.full((8, 8), 32768, np.uint16)
    for name, pixels in (("clear", clear), ("grey", grey)):
        for split in ("train", "test"):
            (root / name / split / "a").mkdir(parents=True)
            Image.fromarray(pixels).save(root / name / split / "a" / "0.png")
    x = load("clear").x_train
    assert x[..., :4].max() == 0 and x[..., 4:].min() == 1
    assert load("grey").x_train.unique().tolist() == pytest.approx([128 / 255])
    assert load("grey").x_train.shape == (1, 1, 8, 8)


@pytest.mark.parametrize("name", ["pets", "cifar10"])
def test_unreadable_files_are_all_named(root, name):
    folder = own_set(root, name)
    (folder / "train" / "cat" / "bad.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 of \d+ images cannot be read.*bad\.png"):
        load(name)
    whole = (folder / "train" / "dog" / "000.png").read_bytes()
    (folder / "train" / "cat" / "bad.png").write_bytes(whole[: len(whole) // 2])
    (folder / "train" / "dog" / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"2 of \d+ images cannot be read.*(bad.*half|half.*bad)"):
        load(name)


def test_folders_that_do_not_fit_the_layout(root):
    write_images(root / "half" / "train" / "cat", 2)
    with pytest.raises(
        ValueError, match=r"half.test is missing or has no class folders: images go into"
    ):
        load("half")
    folder = own_set(root)
    (folder / "train" / "empty").mkdir()
    with pytest.raises(ValueError, match=r"without images \(empty\)"):
        load("pets")
    (folder / "train" / "empty").rmdir()
    write_images(folder / "test" / "fish", 1)
    with pytest.raises(ValueError, match="classes that train does not have: fish"):
        load("pets")
    for split in ("train", "test"):
        (root / "bare" / split).mkdir(parents=True)
    with pytest.raises(ValueError, match="bare.train is missing or has no class folders"):
        load("bare")
    (root / "hollow").mkdir()
    with pytest.raises(ValueError, match="hollow.*exists, but holds no train and test folders"):
        load("hollow")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("minst", "mnist"),
        ("MNIST", "mnist"),
        ("FashionMNIST", "fashion-mnist"),
        ("cifar-10", "cifar10"),
        ("shape", "shapes"),
        ("Pet", "pets"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(root, name, nearest):
    own_set(root)
    with pytest.raises(
        ValueError, match=f"unknown image set '{name}'. Did you mean '{nearest}'"
    ) as error:
        load(name)
    assert str(root / name) in str(error.value)


@pytest.mark.parametrize("name", ["", None, ["mnist"], "zzzzzzzz"])
def test_names_that_are_like_no_other(name):
    with pytest.raises(ValueError, match="name must be|Known sets: mnist"):
        load(name)


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/../../x", "/etc", "C:\\x", "..\\x", "a\0b"])
def test_names_that_lead_out_of_the_data_root_are_refused(root, name):
    own_set(root.parent, "x")
    with pytest.raises(ValueError, match="name must be that of a folder inside .*VAELAB_DATA"):
        load(name)


# ---- images whose pixels are not what they seem


def put_everywhere(root, file_name, image, name="pets"):
    for split in ("train", "test"):
        folder = root / name / split / "a"
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / file_name)


@pytest.mark.parametrize(
    ("dtype", "mode"), [(np.float32, "F"), (np.int32, "I"), (np.int16, "I"), (np.uint32, "I")]
)
def test_images_without_a_known_range_are_refused_by_name_and_mode(root, dtype, mode):
    pixels = np.linspace(0, 1000, 64).reshape(8, 8).astype(dtype)
    image = Image.fromarray(pixels.astype(np.float32 if mode == "F" else np.int32))
    put_everywhere(root, "x.tif", image)
    with pytest.raises(ValueError, match=rf"x\.tif \(its pixels have mode {mode}, whose range"):
        load("pets")
    put_everywhere(root, "x.tif", image, "cifar10")
    with pytest.raises(ValueError, match=rf"x\.tif \(its pixels have mode {mode}, whose range"):
        load("cifar10")


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_keep_their_scale(root, suffix):
    pixels = (np.arange(64, dtype=np.uint16) * 1024).reshape(8, 8)
    put_everywhere(root, f"x.{suffix}", Image.fromarray(pixels))
    expected = torch.from_numpy((pixels >> 8).astype(np.float32)) / 255
    assert torch.equal(load("pets").x_train[0, 0], expected)


def test_twelve_bits_in_a_tiff_are_refused(root):
    strip = b"\xff" * 96  # 8 x 8 values of 12 bits
    tags = {256: 8, 257: 8, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: len(strip)}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    header = b"II*\0" + struct.pack("<I", 8 + len(strip))
    content = header + strip + struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    own_set(root, mode="L")
    (root / "pets" / "train" / "cat" / "camera.tif").write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 19 .*camera\.tif \(its pixels have mode I;16"):
        load("pets")


def test_a_gif_is_read_and_a_film_is_refused(root):
    pixels = [np.full((8, 8), value, np.uint8) for value in (0, 255)]
    put_everywhere(root, "x.gif", Image.fromarray(pixels[1]))
    assert load("pets").x_train.min() == 1
    first, second = [Image.fromarray(value) for value in pixels]
    first.save(root / "pets" / "train" / "a" / "film.gif", save_all=True, append_images=[second])
    with pytest.raises(ValueError, match=r"film\.gif \(it holds 2 pictures"):
        load("pets")


def test_files_that_are_left_out_are_counted_aloud(root, capsys):
    folder = own_set(root)
    assert capsys.readouterr().out == ""
    (folder / "train" / "cat" / "a.heic").write_bytes(b"some other format")
    assert len(load("pets").x_train) == 12
    assert "1 files in train/cat have no image suffix and were left out" in capsys.readouterr().out


def test_a_set_of_tiny_images_is_resized(root):
    own_set(root, size=(3, 2))
    images = load("pets")
    assert images.x_train.shape == (12, 3, 32, 32)


# ---- links, pipes and permissions


@pytest.fixture
def eight(root):
    """A set of 8 training images in two classes, and a way to make links, where the system can."""
    for label in ("cat", "dog"):
        write_images(root / "pets" / "train" / label, 4)
        write_images(root / "pets" / "test" / label, 1)

    def link(place, target):
        try:
            (root / "pets" / place).symlink_to(target, target_is_directory=True)
        except OSError:
            pytest.skip("this system makes no links")

    return link


LINKS = [
    ("train/loop", "."),
    ("train/loop", "../train"),
    ("train/again", ".."),
    ("train/again", "../.."),
    ("train/kitten", "cat"),
    ("train/held_out", "../test"),
    ("train/cat/up", ".."),
    ("train/cat/self", "."),
    ("train/cat/root", "../../.."),
    ("train/cat/other", "../dog"),
    ("train/itself", "itself"),
    ("test/train", "../train"),
]


@pytest.mark.parametrize(("place", "target"), LINKS)
def test_links_that_lead_back_into_the_set_are_not_followed(eight, place, target):
    eight(place, target)
    images = load("pets")
    assert len(images.x_train) == 8 and len(images.x_test) == 2
    assert images.classes == ["cat", "dog"]


def test_a_class_folder_may_be_a_link_to_another_place(eight, root, tmp_path):
    write_images(tmp_path / "elsewhere", 5)
    eight("train/bird", tmp_path / "elsewhere")
    eight("train/cat/back", tmp_path / "elsewhere")  # inside a class folder links stay closed
    images = load("pets")
    assert images.classes == ["bird", "cat", "dog"] and len(images.x_train) == 13


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("name", ["pets", "cifar10"])
def test_a_pipe_does_not_hang(root, name):
    folder = own_set(root, name)
    os.mkfifo(folder / "train" / "cat" / "x.png")
    with pytest.raises(ValueError, match=r"x\.png \(it is no regular file\)"):
        load(name)


def test_a_link_to_nowhere_is_named(eight):
    eight("train/cat/gone.png", "nowhere")
    with pytest.raises(ValueError, match=r"gone\.png \(No such file"):
        load("pets")


def forbid(monkeypatch, module, function, part):
    """Let a function of a module refuse every path that contains `part`, as it would for a user."""
    allowed = getattr(module, function)

    def guarded(path, *arguments, **options):
        if part in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return allowed(path, *arguments, **options)

    monkeypatch.setattr(module, function, guarded)


@pytest.mark.parametrize(
    ("function", "place"), [("listdir", "pets"), ("listdir", "train"), ("scandir", "cat")]
)
def test_a_folder_that_may_not_be_read_is_named(root, monkeypatch, function, place):
    folder = own_set(root)
    forbid(monkeypatch, os, function, place)
    hint = r"cannot be read \(Permission denied\): allow this user"
    with pytest.raises(RuntimeError, match=f"{folder.parent}.*{place} {hint}"):
        load("pets")


def test_a_file_that_may_not_be_read_is_named(root, monkeypatch):
    own_set(root)
    forbid(monkeypatch, data.Image, "open", f"dog{os.sep}002")
    with pytest.raises(ValueError, match=r"of 18 images cannot be read.*002\.png \(Permission den"):
        load("pets")


# ---- the table of sets


def test_a_row_in_the_table_is_all_that_a_new_set_needs(root, monkeypatch, capsys):
    row = data.Source(data._idx_files, "digits", (20, 10), ("L", 28), torchvision="KMNIST")
    monkeypatch.setitem(data.SOURCES, "kuzushiji", row)
    assert not load("kuzushiji").real
    assert "'kuzushiji' could not be loaded" in capsys.readouterr().out
    write_raw(root, tiny_mnist(), "KMNIST")
    images = load("kuzushiji")
    assert images.real and images.classes[1] == "ki"
    assert len(images.x_train) == 20 and len(images.x_test) == 10
    assert data.LOADED[-1] == ("kuzushiji", images.source, True)
    with pytest.raises(ValueError, match="Did you mean 'kuzushiji'"):
        load("kuzushij")

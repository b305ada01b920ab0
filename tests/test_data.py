import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import time

import numpy as np
import pytest
import torch
from misbehaving_server import serve
from PIL import Image
from torchvision import datasets

from vaelab import data
from vaelab.data import Scaling, load

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
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


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

@pytest.mark.parametrize(("name", "shape", "classes"), [
    ("digits", (1, 28, 28), 10), ("photos", (3, 32, 32), 10), ("shapes", (3, 64, 64), 3)])
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
    assert "\n" not in repr(images) and "tensor" not in repr(images) and "1,497 + 300" in repr(images)
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
    pixels = np.frombuffer(files["train-images-idx3-ubyte"], np.uint8, offset=16).reshape(40, 1, 28, 28)
    assert np.array_equal((images.x_train * 255).round().numpy(), pixels)
    assert images.real and images.classes == list("0123456789") and images.y_test.dtype == torch.int64
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
    assert large.y_train.bincount().tolist() == [2] * 10 and sorted(large.y_test.tolist()) == list(range(10))
    assert torch.equal(small.x_train, large.x_train[:10]) and len(small.x_test) == 20
    with pytest.raises(ValueError, match="n_test=21 is more than the 20"):
        load("mnist", n_test=21)


@pytest.mark.parametrize("file", RAW_FILES)
@pytest.mark.parametrize("damage", ["truncated", "longer", "empty", "gzip", "html", "axes"])
def test_a_damaged_file_is_an_error_that_names_it_and_the_cure(root, file, damage):
    raw = write_raw(root, tiny_mnist())
    good = (raw / file).read_bytes()
    (raw / file).write_bytes({
        "truncated": good[:-7], "longer": good + b"x", "empty": b"", "gzip": gzip.compress(good),
        "html": b"<html>" * 100, "axes": good[:3] + bytes([2]) + good[4:]}[damage])
    with pytest.raises(RuntimeError, match=f"{file} is damaged.*[Dd]elete it"):
        load("mnist")
    (raw / file).write_bytes(good)
    assert load("mnist").real  # the cure works


def test_images_and_labels_that_do_not_match_are_an_error(root):
    files = tiny_mnist()
    files["train-labels-idx1-ubyte"] = idx(np.zeros(39, dtype=np.uint8))
    write_raw(root, files)
    with pytest.raises(RuntimeError, match="train-images-idx3-ubyte is damaged: it has 40 images.*39 labels"):
        load("mnist")


# ---- stand-ins and switches

@pytest.mark.parametrize(("name", "stand_in"), [
    ("mnist", "digits"), ("fashion-mnist", "digits"), ("cifar10", "photographs")])
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
    monkeypatch.setattr(data, "_fetch", lambda *_: pytest.fail("touched the network"))
    for name in ("mnist", "fashion-mnist", "cifar10"):
        assert not load(name, download=True).real
        assert "VAELAB_OFFLINE=1 forbids" in capsys.readouterr().out


def test_cifar_is_downloaded_only_when_asked(monkeypatch, capsys):
    asked = []

    def refuse(url, *_):
        asked.append(url)
        raise OSError("refused")

    monkeypatch.delenv("VAELAB_OFFLINE")
    monkeypatch.setattr(data, "_fetch", refuse)
    load("cifar10")
    load("mnist", download=False)
    assert not asked
    load("cifar10", download=True)
    monkeypatch.setenv("VAELAB_DOWNLOAD", "1")
    load("cifar10")
    load("cifar10", download=False)
    assert len(asked) == 2 and "refused" in capsys.readouterr().out


# ---- downloads

@pytest.fixture
def online(monkeypatch):
    """Tiny MNIST files with their checksums in torchvision's place, and time limits of about a second."""
    monkeypatch.delenv("VAELAB_OFFLINE")
    files = {name + ".gz": gzip.compress(content) for name, content in tiny_mnist().items()}
    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in files.items()]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    for limit, seconds in (("STALL_LIMIT", 0.5), ("TOTAL_LIMIT", 2.0), ("PATIENCE", 0.3)):
        monkeypatch.setattr(data, limit, seconds)
    return files


BEHAVIOURS = {
    "hangs": "nothing came for 0.5 s", "stalls": "nothing came for 0.5 s",
    "dribbles_headers": "nothing came for 0.5 s", "drops": "connection dropped after",
    "forbids": "HTTP 403", "lacks": "HTTP 404", "not_http": "what is this",
    "wrong": "wrong checksum", "truncated": "wrong checksum", "slow": "too slow"}


@pytest.mark.parametrize(("behaviour", "reason"), BEHAVIOURS.items())
def test_a_misbehaving_server_ends_in_the_stand_in_and_a_clean_cache(
        behaviour, reason, online, root, monkeypatch, capsys):
    with serve(behaviour, online) as bad, serve("good", online) as good:
        monkeypatch.setitem(data.MIRRORS, "mnist", [bad.url])
        start = time.perf_counter()
        assert not load("mnist").real
        assert time.perf_counter() - start < 2.5
        notice = capsys.readouterr().out
        assert notice.count("vaelab:") == 1 and notice.count("\n") == 2 and reason in notice
        assert list(root.iterdir()) == []
        monkeypatch.setitem(data.MIRRORS, "mnist", [bad.url, good.url])  # the next mirror is tried
        assert load("mnist").real
        assert capsys.readouterr().out.startswith("downloaded mnist: 0.0 MB")
    assert [path.name for path in everything_in(root)] == sorted(RAW_FILES)
    monkeypatch.setenv("VAELAB_OFFLINE", "1")
    assert load("mnist").real and capsys.readouterr().out == ""


def test_a_refused_connection_names_its_reason(online, monkeypatch, capsys):
    with serve("good", online) as gone:
        monkeypatch.setitem(data.MIRRORS, "mnist", [gone.url])
    load("mnist")
    assert "refused" in capsys.readouterr().out.lower()


def test_many_slow_mirrors_stay_within_the_limit(online, monkeypatch):
    with serve("hangs", online) as server:
        monkeypatch.setitem(data.MIRRORS, "mnist", [server.url] * 20)
        start = time.perf_counter()
        assert not load("mnist").real
        assert time.perf_counter() - start < 3


def test_only_missing_files_are_downloaded(online, root, monkeypatch):
    raw = write_raw(root, tiny_mnist())
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with serve("good", online) as server:
        monkeypatch.setitem(data.MIRRORS, "mnist", [server.url])
        assert load("mnist").real
        assert server.requests == ["/t10k-labels-idx1-ubyte.gz"]


def test_an_interrupted_download_leaves_nothing(online, root, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "_fetch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("mnist")
    assert list(root.iterdir()) == []


def test_a_data_root_that_cannot_be_written_ends_in_the_stand_in(online, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("VAELAB_DATA", str(tmp_path / "file" / "data"))
    monkeypatch.setattr(data, "_fetch", lambda *_: pytest.fail("downloaded what cannot be kept"))
    assert not load("mnist").real
    assert "the data folder cannot be written" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_root(online, root, monkeypatch, capsys):
    root.mkdir()
    root.chmod(0o500)
    assert not load("mnist").real
    assert "cannot be written (Permission denied)" in capsys.readouterr().out
    root.chmod(0o700)
    write_raw(root, tiny_mnist())
    root.chmod(0o500)
    assert load("mnist").real
    root.chmod(0o700)


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
    with serve("good", {"cifar-10-python.tar.gz": tiny_cifar}) as server:
        monkeypatch.setitem(data.MIRRORS, "cifar10", [server.url])
        images = load("cifar10", download=True)
    assert images.real and images.x_train.shape == (40, 3, 32, 32) and images.classes[3] == "class 3"
    assert images.y_test.bincount().tolist() == [2] * 10
    assert [path.name for path in root.iterdir()] == ["cifar-10-batches-py"]
    assert torch.equal(load("cifar10").x_train, images.x_train)
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(b"half")
    with pytest.raises(RuntimeError, match="cifar-10-batches-py is damaged.*Delete it"):
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
    assert str(root) not in images.source and load("pets", image_size=48).x_test.shape == (6, 3, 48, 48)
    assert load("pets", n_train=4).y_train.bincount().tolist() == [2, 2]


@pytest.mark.parametrize(("size", "mode", "shape"), [
    ((48, 48), "L", (1, 48, 48)), ((64, 64), "RGB", (3, 64, 64)), ((65, 65), "RGB", (3, 32, 32)),
    ((48, 40), "L", (1, 32, 32))])
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
    with pytest.raises(ValueError, match=r"half.test is missing: images go into"):
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
    with pytest.raises(ValueError, match="bare.train has no class folders"):
        load("bare")
    (root / "hollow").mkdir()
    with pytest.raises(ValueError, match="hollow.*exists, but holds no train and test folders"):
        load("hollow")


@pytest.mark.parametrize(("name", "nearest"), [
    ("minst", "mnist"), ("MNIST", "mnist"), ("FashionMNIST", "fashion-mnist"), ("cifar-10", "cifar10"),
    ("shape", "shapes"), ("Pet", "pets")])
def test_an_unknown_name_suggests_the_nearest(root, name, nearest):
    own_set(root)
    with pytest.raises(ValueError, match=f"unknown image set '{name}'; did you mean '{nearest}'") as error:
        load(name)
    assert str(root / name) in str(error.value)


@pytest.mark.parametrize("name", ["", None, ["mnist"], "zzzzzzzz"])
def test_names_that_are_like_no_other(name):
    with pytest.raises(ValueError, match="name must be|Known sets: mnist"):
        load(name)


# ---- scalings

def scalings(x):
    return [Scaling.unit(), Scaling.symmetric(), Scaling.zscore(x), Scaling.zscore(x, per_channel=True)]


@pytest.mark.parametrize("index", range(4))
def test_scalings_have_an_exact_inverse(index):
    x = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = x * torch.tensor([1, 0.5, 0.1])[:, None, None]
    scaling = scalings(x)[index]
    assert (scaling.inverse(scaling(x)) - x).abs().max() < 1e-6
    assert torch.equal(scaling(x), (x - scaling.shift) / scaling.scale)
    ends = scaling(torch.zeros(1, 3, 1, 1)), scaling(torch.ones(1, 3, 1, 1))
    assert torch.equal(scaling.lo.expand(1, 3, 1, 1), ends[0])
    assert torch.equal(scaling.hi.expand(1, 3, 1, 1), ends[1])
    assert scaling.shift.shape == ((1, 3, 1, 1) if index == 3 else ()) and scaling.name in repr(scaling)


def test_the_limits_of_the_fixed_scalings():
    assert (Scaling.unit().lo, Scaling.unit().hi) == (0, 1)
    assert (Scaling.symmetric().lo, Scaling.symmetric().hi) == (-1, 1)


def test_zscore_uses_the_training_images_only():
    x_train, x_test = load("digits").x_train, load("digits").x_test + 5
    scaling = Scaling.zscore(x_train)
    assert scaling.shift.item() == pytest.approx(x_train.double().mean().item(), abs=1e-6)
    assert scaling.scale.item() == pytest.approx(x_train.double().std(correction=0).item(), abs=1e-6)
    assert scaling(x_train).mean().abs() < 1e-5 and scaling(x_test).mean() > 5


def test_zscore_of_a_table():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(100, 4, generator=generator) * torch.tensor([1, 10, 0.1, 3])
    table += torch.tensor([0, 5, -2, 100])
    scaling = Scaling.zscore(table, per_channel=True)
    assert torch.allclose(scaling(table).mean(0), torch.zeros(4), atol=1e-4)
    assert torch.allclose(scaling(table).std(0, correction=0), torch.ones(4), atol=1e-4)
    # exact up to float32's rounding of a column whose values lie near 100
    assert torch.allclose(scaling.inverse(scaling(table)), table, rtol=1e-6, atol=1e-5)


def test_zscore_of_what_cannot_be_scaled():
    x = torch.rand(10, 3, 4, 4)
    x[:, 1] = 0.1
    Scaling.zscore(x)
    with pytest.raises(ValueError, match=r"constant or not finite in channels \[1\]"):
        Scaling.zscore(x, per_channel=True)
    with pytest.raises(ValueError, match="constant or not finite"):
        Scaling.zscore(torch.full((10, 1, 4, 4), 0.1))
    with pytest.raises(ValueError, match=r"x_train must be a tensor.*got \[4, 4, 4\]"):
        Scaling.zscore(torch.rand(4, 4, 4))
    with pytest.raises(ValueError, match="got ImageSet"):
        Scaling.zscore(load("digits"))

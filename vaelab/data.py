"""Image sets in memory, with a visible stand-in when the real one cannot be had, and exact scalings."""

import contextlib
import difflib
import gzip
import hashlib
import math
import numbers
import os
import queue
import struct
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from . import settings

STAND_INS = {"mnist": "digits", "fashion-mnist": "digits", "cifar10": "photos"}
KNOWN = (*STAND_INS, "digits", "photos", "shapes")
DEFAULT_COUNTS = {"cifar10": (10_000, 2_000)}
FOLDER_FORMATS = {"mnist": ("L", 28), "fashion-mnist": ("L", 28), "cifar10": ("RGB", 32)}
SEED = 0  # the data are the same in every run, whatever VAELAB_SEED says

MIRRORS = {
    "mnist": ["https://ossci-datasets.s3.amazonaws.com/mnist/",
              "https://storage.googleapis.com/cvdf-datasets/mnist/"],
    "fashion-mnist": ["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                      "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"],
    "cifar10": ["https://www.cs.toronto.edu/~kriz/"],
}
STALL_LIMIT = 15.0  # seconds without a byte before a mirror is given up
TOTAL_LIMIT = 90.0  # seconds for a whole set
PATIENCE = 5.0  # seconds before the time a file will take is projected
SIZE_LIMIT = 200_000_000  # bytes; no file of these sets is larger


LOADED = []  # (name, source, real) of each set loaded, for the tool that decides whether outputs may be kept


class _Unavailable(Exception):
    """The real set cannot be had; the message says why."""


@dataclass(repr=False, eq=False)
class ImageSet:
    """Images in memory: `x_*` float32 [N, C, H, W] in [0, 1], `y_*` int64 [N].

    `name` is what was asked for, `source` what was loaded, `real` is False for a stand-in.
    """

    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    classes: list[str]
    name: str
    source: str
    real: bool = True

    def to(self, device):
        """A copy of the set with its four tensors on `device`."""
        tensors = ("x_train", "y_train", "x_test", "y_test")
        return replace(self, **{key: getattr(self, key).to(device) for key in tensors})

    def __repr__(self):
        shape = "x".join(str(size) for size in self.x_train.shape[1:])
        kind = "" if self.real else " (stand-in)"
        return f"ImageSet {self.name!r}{kind}: {self.source}; {shape}, {len(self.classes)} classes"


def load(name="mnist", n_train=None, n_test=None, download=None, image_size=None):
    """Load an image set by name as one in-memory `ImageSet`.

    `mnist`, `fashion-mnist` and `cifar10` (10,000 + 2,000 images unless asked otherwise) are read from
    the data root (`$VAELAB_DATA`, else a cache folder) or downloaded, CIFAR-10 only when asked
    (`download=True` or `VAELAB_DOWNLOAD=1`). If that fails, a notice is printed and scikit-learn's digits
    or photographs stand in. `digits`, `photos` and `shapes` need no files. Any other name is a folder of
    the reader's own images, `<data root>/<name>/{train,test}/<class>/*.png|jpg`; known names accept it too.

    Folder images become one channel if every file is stored as grey, else RGB, transparency on black
    (a known name keeps its own format). Their shorter side is resized to `image_size`, then the centre is
    cropped. The default size is 32, or the images' own if all are squares of one size up to 64.

    `n_train` and `n_test` select class-balanced subsets, the same in every run whatever `VAELAB_SEED` is;
    a stand-in gives what it has. `image_size` resizes any set to [C, image_size, image_size].

    Raises ValueError for an unknown name, a bad argument or a folder that does not fit the layout, and
    RuntimeError for a damaged file of a real set.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"name must be the name of an image set such as 'mnist', got {name!r}")
    for argument, value in (("n_train", n_train), ("n_test", n_test), ("image_size", image_size)):
        if value is not None and (not isinstance(value, numbers.Integral) or value < 1):
            raise ValueError(f"{argument} must be a positive whole number or None, got {value!r}")
    asked, default, reason = (n_train, n_test), DEFAULT_COUNTS.get(name, (None, None)), None
    try:
        *splits, classes, what = _find(name, n_train, n_test, download, image_size)
    except _Unavailable as error:
        *splits, classes, what = _EMBEDDED[STAND_INS[name]]()
        asked, default, reason = (None, None), asked, error
    (x_train, y_train), (x_test, y_test) = (
        _select(*splits[i], ("n_train", "n_test")[i], asked[i], default[i], image_size) for i in (0, 1))
    source = f"{len(y_train):,} + {len(y_test):,} images of {what}"
    if reason is not None:
        print(f"vaelab: {name!r} could not be loaded: {reason}.\n        Used instead: {source}.", flush=True)
    LOADED.append((name, source, reason is None))
    return ImageSet(x_train, y_train, x_test, y_test, classes, name, source, real=reason is None)


def _find(name, n_train, n_test, download, image_size):
    """Two splits (images, labels), the classes, and what they are; raises `_Unavailable`."""
    folder = settings.data_root() / name
    if (folder / "train").is_dir() or (folder / "test").is_dir():
        return _class_folders(folder, *FOLDER_FORMATS.get(name, (None, None)), image_size)
    if name == "shapes":
        return _shapes(n_train or 2000, n_test or 500)
    if name in _EMBEDDED:
        return _EMBEDDED[name]()
    if name == "cifar10":
        return _cifar10(settings.download() if download is None else download)
    if name in STAND_INS:
        return _mnist(name, download is None or download)
    raise ValueError(_unknown(name, folder))


def _unknown(name, folder):
    own = [path.parent.name for path in folder.parent.glob("*/train")] if folder.parent.is_dir() else []
    names = {known.lower(): known for known in (*KNOWN, *own)}
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"; did you mean {names[close[0]]!r}?" if close else "."
    state = "exists, but holds no train and test folders" if folder.is_dir() else "does not exist"
    return (f"unknown image set {name!r}{hint} Known sets: {', '.join(names.values())}. Your own images are "
            f"looked for in {folder} ({state}): put them in train/<class>/ and test/<class>/ there.")


def _select(images, labels, argument, asked, default, image_size):
    """The first images of a class-balanced order as float32, or all of them in their own order."""
    if asked is not None and asked > len(labels):
        raise ValueError(f"{argument}={asked:,} is more than the {len(labels):,} images there are; "
                         "ask for fewer, or None for the default")
    n = asked or default or len(labels)
    index = _balanced_order(labels)[:n] if n < len(labels) else torch.arange(len(labels))
    x = images[index]
    x = x.float().div_(255) if x.dtype == torch.uint8 else x
    if image_size is not None and x.shape[-2:] != (image_size, image_size):
        x = F.interpolate(x, (image_size, image_size), mode="bilinear", antialias=True).clamp_(0, 1)
    return x.contiguous(), labels[index]


def _balanced_order(labels):
    """A fixed random order of labels [N] in which every class comes up equally often, as far as it can."""
    # RandomState, because its stream is frozen: the subset is the same under every version of numpy.
    order = np.random.RandomState(SEED).permutation(len(labels))
    shuffled = labels.numpy()[order]
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(shuffled):
        members = shuffled == label
        rank[members] = np.arange(members.sum())
    return torch.from_numpy(order[np.argsort(rank, kind="stable")])


# ---- the sets that need no files

def _digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x = torch.from_numpy(digits.images).float().div(16).unsqueeze(1)
    x = F.interpolate(x, (28, 28), mode="bilinear").clamp_(0, 1)
    y = torch.from_numpy(digits.target).long()
    train, test = train_test_split(np.arange(len(y)), test_size=300, stratify=y.numpy(), random_state=SEED)
    what = "scikit-learn's bundled handwritten digits (8x8, resized to 28x28)"
    return (x[train], y[train]), (x[test], y[test]), [str(digit) for digit in range(10)], what


def _photos():
    from sklearn.datasets import load_sample_images

    china, flower = load_sample_images().images
    classes = [f"{row} {column}" for row in ("top", "bottom") for column in range(1, 6)]
    what = "scikit-learn's two photographs (32x32 crops; one photograph for training, the other for testing)"
    return _crops(china, stride=4), _crops(flower, stride=8), classes, what


def _crops(photo, stride):
    """32x32 crops of a photograph [H, W, 3] at half size; the labels say where, in 2 rows of 5 bins."""
    half = F.avg_pool2d(torch.from_numpy(photo.copy()).permute(2, 0, 1).float().div(255), 2)
    crops = half.unfold(1, 32, stride).unfold(2, 32, stride).permute(1, 2, 0, 3, 4)
    rows, columns = crops.shape[:2]
    labels = (torch.arange(rows) * 2 // rows * 5)[:, None] + torch.arange(columns) * 5 // columns
    order = _balanced_order(labels.flatten())
    return crops.flatten(0, 1)[order], labels.flatten()[order]


_EMBEDDED = {"digits": _digits, "photos": _photos}


def _shapes(n_train, n_test):
    what = "shapes drawn in colour on black (circles, squares and triangles at random poses)"
    return _draw(n_train, SEED + 1), _draw(n_test, SEED + 2), ["circle", "square", "triangle"], what


def _draw(n, seed, size=64):
    """Draw n anti-aliased shapes [n, 3, size, size]; the first m of n are those of a draw of m."""
    area, angle, x, y, hue, light = torch.from_numpy(np.random.RandomState(seed).rand(n, 6)).float().T
    kinds = torch.arange(n) % 3
    sides = torch.tensor([64.0, 4.0, 3.0])[kinds]  # a circle is a polygon with 64 sides
    area = (0.06 + 0.12 * area) * size**2
    radius = (2 * area / (sides * torch.sin(2 * math.pi / sides))).sqrt()  # of the corners
    x, y = (2 + radius + place * (size - 4 - 2 * radius) for place in (x, y))  # inside, with its soft edge
    pixels = torch.arange(size) + 0.5
    dx, dy = pixels[None, None, :] - x[:, None, None], pixels[None, :, None] - y[:, None, None]
    sector = (2 * math.pi / sides)[:, None, None]
    turn = torch.remainder(torch.atan2(dy, dx) + 2 * math.pi * angle[:, None, None], sector)
    reach = torch.hypot(dx, dy) * torch.cos(turn - sector / 2)  # from the centre towards the nearest side
    coverage = (0.5 + radius[:, None, None] * torch.cos(sector / 2) - reach).clamp_(0, 1)
    wheel = 0.5 + 0.5 * torch.cos(2 * math.pi * (hue[:, None] + torch.arange(3) / 3))
    colour = (0.6 + 0.4 * light)[:, None] * wheel
    return colour[:, :, None, None] * coverage[:, None], kinds


# ---- folders of images

def _image_folder(folder):
    """torchvision's `ImageFolder`, without hidden folders and files (`.ipynb_checkpoints`, `._1.jpg`)."""
    from torchvision.datasets import ImageFolder

    class ClassFolders(ImageFolder):
        def find_classes(self, directory):
            classes = _class_names(Path(directory))
            return classes, {label: index for index, label in enumerate(classes)}

    return ClassFolders(str(folder), is_valid_file=_is_image, allow_empty=True)


def _class_names(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")


def _is_image(path):
    from torchvision.datasets.folder import IMG_EXTENSIONS

    return Path(path).suffix.lower() in IMG_EXTENSIONS and not Path(path).name.startswith(".")


class _ImageFiles:
    """Image files decoded on demand: `files[index]` is uint8 [len(index), C, size, size]."""

    def __init__(self, paths, mode, size):
        self.paths, self.mode, self.size = paths, mode, size

    def __getitem__(self, index):
        pixels = _read_all([self.paths[i] for i in index], lambda path: _decode(path, self.mode, self.size))
        x = torch.from_numpy(np.stack(pixels))
        return x.unsqueeze(1) if self.mode == "L" else x.permute(0, 3, 1, 2).contiguous()


def _class_folders(folder, mode, size, image_size):
    """The layout `{train,test}/<class>/*`; `mode` and `size` are None unless the name is known."""
    train, test = _list_images(folder / "train"), _list_images(folder / "test")
    extra = sorted(set(test.classes) - set(train.classes))
    if extra:
        raise ValueError(f"{folder / 'test'} has classes that train does not have: {', '.join(extra)}; "
                         "the class folders of test must be among those of train")
    if mode is None:
        mode, size = _common_format([path for path, _ in train.samples + test.samples])
    splits = []
    for split in (train, test):
        y = torch.tensor([train.class_to_idx[split.classes[label]] for _, label in split.samples])
        order = _balanced_order(y)  # files are listed class by class; the first few should show several
        paths = [split.samples[i][0] for i in order]
        splits.append((_ImageFiles(paths, mode, image_size or size), y[order]))
    what = f"{folder.name!r} (class folders {folder.name}/train and {folder.name}/test)"
    return *splits, train.classes, what


def _list_images(folder):
    layout = f"images go into {folder / '<class>'} as .png or .jpg files, for train and for test"
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing: {layout}")
    if not _class_names(folder):
        raise ValueError(f"{folder} has no class folders: {layout}")
    images = _image_folder(folder)
    filled = {images.classes[label] for _, label in images.samples}
    empty = [label for label in images.classes if label not in filled]
    if empty:
        raise ValueError(f"{folder} has class folders without images ({', '.join(empty)}): {layout}")
    return images


def _common_format(paths):
    """The rule for a reader's own images: ("L" or "RGB", side); see `load`."""
    headers = _read_all(paths, _header)
    grey = all(mode in ("1", "L", "LA") or mode.startswith("I") for mode, _ in headers)
    sizes = {size for _, size in headers}
    width, height = next(iter(sizes))
    kept = len(sizes) == 1 and width == height <= 64
    return "L" if grey else "RGB", width if kept else 32


def _header(path):
    with Image.open(path) as image:
        return image.mode, image.size


def _decode(path, mode, size):
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)  # telephones store photographs sideways
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion may clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    image = image if image.mode == mode else image.convert(mode)
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _read_all(paths, read):
    """`read(path)` for each path; files that cannot be read are named together in one ValueError."""
    results, broken = [], {}
    for path in paths:
        try:
            results.append(read(path))
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and errors of its own
            broken[str(path)] = type(error).__name__
    if broken:
        shown = ", ".join(f"{path} ({error})" for path, error in list(broken.items())[:10])
        more = f" and {len(broken) - 10} more" if len(broken) > 10 else ""
        raise ValueError(f"{len(broken)} of {len(paths)} images cannot be read; delete or replace "
                         f"{shown}{more}")
    return results


# ---- MNIST, Fashion-MNIST and CIFAR-10

def _mnist(name, may_download):
    from torchvision import datasets

    kind = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
    root = settings.data_root()
    raw = root / kind.__name__ / "raw"
    files = {raw / file.removesuffix(".gz"): (file, md5) for file, md5 in kind.resources}
    lengths = {path: _check_idx(path) for path in files if path.exists()}  # torchvision checks nothing
    missing = {path: files[path] for path in files if path not in lengths}
    if missing:
        _require_download(may_download, "it is not in the data folder, and download=False")
        with _workspace(root) as folder:
            bodies = _download(name, dict(missing.values()))
            raw.mkdir(parents=True, exist_ok=True)
            for path, (file, _) in missing.items():
                (folder / path.name).write_bytes(gzip.decompress(bodies[file]))
                os.replace(folder / path.name, path)
        lengths = {path: _check_idx(path) for path in files}
    for path, n in lengths.items():
        labels = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
        if lengths[labels] != n:
            raise _damaged(path, f"it has {n:,} images, {labels.name} has {lengths[labels]:,} labels")
    train, test = (kind(root, train=train) for train in (True, False))
    splits = ((split.data.unsqueeze(1), split.targets.long()) for split in (train, test))
    classes = [label.split(" - ")[0] for label in kind.classes]
    return *splits, classes, f"{kind.__name__} (idx files in {kind.__name__}/raw)"


def _check_idx(path):
    """The number of entries of an idx file; RuntimeError if its header or length is wrong."""
    axes = 3 if "idx3" in path.name else 1
    with open(path, "rb") as file:
        header = file.read(4 + 4 * axes)
    if len(header) < 4 + 4 * axes or header[:4] != bytes([0, 0, 8, axes]):
        raise _damaged(path, "it does not start like an idx file of bytes")
    lengths = struct.unpack(f">{axes}I", header[4:])
    expected, size = len(header) + math.prod(lengths), path.stat().st_size
    if size != expected:
        raise _damaged(path, f"it has {size:,} bytes where its header promises {expected:,}")
    return lengths[0]


def _damaged(path, why):
    return RuntimeError(f"{path} is damaged: {why}. Delete it and load again to download it anew, "
                        "or replace it by a good copy")


def _cifar10(may_download):
    from torchvision.datasets import CIFAR10 as kind
    from torchvision.datasets.utils import check_integrity

    root = settings.data_root()
    folder, archive = root / kind.base_folder, root / kind.filename
    if not folder.is_dir():
        if not archive.exists():
            _require_download(may_download, "it is not in the data folder, and its 170 MB are downloaded "
                                            "only when asked for (download=True or VAELAB_DOWNLOAD=1)")
        elif not check_integrity(archive, kind.tgz_md5):
            raise _damaged(archive, "its checksum is wrong")
        with _workspace(root) as workspace:
            if not archive.exists():
                body = _download("cifar10", {kind.filename: kind.tgz_md5})[kind.filename]
                archive = workspace / kind.filename
                archive.write_bytes(body)
            with tarfile.open(archive) as tar:
                tar.extractall(workspace, filter="data")
            os.replace(workspace / kind.base_folder, folder)
    try:
        train, test = (kind(root, train=train) for train in (True, False))
    except RuntimeError:
        raise _damaged(folder, "a file in it is missing or has a wrong checksum") from None
    splits = ((torch.from_numpy(split.data).permute(0, 3, 1, 2), torch.tensor(split.targets))
              for split in (train, test))
    return *splits, list(train.classes), f"CIFAR-10 (batches in {kind.base_folder})"


# ---- downloads: by hand, because torchvision's has no time limit and hangs behind a firewall

def _require_download(may_download, why_not):
    if settings.offline():
        raise _Unavailable("it is not in the data folder, and VAELAB_OFFLINE=1 forbids downloads")
    if not may_download:
        raise _Unavailable(why_not)


@contextlib.contextmanager
def _workspace(root):
    """A temporary folder beside the data, so that finished files move into place in one step."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root, ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        raise _Unavailable(f"the data folder cannot be written ({error.strerror or error})") from error


def _download(name, files):
    """{file: contents} for {file: md5}, from the first mirrors that deliver; raises `_Unavailable`."""
    started, bodies, reasons = time.monotonic(), {}, []
    with _Progress() as progress:
        for mirror in MIRRORS[name]:
            try:
                for file in [file for file in files if file not in bodies]:
                    bodies[file] = _fetch(mirror + file, files[file], started + TOTAL_LIMIT, progress)
            except Exception as error:  # whatever it is, the next mirror or the stand-in is the answer
                reasons.append(f"{urlsplit(mirror).netloc}: {_explain(error)}")
                continue
            size, seconds = sum(map(len, bodies.values())), time.monotonic() - started
            progress.last = f"downloaded {name}: {size / 1e6:.1f} MB in {seconds:.1f} s"
            return bodies
    raise _Unavailable("the download failed (" + "; ".join(reasons) + "); VAELAB_OFFLINE=1 skips the attempt")


def _explain(error):
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    reason = getattr(error, "reason", error)
    text = getattr(reason, "strerror", None) or str(reason)
    return "".join(letter for letter in text if letter.isprintable()) or type(reason).__name__


def _fetch(url, md5, deadline, progress):
    """The contents of one file; raises OSError if they are late, incomplete or not the expected ones."""
    # A thread reads and this one keeps the time: a socket's timeout covers neither the name lookup,
    # nor several addresses tried in turn, nor headers that come one byte at a time.
    parts, stop = queue.Queue(), threading.Event()
    threading.Thread(target=_receive, args=(url, parts, stop), daemon=True).start()
    file, body = url.rpartition("/")[2], bytearray()
    try:
        size, started = _next_part(parts, deadline), time.monotonic()
        while (part := _next_part(parts, deadline)) is not None:
            body += part
            progress.show(f"downloading {file}: {len(body) / 1e6:.1f} of {size / 1e6:.1f} MB")
            elapsed = time.monotonic() - started
            left = (size - len(body)) * elapsed / len(body)
            if len(body) > SIZE_LIMIT or elapsed > PATIENCE and time.monotonic() + left > deadline:
                raise TimeoutError(f"too slow, {file} alone needs {left:,.0f} s more")
    finally:
        stop.set()
    if len(body) < size:
        raise OSError(f"the connection dropped after {len(body):,} of {size:,} bytes of {file}")
    if hashlib.md5(body, usedforsecurity=False).hexdigest() != md5:
        raise OSError(f"what came is not {file} (wrong checksum)")
    return bytes(body)


def _next_part(parts, deadline):
    wait = min(STALL_LIMIT, max(deadline - time.monotonic(), 0))
    try:
        part = parts.get(timeout=wait)
    except queue.Empty:
        stalled = f"nothing came for {STALL_LIMIT:g} s"
        raise TimeoutError(stalled if wait == STALL_LIMIT else f"over {TOTAL_LIMIT:g} s in all") from None
    if isinstance(part, Exception):
        raise part
    return part


def _receive(url, parts, stop):
    """Put the announced size of `url`, its bytes as they come, and None at the end into the queue `parts`."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "vaelab"})
        with urllib.request.urlopen(request, timeout=2 * STALL_LIMIT) as response:
            parts.put(int(response.headers.get("Content-Length", 0)))
            while not stop.is_set() and (part := response.read1(1 << 16)):
                parts.put(part)
        parts.put(None)
    except Exception as error:  # handed to the waiting thread, which raises it
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        parts.put(error)


class _Progress:
    """One line updated in place, in a notebook or a terminal; elsewhere only `last`, if any, is printed."""

    def __init__(self):
        ipython = sys.modules.get("IPython")
        self.display = ipython.display if ipython and getattr(ipython.get_ipython(), "kernel", None) else None
        self.handle, self.shown, self.last = None, -math.inf, ""

    def show(self, text):
        if time.monotonic() < self.shown + 0.2:
            return
        self.shown = time.monotonic()
        if self.handle:
            self.handle.update({"text/plain": text}, raw=True)
        elif self.display:
            self.handle = self.display.display({"text/plain": text}, raw=True, display_id=True)
        elif sys.stdout.isatty():
            print(f"\r{text:<78}", end="", flush=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.handle:
            self.handle.update({"text/plain": self.last}, raw=True)
            return
        if self.shown > 0 and sys.stdout.isatty():
            print(f"\r{'':<78}\r", end="", flush=True)
        if self.last:
            print(self.last, flush=True)


# ---- scalings

class Scaling:
    """An affine scaling of [0, 1] data with its exact inverse: y = (x - shift) / scale.

    `shift` and `scale` broadcast over [B, C, H, W] (or [N, F] for tabular data). `lo` and `hi` are the
    values that 0 and 1 become, per channel where the scaling is.
    """

    def __init__(self, name, shift, scale):
        self.name = name
        self.shift, self.scale = (torch.as_tensor(value, dtype=torch.float32) for value in (shift, scale))
        self.lo, self.hi = self(torch.tensor(0.0)), self(torch.tensor(1.0))

    @classmethod
    def unit(cls):
        """[0, 1], the data as they are."""
        return cls("[0, 1]", 0.0, 1.0)

    @classmethod
    def symmetric(cls):
        """[-1, 1], the range of a tanh."""
        return cls("[-1, 1]", 0.5, 0.5)

    @classmethod
    def zscore(cls, x_train, per_channel=False):
        """Mean 0 and standard deviation 1 over the training images [N, C, H, W] or a table [N, F].

        `per_channel=True` does it for each channel or column. Raises ValueError if `x_train` has another
        shape, or is constant or not finite (in any channel, if per channel).
        """
        if getattr(x_train, "ndim", None) not in (2, 4):
            got = list(x_train.shape) if isinstance(x_train, torch.Tensor) else type(x_train).__name__
            raise ValueError(f"x_train must be a tensor [N, C, H, W] or [N, F], got {got}")
        dims = [d for d in range(x_train.ndim) if d != 1 or not per_channel]
        scale, shift = torch.std_mean(x_train, dims, correction=0, keepdim=True)
        bad = (x_train.amax(dims, keepdim=True) == x_train.amin(dims, keepdim=True)) | ~scale.isfinite()
        if bad.any():
            where = f" in channels {bad.flatten().nonzero().flatten().tolist()}" if per_channel else ""
            raise ValueError(f"x_train is constant or not finite{where} and cannot be z-scored; "
                             "leave that out, or use Scaling.unit()")
        shift, scale = (value.cpu() if per_channel else value.cpu().squeeze() for value in (shift, scale))
        return cls("z-score per channel" if per_channel else "z-score", shift, scale)

    def __call__(self, x):
        """Scale `x` on its own device."""
        return (x - self.shift.to(x.device)) / self.scale.to(x.device)

    def inverse(self, y):
        """Undo the scaling, on the device of `y`."""
        return y * self.scale.to(y.device) + self.shift.to(y.device)

    def __repr__(self):
        return f"Scaling({self.name})"

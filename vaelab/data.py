"""Image sets in memory, with a visible stand-in where the real one cannot be had.

`SOURCES`, at the end of this file, is the one table of known sets. A row there adds a set.
"""

import contextlib
import difflib
import math
import numbers
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PureWindowsPath

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from . import settings
from .progress import Progress

SEED = 0  # the data are the same in every run, whatever VAELAB_SEED says
STALL_LIMIT = 15.0  # seconds without a byte before a mirror is given up
TOTAL_LIMIT = 90.0  # seconds for a whole set
LOADED = []  # (name, source, real) of each set loaded: tells tools whether outputs may be kept
IMAGE_SUFFIXES = ".bmp .gif .jfif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split()


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
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})

    def __repr__(self):
        shape = "x".join(str(size) for size in self.x_train.shape[1:])
        kind = "" if self.real else " (stand-in)"
        return f"ImageSet {self.name!r}{kind}: {self.source}; {shape}, {len(self.classes)} classes"


@dataclass(frozen=True)
class Source:
    """How a set is read, and what stands in for it.

    `read(request)` returns the training split, the test split, the classes and what they are. A
    split is a pair (images [N, C, H, W], labels [N]). It raises `_Unavailable` where the set cannot
    be had.
    """

    read: Callable
    stand_in: str | None = None
    counts: tuple = (None, None)  # images taken by default; None means all there are
    pixels: tuple = (None, None)  # Pillow's mode and the side in pixels, where they are fixed
    torchvision: str = ""  # the class in torchvision.datasets
    large: bool = False  # over 50 MB: downloaded only when asked for


@dataclass(frozen=True)
class Request:
    """What the caller of `load` asked for."""

    name: str
    source: Source
    counts: tuple
    download: bool | None
    image_size: int | None


class _Unavailable(Exception):
    """The real set cannot be had; the message says why."""


def load(name="mnist", n_train=None, n_test=None, download=None, image_size=None):
    """Load an image set by name as one in-memory `ImageSet`.

    `mnist`, `fashion-mnist` and `cifar10` (10,000 + 2,000 images unless asked otherwise) are read
    from the data root (`$VAELAB_DATA`, else a cache folder) or downloaded by torchvision, CIFAR-10
    only when asked (`download=True` or `VAELAB_DOWNLOAD=1`). If that fails, a notice is printed and
    scikit-learn's digits or photographs stand in. `digits`, `photos` and `shapes` need no files.
    Any other name is a folder of the reader's own images inside the data root,
    `<name>/{train,test}/<class>/*.png`; known names accept class folders too.

    Images of class folders become one channel if every file is stored as grey, else RGB, with
    transparency on black (a known name keeps its own format). Their shorter side is resized to
    `image_size`, then the centre is cropped. The default size is 32, or the images' own if all are
    squares of one size up to 64. Links that lead back into the set are not followed.

    `n_train` and `n_test` select class-balanced subsets, the same in every run whatever
    `VAELAB_SEED` is. A stand-in gives what it has. `image_size` resizes any set to
    [C, image_size, image_size].

    Raises ValueError for an unknown name, a bad argument, a folder that does not fit the layout or
    an image that cannot be read, and RuntimeError for a damaged file of a known set and for files
    and folders that this user may not read.
    """
    _check_name(name)
    for argument, value in (("n_train", n_train), ("n_test", n_test), ("image_size", image_size)):
        if value is not None and (not isinstance(value, numbers.Integral) or value < 1):
            raise ValueError(f"{argument} must be a positive whole number or None, got {value!r}")
    source = SOURCES.get(name, Source(_unknown))
    try:
        images = _load(Request(name, source, (n_train, n_test), download, image_size))
    except PermissionError as error:
        cure = "allow this user to read it, or set VAELAB_DATA to another folder"
        raise RuntimeError(f"{error.filename} cannot be read ({error.strerror}): {cure}") from error
    LOADED.append((name, images.source, images.real))
    return images


def _check_name(name):
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"name must be the name of an image set such as 'mnist', got {name!r}")
    path = PureWindowsPath(name)  # knows both slashes and drives, on every system
    leads_out = path.anchor or ".." in path.parts or not path.parts
    if leads_out or not name.isprintable():
        inside = f"inside {settings.data_root()} (VAELAB_DATA can name another place)"
        raise ValueError(f"name must be that of a folder {inside}, got {name!r}")


def _load(request):
    defaults, reason = request.source.counts, None
    try:
        *splits, classes, what = _find(request)
    except _Unavailable as error:
        *splits, classes, what = SOURCES[request.source.stand_in].read(request)
        defaults, reason = (None, None), error
    tensors = []
    for i, argument in enumerate(("n_train", "n_test")):
        images, labels = splits[i]
        asked = request.counts[i]
        if reason is None and asked is not None and asked > len(labels):
            there = f"{argument}={asked:,} is more than the {len(labels):,} images there are"
            raise ValueError(f"{there}: ask for fewer, or None for the default")
        count = asked or defaults[i] or len(labels)
        tensors += _select(images, labels, count, request.image_size)
    source = f"{len(tensors[1]):,} + {len(tensors[3]):,} images of {what}"
    if reason is not None:
        print(f"vaelab: {request.name!r} could not be loaded: {reason}.")
        print(f"        Used instead: {source}.", flush=True)
    return ImageSet(*tensors, classes, request.name, source, real=reason is None)


def _find(request):
    folder = settings.data_root() / request.name
    if {"train", "test"} & set(_names(folder)):
        return _class_folders(folder, request)
    return request.source.read(request)


def _names(folder):
    """The visible names in a folder, sorted; none where there is no such folder."""
    try:
        names = os.listdir(folder)
    except PermissionError:
        raise
    except OSError:
        return []
    return sorted(name for name in names if not name.startswith(".") and name != "__MACOSX")


def _unknown(request):
    root = settings.data_root()
    own = [path.parent.name for path in root.glob("*/train")]
    names = {name.lower(): name for name in (*SOURCES, *own)}
    close = difflib.get_close_matches(request.name.lower(), names, n=1, cutoff=0.5)
    hint = f" Did you mean {names[close[0]]!r}?" if close else ""
    folder = root / request.name
    state = "exists, but holds no train and test folders" if folder.is_dir() else "does not exist"
    raise ValueError(
        f"unknown image set {request.name!r}.{hint} Known sets: {', '.join(names.values())}. Your "
        f"own images are looked for in {folder} ({state}). Put them in train/<class>/ and "
        "test/<class>/ there."
    )


def _select(images, labels, count, image_size):
    """The first images of a class-balanced order as float32, or all of them in their own order."""
    index = torch.arange(len(labels))
    if count < len(labels):
        index = _balanced_order(labels)[:count]
    x = images[index]
    if x.dtype == torch.uint8:
        x = x.float().div_(255)
    if image_size is not None and x.shape[-2:] != (image_size, image_size):
        x = F.interpolate(x, (image_size, image_size), mode="bilinear", antialias=True).clamp_(0, 1)
    return x.contiguous(), labels[index]


def _balanced_order(labels):
    """A fixed random order of labels [N] in which every class comes up equally often."""
    # RandomState's stream is frozen: the subset is the same under every version of numpy.
    order = np.random.RandomState(SEED).permutation(len(labels))
    shuffled = labels.numpy()[order]
    rank = np.empty(len(labels), dtype=np.int64)  # the how-manieth of its class each one is
    for label in np.unique(shuffled):
        members = shuffled == label
        rank[members] = np.arange(members.sum())
    return torch.from_numpy(order[np.argsort(rank, kind="stable")])


# ---- the sets that need no files


def _digits(_):
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x = torch.from_numpy(digits.images).float().div(16).unsqueeze(1)
    x = F.interpolate(x, (28, 28), mode="bilinear").clamp_(0, 1)
    y = torch.from_numpy(digits.target).long()
    split = {"test_size": 300, "stratify": digits.target, "random_state": SEED}
    train, test = train_test_split(np.arange(len(y)), **split)
    what = "scikit-learn's bundled handwritten digits (8x8, resized to 28x28)"
    classes = [str(digit) for digit in range(10)]
    return (x[train], y[train]), (x[test], y[test]), classes, what


def _photos(_):
    from sklearn.datasets import load_sample_images

    china, flower = load_sample_images().images
    classes = [f"{row} {column}" for row in ("top", "bottom") for column in range(1, 6)]
    use = "32x32 crops; one photograph for training, the other for testing"
    what = f"scikit-learn's two photographs ({use})"
    return _crops(china, stride=4), _crops(flower, stride=8), classes, what


def _crops(photo, stride):
    """32x32 crops of a photograph [H, W, 3] at half size; labels say where, in 2 rows of 5 bins."""
    pixels = torch.from_numpy(photo.copy()).permute(2, 0, 1).float().div(255)
    half = F.avg_pool2d(pixels, 2)
    crops = half.unfold(1, 32, stride).unfold(2, 32, stride)  # [3, rows, columns, 32, 32]
    rows, columns = crops.shape[1:3]
    crops = crops.permute(1, 2, 0, 3, 4).flatten(0, 1)  # [rows * columns, 3, 32, 32]
    row_bin = torch.arange(rows) * 2 // rows
    column_bin = torch.arange(columns) * 5 // columns
    labels = (5 * row_bin[:, None] + column_bin).flatten()
    order = _balanced_order(labels)
    return crops[order], labels[order]


def _shapes(request):
    n_train = request.counts[0] or 2_000
    n_test = request.counts[1] or 500
    what = "shapes drawn in colour on black (circles, squares and triangles at random poses)"
    classes = ["circle", "square", "triangle"]
    return _draw(n_train, SEED + 1), _draw(n_test, SEED + 2), classes, what


def _draw(n, seed, size=64):
    """n anti-aliased shapes [n, 3, size, size]; the first m of n are those of a draw of m."""
    numbers_drawn = torch.from_numpy(np.random.RandomState(seed).rand(n, 6)).float()
    area, angle, x, y, hue, light = numbers_drawn.T[..., None, None]  # each [n, 1, 1]
    kinds = torch.arange(n) % 3
    sides = torch.tensor([64.0, 4.0, 3.0])[kinds][:, None, None]  # a circle has 64 sides
    area = (0.06 + 0.12 * area) * size**2
    corner_radius = (2 * area / (sides * torch.sin(2 * math.pi / sides))).sqrt()
    room = size - 4 - 2 * corner_radius  # a shape stays inside, with its soft edge
    pixels = torch.arange(size) + 0.5
    dx = pixels[None, None, :] - (2 + corner_radius + x * room)
    dy = pixels[None, :, None] - (2 + corner_radius + y * room)
    sector = 2 * math.pi / sides
    turn = torch.remainder(torch.atan2(dy, dx) + 2 * math.pi * angle, sector)
    reach = torch.hypot(dx, dy) * torch.cos(turn - sector / 2)  # towards the nearest side
    coverage = (0.5 + corner_radius * torch.cos(sector / 2) - reach).clamp_(0, 1)
    wheel = 0.5 + 0.5 * torch.cos(2 * math.pi * (hue[..., 0] + torch.arange(3) / 3))
    colour = (0.6 + 0.4 * light[..., 0]) * wheel  # [n, 3]
    return colour[:, :, None, None] * coverage[:, None], kinds


# ---- class folders: torchvision's ImageFolder follows links that loop


@dataclass
class _ImageFiles:
    """Image files decoded on demand: `files[index]` is uint8 [len(index), C, size, size]."""

    paths: list
    mode: str
    size: int

    def __getitem__(self, index):
        paths = [self.paths[i] for i in index]
        pixels = _read_all(paths, partial(_decode, mode=self.mode, size=self.size))
        x = torch.from_numpy(np.stack(pixels))  # [N, H, W] or [N, H, W, 3]
        return x.unsqueeze(1) if self.mode == "L" else x.permute(0, 3, 1, 2).contiguous()


def _class_folders(folder, request):
    """The layout `{train,test}/<class>/*`."""
    train, test = _list_split(folder, "train"), _list_split(folder, "test")
    extra = ", ".join(label for label in test if label not in train)
    if extra:
        raise ValueError(f"{folder / 'test'} has classes that train does not have: {extra}")
    mode, size = request.source.pixels
    if mode is None:
        mode, size = _common_format(sum([*train.values(), *test.values()], []))
    classes, size = list(train), request.image_size or size
    splits = [_file_split(listing, classes, mode, size) for listing in (train, test)]
    what = f"{folder.name!r} (class folders {folder.name}/train and {folder.name}/test)"
    return *splits, classes, what


def _file_split(listing, classes, mode, size):
    """(images, labels) of {class: paths}, in an order whose first few show several classes."""
    paths, labels = [], []
    for label, members in listing.items():
        paths += members
        labels += [classes.index(label)] * len(members)
    labels = torch.tensor(labels)
    order = _balanced_order(labels)
    return _ImageFiles([paths[i] for i in order], mode, size), labels[order]


def _list_split(folder, side):
    """{class: image paths} of one side of a set."""
    split = folder / side
    layout = f"images go into {split / '<class>'} as .png or .jpg files, for train and for test"
    entries = [split / name for name in _names(split)]
    classes = [entry for entry in entries if entry.is_dir() and not _leads_back(entry, folder)]
    if not classes:
        raise ValueError(f"{split} is missing or has no class folders: {layout}")
    listing = {entry.name: _images_below(entry) for entry in classes}
    empty = ", ".join(label for label, paths in listing.items() if not paths)
    if empty:
        raise ValueError(f"{split} has class folders without images ({empty}): {layout}")
    return listing


def _leads_back(entry, folder):
    """Whether an entry is a link to a place in, or above, the set's own train and test folders."""
    target = entry.resolve()
    if target == entry.parent.resolve() / entry.name:
        return False  # it is no link
    splits = [(folder / side).resolve() for side in ("train", "test")]
    return any(target.is_relative_to(split) or split.is_relative_to(target) for split in splits)


def _images_below(top):
    """The image files in a class folder and the folders in it; links to folders stay closed."""
    paths = []
    for folder, _, names in sorted(os.walk(top, onerror=_stop)):
        paths += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    images = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    others = len(paths) - len(images)
    if others:
        where = f"{top.parent.name}/{top.name}"
        print(f"vaelab: {others} files in {where} have no image suffix and were left out.")
    return images


def _stop(error):
    raise error


def _common_format(paths):
    """The rule for a reader's own images: ("L" or "RGB", side); see `load`."""
    headers = _read_all(paths, _header)
    grey = all(mode in ("1", "L", "LA") or mode.startswith("I") for mode, _ in headers)
    sizes = {size for _, size in headers}
    width, height = next(iter(sizes))
    kept = len(sizes) == 1 and width == height <= 64
    return "L" if grey else "RGB", width if kept else 32


def _read_all(paths, read):
    """`read(path)` for each path; files that cannot be read are named in one ValueError."""
    results, broken = [], []
    for path in paths:
        try:
            results.append(read(path))
        except Exception as error:  # Pillow raises OSError, SyntaxError and errors of its own
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            broken.append(f"{path} ({reason})")
    if broken:
        shown = ", ".join(broken[:10]) + (", ..." if len(broken) > 10 else "")
        total = f"{len(broken)} of {len(paths)} images"
        raise ValueError(f"{total} cannot be read. Repair, replace or delete {shown}")
    return results


@contextlib.contextmanager
def _opened(path):
    """The image in a file; raises ValueError where its pixels would not be what they seem."""
    if not path.is_file() and path.exists():  # to open a pipe would be to wait for ever
        raise ValueError("it is no regular file")
    with Image.open(path) as image:
        if not _has_known_range(image):
            why = f"its pixels have mode {image.mode}, whose range is not known"
            raise ValueError(f"{why}: save it with 8 or 16 bits a value")
        # The second picture in a telephone's photograph (MPO) is a small copy.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"it holds {image.n_frames} pictures: save each in its own file")
        yield image


def _has_known_range(image):
    if image.format == "TIFF" and image.mode.startswith("I"):
        bits_per_sample = image.tag_v2.get(258)
        return image.mode != "I" and bits_per_sample == (16,)  # a camera's 12 bits look alike
    return image.mode != "F"


def _header(path):
    with _opened(path) as image:
        return image.mode, image.size


def _decode(path, mode, size):
    with _opened(path) as file:
        image = ImageOps.exif_transpose(file)  # telephones store photographs sideways
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion may clip at 255
        high_bytes = (np.asarray(image) >> 8).clip(0, 255)
        image = Image.fromarray(high_bytes.astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


# ---- MNIST, Fashion-MNIST and CIFAR-10


def _idx_files(request):
    """MNIST, and the sets that are stored as MNIST is."""
    from torchvision import datasets

    kind = getattr(datasets, request.source.torchvision)
    folder = f"{kind.__name__}/raw"
    raw = settings.data_root() / folder
    _fetch_missing([raw / name.removesuffix(".gz") for name, _ in kind.resources], request)
    side, highest = request.source.pixels[1], len(kind.classes) - 1
    splits = [_idx_split(raw, prefix, side, highest) for prefix in ("train", "t10k")]
    classes = [label.split(" - ")[0] for label in kind.classes]
    return *splits, classes, f"{kind.__name__} (idx files in {folder})"


def _idx_split(raw, prefix, side, highest):
    image_file = raw / f"{prefix}-images-idx3-ubyte"
    label_file = raw / f"{prefix}-labels-idx1-ubyte"
    images, labels = _read_idx(image_file, axes=3), _read_idx(label_file, axes=1)
    height, width = images.shape[1:]
    if (height, width) != (side, side):
        why = f"its images are {height}x{width} pixels, those of this set are {side}x{side}"
        raise _damaged(image_file, why)
    if len(labels) != len(images):
        why = f"it has {len(labels):,} labels, {image_file.name} has {len(images):,} images"
        raise _damaged(label_file, why, "both files")  # the labels are wrong, or the images are
    if labels.max() > highest:
        raise _damaged(label_file, f"it has a label {labels.max()}, the highest is {highest}")
    return images.unsqueeze(1), labels.long()


def _read_idx(path, axes):
    """The bytes of one idx file, [N] or [N, H, W]."""
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

    values = None
    with contextlib.suppress(AssertionError, KeyError, RuntimeError, ValueError):
        values = read_sn3_pascalvincent_tensor(str(path))
    if values is None or values.dtype != torch.uint8 or values.ndim != axes:
        raise _damaged(path, f"it is no whole idx file of bytes with {axes} axes")
    return values


def _damaged(path, why, files="it"):
    cure = f"Delete {files} and load again to download anew, or put a good copy there"
    return RuntimeError(f"{path} is damaged: {why}. {cure}")


def _cifar10(request):
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    root = settings.data_root()
    meta = (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
    files = [*CIFAR10.train_list, *CIFAR10.test_list, meta]
    checksums = {root / CIFAR10.base_folder / name: md5 for name, md5 in files}
    archive = root / CIFAR10.filename
    if archive.is_file() and not all(path.is_file() for path in checksums):
        if not check_integrity(archive, CIFAR10.tgz_md5):
            raise _damaged(archive, "its checksum is wrong")
        shutil.unpack_archive(archive, root, filter="data")
    _fetch_missing(checksums, request)
    for path, md5 in checksums.items():
        if not check_integrity(path, md5):
            raise _damaged(path, "its checksum is wrong")
    train, test = CIFAR10(root, train=True), CIFAR10(root, train=False)
    what = f"CIFAR-10 (batches in {CIFAR10.base_folder})"
    return _cifar_split(train), _cifar_split(test), list(train.classes), what


def _cifar_split(split):
    return torch.from_numpy(split.data).permute(0, 3, 1, 2), torch.tensor(split.targets)


# ---- downloads: torchvision has no time limit of its own, so it works in a child process

CHILD = """
import socket, sys
from torchvision import datasets
print("ready", flush=True)  # the time to import torch is no stall
socket.setdefaulttimeout(60)  # should its parent be killed
getattr(datasets, sys.argv[1])(sys.argv[2], download=True)
"""


TEMPORARY = {"prefix": ".download-", "ignore_cleanup_errors": True}


def _fetch_missing(paths, request):
    """Download the set if one of its files is missing; raises `_Unavailable`."""
    missing = [path.name for path in paths if not path.is_file()]
    if not missing:
        return
    why_not = None
    if settings.offline():
        why_not = "VAELAB_OFFLINE=1 forbids downloads"
    elif request.download is False:
        why_not = "download=False"
    elif request.source.large and not (request.download or settings.download()):
        why_not = "it is large: ask for it by download=True or VAELAB_DOWNLOAD=1"
    if why_not:
        raise _Unavailable(f"{missing[0]} is not in the data folder, and {why_not}")
    root = settings.data_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, **TEMPORARY) as folder:
            _download(request, Path(folder))
            _move_missing(Path(folder), root)
    except OSError as error:
        raise _Unavailable(f"the download failed ({error})") from error


def _move_missing(folder, root):
    for path in folder.rglob("*"):
        target = root / path.relative_to(folder)
        if path.is_file() and path.suffix != ".gz" and not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


def _download(request, folder):
    """Let torchvision fill a folder within the time limits; raises `_Unavailable`."""
    command = [sys.executable, "-c", CHILD, request.source.torchvision, str(folder)]
    progress = Progress(None, f"downloading {request.name}")
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            reason = _wait(child, folder, log, progress)
        finally:
            child.kill()
            child.wait()
            progress.close(f"downloaded {request.name}" if child.returncode == 0 else "")
        log.seek(0)
        last_line = log.read().decode(errors="replace").strip().rpartition("\n")[2]
    if child.returncode != 0:
        reason = reason or last_line
        raise _Unavailable(f"the download failed ({reason}), and VAELAB_OFFLINE=1 skips it")


def _wait(child, folder, log, progress):
    """Wait for a child while it writes files or its log; None, or why there is no more waiting."""
    size = 0
    started = grown = time.monotonic()
    while child.poll() is None:
        time.sleep(0.05)
        now = time.monotonic()
        arrived = sum(path.stat().st_size for path in folder.rglob("*"))
        arrived += os.fstat(log.fileno()).st_size
        if arrived > size:
            size, grown = arrived, now
        progress.update(size, f"{size / 1e6:.1f} MB on disk")
        if size and now - grown > STALL_LIMIT:
            return f"nothing came for {STALL_LIMIT:g} s"
        if now - started > TOTAL_LIMIT:
            return f"it took over {TOTAL_LIMIT:g} s"
    return None


# ---- the table of known sets

SOURCES = {
    "mnist": Source(_idx_files, "digits", pixels=("L", 28), torchvision="MNIST"),
    "fashion-mnist": Source(_idx_files, "digits", pixels=("L", 28), torchvision="FashionMNIST"),
    "cifar10": Source(
        _cifar10, "photos", (10_000, 2_000), ("RGB", 32), torchvision="CIFAR10", large=True
    ),
    "digits": Source(_digits),
    "photos": Source(_photos),
    "shapes": Source(_shapes),
}

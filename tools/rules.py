"""What every notebook of the series has, and has not. A rule yields one sentence for each thing wrong."""

import ast
import re
import statistics
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

import links
import notebooks

FAILURE_NOTEBOOKS = ("01", "02", "04", "05")
FAILURE_ARC = (
    "Symptom", "Predict", "Reproduce", "Measure", "Cause", "The usual fix", "The fix that holds",
    "On your own model", "What we now know", "Exercises", "Where this comes from",
)  # fmt: skip
SECTIONS = ("What we now know", "Exercises", "Where this comes from")
MEDIAN_LINES, MOST_LINES, MOST_BYTES = 8, 20, 1_000_000


def code_cells(nb):
    """The code cells with anything in them."""
    return [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]


def is_setup(cell):
    """Whether this is the setup cell."""
    return "setup" in cell.metadata.get("tags", [])


def markdown(nb):
    """All prose, as one text."""
    return "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")


def prose(text):
    """Markdown without code, mathematics and comments."""
    code, comments = (r"(?ms)^ *```.*?^ *```", r"(?s)(`+).+?\1"), (r"(?s)<!--.*?-->",)
    for pattern in (*code, *comments, r"(?s)\$\$.+?\$\$", r"\$[^$\n]+\$"):
        text = re.sub(pattern, " ", text)
    return text


def headings(nb, level):
    """The headings of one level, in order."""
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", markdown(nb))
    return re.findall(rf"(?m)^{'#' * level} +(.+)$", text)


def outputs(nb):
    """Every output with the number of its cell."""
    for index, cell in enumerate(nb.cells):
        for output in cell.get("outputs", []):
            yield index, output


def output_texts(nb):
    """Every text in the outputs with the number of its cell."""
    for index, output in outputs(nb):
        yield index, output.get("text", "")
        for kind, value in output.get("data", {}).items():
            if kind.startswith("text/") or kind == "image/svg+xml":
                yield index, value


def title(nb, path):
    """One `#` title, first of all."""
    if not (nb.cells and nb.cells[0].cell_type == "markdown" and nb.cells[0].source.startswith("# ")):
        yield "the first cell does not start with a `# ` title"
    if len(headings(nb, 1)) != 1:
        yield f"{len(headings(nb, 1))} `#` titles instead of one"


def badge(nb, path):
    """The Colab badge, at the top, leads to this very file (or nowhere while the copy is unstamped)."""
    line = links.colab(links.current(), f"notebooks/{path.name}")
    if f"<!-- colab-badge -->\n{line}" not in markdown(nb):
        yield "no badge of its own: put `<!-- colab-badge -->` under the title, then render (tools/links.py)"
    elif not any("<!-- colab-badge -->" in cell.source for cell in nb.cells[:2]):
        yield "the badge is not at the top"


def setup(nb, path):
    """The first code cell is the setup cell of tools/links.py."""
    cells = code_cells(nb)
    if not (cells and is_setup(cells[0])):
        yield "the first code cell is not tagged `setup`"
    elif cells[0].source != links.setup_cell(links.current()):
        yield "the setup cell is not the one of tools/links.py: `python tools/links.py --render`"


def claims(nb, path):
    """It makes executable claims."""
    if not any(re.search(r"\bclaim\(", cell.source) for cell in code_cells(nb)):
        yield "no `vaelab.claim(...)`"


def predictions(nb, path):
    """It asks for predictions, and folds the answers."""
    asked = [cell for cell in code_cells(nb) if re.search(r"(?m)^prediction\w* = None", cell.source)]
    answers = markdown(nb).count("<details>")
    if not asked:
        yield "no `prediction = None` to fill in"
    if answers < max(1, len(asked)):
        yield f"{answers} folded answers (`<details>`) for {len(asked)} predictions"


def sections(nb, path):
    """The closing sections, and in a failure notebook the whole arc, as `##` headings in order."""
    wanted = FAILURE_ARC if path.name[:2] in FAILURE_NOTEBOOKS else SECTIONS
    found, at = headings(nb, 2), 0
    for start in wanted:
        place = next((i for i in range(at, len(found)) if found[i].startswith(start)), None)
        if place is None:
            elsewhere = any(heading.startswith(start) for heading in found)
            yield f"section {start!r} is {'out of order' if elsewhere else 'missing'}"
        else:
            at = place + 1


def is_one_class_or_loop(source):
    """Whether a cell holds exactly one class, or one training loop (a loop that goes backward)."""
    tree = ast.parse(TransformerManager().transform_cell(source))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    loops = [node for node in ast.walk(tree) if isinstance(node, (ast.For, ast.While))]
    training = [loop for loop in loops if ".backward(" in ast.unparse(loop)]
    inner = [node for loop in training for node in ast.walk(loop) if node is not loop]
    return len(classes) + sum(loop not in inner for loop in training) == 1


def cell_length(nb, path):
    """Short code cells; only one class or one training loop may be longer."""
    cells = [cell for cell in code_cells(nb) if not is_setup(cell)]
    lengths = [len(cell.source.splitlines()) for cell in cells]
    if lengths and statistics.median(lengths) > MEDIAN_LINES:
        yield f"the median code cell has {statistics.median(lengths):g} lines, more than {MEDIAN_LINES}"
    for cell, length in zip(cells, lengths, strict=True):
        if length > MOST_LINES and not is_one_class_or_loop(cell.source):
            yield f"a code cell has {length} lines, more than {MOST_LINES}: {cell.source.splitlines()[0]!r}"


def executed(nb, path):
    """Run once from top to bottom: counts 1 to n, no error, nothing on stderr."""
    counts = [cell.execution_count for cell in code_cells(nb)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"not run from top to bottom: execution counts {counts}"
    for index, output in outputs(nb):
        if output.output_type == "error":
            yield f"cell {index} ends in an error: {output.ename}: {output.evalue}"
        if output.get("name") == "stderr":
            yield f"cell {index} writes to stderr: {output.text[:80]!r}"


def fresh(nb, path):
    """Outputs belong to this code and this package, and come from the real images."""
    found, now = nb.metadata.get("vaelab", {}), notebooks.hashes(nb)
    for name, what in (("code", "its code cells"), ("package", "the vaelab package")):
        if found.get(name) != now[name]:
            yield f"stale: {what} changed since it was run (`make notebooks NB={path.name[:2]}`)"
    for source in found.get("sources", []):
        if not source["real"]:
            yield f"outputs come from a stand-in for {source['name']}"


def metadata(nb, path):
    """Kernel `python3`; no widget state, no execution times, no Colab leftovers."""
    if nb.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernelspec is not python3"
    if "widgets" in nb.metadata:
        yield "widget state in the metadata"
    if any("execution" in cell.metadata for cell in nb.cells):
        yield "execution times in the metadata"
    if "colab" in nb.metadata:
        yield "saved by Colab: `make notebooks` cleans it"


PRIVATE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|work|tmp|Users|var|opt|usr|mnt|content)/|\b[A-Z]:\\")
TIME = re.compile(r"\b20\d\d-\d\d-\d\d\b|\b\d?\d:\d\d:\d\d\b")
DEBRIS = re.compile(r"(?m)\d+%\||\d(?:it/s|s/it)\b|\d s left\b|^starting$|\bHBox\(|\r(?!\n)|\x1b\[\d*A")
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")


def clean_outputs(nb, path):
    """No paths of one machine, no times, no progress-bar debris, no memory addresses, no widgets."""
    kinds = {"an absolute path": PRIVATE_PATH, "a time": TIME, "progress debris": DEBRIS}
    kinds["a memory address"] = ADDRESS
    for index, text in output_texts(nb):
        for kind, pattern in kinds.items():
            if match := pattern.search(text):
                yield f"cell {index} shows {kind}: {match[0]!r}"
    for index, output in outputs(nb):
        if any("widget-view" in kind for kind in output.get("data", {})):
            yield f"cell {index} has a widget output, which nobody can see without its kernel"


def links_are_absolute(nb, path):
    """No relative link or image: they break on Colab."""
    text = prose(markdown(nb))
    kinds = (r"\]\(\s*<?([^)\s>]+)", r"(?:src|href)\s*=\s*[\"']([^\"']+)", r"(?m)^\[[^\]]+\]:\s*(\S+)")
    for target in [target for kind in kinds for target in re.findall(kind, text)]:
        if not re.match(r"https?://|mailto:", target):
            yield f"a relative link or image: {target!r}"


def figures_are_read(nb, path):
    """Every figure is followed by a paragraph."""
    for index, output in outputs(nb):
        if any(kind.startswith("image/") for kind in output.get("data", {})):
            after = nb.cells[index + 1 : index + 2]
            if not (after and after[0].cell_type == "markdown"):
                yield f"no paragraph after the figure of cell {index}"


def calm(nb, path):
    """No sentence ends in an exclamation mark."""
    for match in re.finditer(r"[\w)\"'’”*_.?!]!(?=[\s\"'’”)*_]|$)", prose(markdown(nb))):
        yield f"an exclamation mark: {match.string[max(0, match.start() - 30) : match.end()]!r}"


def size(nb, path):
    """Small enough for GitHub to render."""
    if path.exists() and path.stat().st_size >= MOST_BYTES:
        yield f"{path.stat().st_size:,} bytes, more than {MOST_BYTES:,}"


RULES = (
    title, badge, setup, claims, predictions, sections, cell_length, executed, fresh, metadata, clean_outputs,
    links_are_absolute, figures_are_read, calm, size,
)  # fmt: skip


def broken(nb, path, rules=RULES):
    """Every sentence of every rule about one notebook."""
    return [f"{rule.__name__}: {problem}" for rule in rules for problem in rule(nb, Path(path))]

"""What every notebook of the series has, and has not. A rule yields one sentence a thing wrong."""

import ast
import html
import re
import statistics

from IPython.core.inputtransformer2 import TransformerManager

import links
import notebooks

SECTIONS = (
    "In one minute",
    "See it",
    "The number",
    "Why",
    "The fix",
    "What people try instead",
    "Check your own model",
    "What we now know",
    "Exercises",
    "Going deeper",
)
MAY_LEAVE_OUT_SECTIONS = ("00", "03", "07", "11")
MOST_WORDS = {"fifteen-minute": 1_300, "companion": 2_500}
MOST_SENTENCE, MOST_CODE, MOST_FIGURES, MOST_CLAIMS = 28, 150, 6, 4
MEDIAN_LINES, MOST_LINES, MOST_BYTES = 8, 20, 1_000_000
MOST_FUNCTIONS, MOST_CLASSES = 2, 1
SHORTEST_ALT = 40
FENCED = r"(?ms)^ *```.*?^ *```"


# What a notebook holds


def code_cells(nb):
    """The code cells with anything in them."""
    return [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]


def own_cells(nb):
    """The code cells without the setup cell."""
    return [cell for cell in code_cells(nb) if not notebooks.is_setup(cell)]


def tree(cell):
    """The syntax tree of a code cell, magic lines included."""
    return ast.parse(TransformerManager().transform_cell(cell.source))


def markdown(nb):
    """All markdown, as one text."""
    return "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")


def headings(nb, level):
    """The headings of one level, in order."""
    return re.findall(rf"(?m)^{'#' * level} +(.+)$", re.sub(FENCED, "", markdown(nb)))


def outputs(nb):
    """Every output with the number of its cell."""
    for index, cell in enumerate(nb.cells):
        for output in cell.get("outputs", []):
            yield index, output


def figures(nb):
    """The number of a cell for each picture that it shows."""
    for index, output in outputs(nb):
        if any(kind.startswith("image/") for kind in output.get("data", {})):
            yield index


def output_texts(nb):
    """Every text in the outputs with the number of its cell."""
    for index, output in outputs(nb):
        yield index, output.get("text", "")
        for kind, value in output.get("data", {}).items():
            if kind.startswith("text/") or kind == "image/svg+xml":
                yield index, value


# What its prose says


def prose(text):
    """Markdown without fenced code, HTML and comments; inline code and mathematics are a word."""
    for pattern in (FENCED, r"(?s)<!--.*?-->", r"<[^>\n]+>"):
        text = re.sub(pattern, "\n", text)
    for pattern in (r"(?s)(`+).+?\1", r"(?s)\$\$.+?\$\$", r"\$[^$\n]+\$"):
        text = re.sub(pattern, "code", text)
    return html.unescape(text)


def words(text):
    """The words of a text; a link counts by what it shows, a number is a word."""
    shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.findall(r"\w[\w'’.,-]*", shown)


def sentences(text):
    """The sentences of prose: a list item is its own, a heading, a table and a picture are none."""
    text = re.sub(r"(?m)^ *(?:#|\||!\[).*$", "", text)
    text = re.sub(r"(?m)^ *(?:[-*+]|\d+[.)]) +", "\n", text)
    for block in re.split(r"\n\s*\n", text):
        yield from re.split(r"(?<=[.?!])[*_\"')]*\s+", " ".join(block.split()))


# Rules for every notebook


def title(nb, path):
    """One `#` title, first of all."""
    if not (nb.cells and nb.cells[0].source.startswith("# ")):
        yield "the first cell does not start with a `# ` title"
    if len(headings(nb, 1)) != 1:
        yield f"{len(headings(nb, 1))} `#` titles instead of one"


def badge(nb, path):
    """The Colab badge, at the top, leads to this very file."""
    line = links.badge(path.relative_to(links.ROOT).as_posix(), *links.address())
    if not any(f"<!-- colab-badge -->\n{line}" in cell.source for cell in nb.cells[:2]):
        yield "no badge at the top: put `<!-- colab-badge -->` there, run `tools/links.py --render`"


def setup(nb, path):
    """The first code cell is the setup cell of tools/links.py."""
    cells = code_cells(nb)
    if not (cells and notebooks.is_setup(cells[0])):
        yield "the first code cell is not tagged `setup`"
    elif cells[0].source != links.setup_cell(links.address()[0]):
        yield "not the setup cell of tools/links.py: `python tools/links.py --render` writes it"


def predictions(nb, path):
    """What it asks to predict is answered, folded, and the cell has a tag."""
    asked = [cell for cell in own_cells(nb) if re.search(r"(?m)^prediction\w* = None", cell.source)]
    answers = markdown(nb).count("<details>")
    kind = notebooks.kind(path)
    if not asked and kind != "companion" and path.name[:2] not in MAY_LEAVE_OUT_SECTIONS:
        yield "no `prediction = None` to fill in"
    if answers < len(asked):
        yield f"{answers} folded answers (`<details>`) for {len(asked)} predictions"
    if any("prediction" not in cell.metadata.get("tags", []) for cell in asked):
        yield "a cell with `prediction = None` has no tag `prediction`"


def sections(nb, path):
    """The `##` headings of its kind, in order."""
    found, wanted = headings(nb, 2), list(SECTIONS)
    number = path.name[:2]
    if number in MAY_LEAVE_OUT_SECTIONS:
        wanted = [name for name in SECTIONS if name in found or name == "In one minute"]
    if found != wanted:
        yield f"the sections are {found}, they should be {wanted}"


def is_one_class_or_loop(cell):
    """Whether a cell holds exactly one class, or one training loop (it goes backward)."""
    nodes = list(ast.walk(tree(cell)))
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    loops = [node for node in nodes if isinstance(node, (ast.For, ast.While))]
    training = [loop for loop in loops if ".backward(" in ast.unparse(loop)]
    inner = [node for loop in training for node in ast.walk(loop) if node is not loop]
    return len(classes) + sum(loop not in inner for loop in training) == 1


def cell_length(nb, path):
    """Short code cells; only one class or one training loop may be longer."""
    lengths = [len(cell.source.splitlines()) for cell in own_cells(nb)]
    if lengths and statistics.median(lengths) > MEDIAN_LINES:
        yield f"the median code cell has {statistics.median(lengths):g} lines, not {MEDIAN_LINES}"
    for cell, length in zip(own_cells(nb), lengths, strict=True):
        if length > MOST_LINES and not is_one_class_or_loop(cell):
            yield f"a cell has {length} lines, not {MOST_LINES}: {cell.source.splitlines()[0]!r}"


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
    """Outputs belong to this code and this core, and come from the real images."""
    found, now = nb.metadata.get("vaelab", {}), notebooks.hashes(nb)
    for name, what in (("code", "its code cells"), ("core", "the core of vaelab")):
        if found.get(name) != now[name]:
            yield f"stale: {what} changed since it was run (`make notebooks NB={path.name[:2]}`)"
    for source in found.get("sources", []):
        if not source["real"]:
            yield f"outputs come from a stand-in for {source['name']}"


def metadata(nb, path):
    """Kernel `python3`; no widget state, no execution times, no Colab leftovers."""
    if nb.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernelspec is not python3"
    for name in ("widgets", "colab"):
        if name in nb.metadata:
            yield f"{name} in the metadata: `make notebooks` cleans it"
    if any("execution" in cell.metadata for cell in nb.cells):
        yield "execution times in the metadata"


DEBRIS = re.compile(
    r"(?m)\d+%\||\d(?:it/s|s/it)\b|\d s left\b|^starting$|\bHBox\(|\r(?!\n)|\x1b\[\d*A"
)
UNCLEAN = {
    "an absolute path": re.compile(
        r"(?<![\w.:/-])/(?:home|root|work|tmp|Users|var|opt|usr|mnt|content)/|\b[A-Z]:\\"
    ),
    "a time": re.compile(r"\b20\d\d-\d\d-\d\d\b|\b\d?\d:\d\d:\d\d\b"),
    "progress debris": DEBRIS,
    "a memory address": re.compile(r"\bat 0x[0-9a-fA-F]{6,}"),
}


def clean_outputs(nb, path):
    """No paths of one machine, times, progress-bar debris, memory addresses or widgets."""
    for index, text in output_texts(nb):
        for kind, pattern in UNCLEAN.items():
            if match := pattern.search(text):
                yield f"cell {index} shows {kind}: {match[0]!r}"
    for index, output in outputs(nb):
        if notebooks.WIDGET in output.get("data", {}):
            yield f"cell {index} has a widget output, which nobody can see without its kernel"


def links_are_absolute(nb, path):
    """No relative link or image: they break on Colab."""
    text = re.sub(rf"{FENCED}|`[^`\n]+`|(?s:<!--.*?-->)", " ", markdown(nb))
    kinds = (
        r"\]\(\s*<?([^)\s>]+)",
        r"(?:src|href)\s*=\s*[\"']([^\"']+)",
        r"(?m)^\[[^\]]+\]:\s*(\S+)",
    )
    for target in [target for kind in kinds for target in re.findall(kind, text)]:
        if not re.match(r"https?://|mailto:", target):
            yield f"a relative link or image: {target!r}"


def figures_are_read(nb, path):
    """Every figure is followed by a paragraph."""
    for index in figures(nb):
        after = nb.cells[index + 1 : index + 2]
        is_prose = after and after[0].cell_type == "markdown"
        if not is_prose or after[0].source.startswith("#"):
            yield f"no paragraph after the figure of cell {index}"


def alternative_texts(nb, path):
    """Each picture has a text for readers who do not see it, in the metadata of its cell."""
    for index, cell in enumerate(nb.cells):
        count = list(figures(nb)).count(index)
        texts = cell.metadata.get("alt", [])
        if len(texts) != count or any(len(text) < SHORTEST_ALT for text in texts):
            yield f"cell {index} needs {count} texts under `alt` in its metadata, it has {texts}"


def calm(nb, path):
    """No sentence ends in an exclamation mark."""
    for match in re.finditer(r"[\w)\"'’”*_.?!]!(?=[\s\"'’”)*_]|$)", prose(markdown(nb))):
        yield f"an exclamation mark: {match.string[max(0, match.start() - 30) : match.end()]!r}"


def size(nb, path):
    """Small enough for GitHub to render."""
    if path.exists() and path.stat().st_size >= MOST_BYTES:
        yield f"{path.stat().st_size:,} bytes, more than {MOST_BYTES:,}"


def length(nb, path):
    """As many words of markdown, tables included, as its kind may have."""
    found, most = len(words(prose(markdown(nb)))), MOST_WORDS[notebooks.kind(path)]
    if found > most:
        yield f"{found:,} words, more than {most:,}"


def short_sentences(nb, path):
    """No sentence is too long for a reader in a second language."""
    for sentence in sentences(prose(markdown(nb))):
        if len(words(sentence)) > MOST_SENTENCE:
            yield f"a sentence of {len(words(sentence))} words, not {MOST_SENTENCE}: {sentence!r}"


def no_semicolons(nb, path):
    """No semicolon joins two sentences."""
    for sentence in sentences(prose(markdown(nb))):
        if ";" in sentence:
            yield f"a semicolon: {sentence!r}"


def claims_in(cell):
    """The calls of `claim` in a cell."""
    calls = [node for node in ast.walk(tree(cell)) if isinstance(node, ast.Call)]
    return [call for call in calls if ast.unparse(call.func).split(".")[-1] == "claim"]


def controlled_claims(nb, path):
    """Every claim is also evaluated on a control, where it must not hold."""
    for call in [call for cell in own_cells(nb) for call in claims_in(cell)]:
        if "control" not in [keyword.arg for keyword in call.keywords]:
            yield f"a claim without `control=`: {ast.unparse(call)[:60]}"


# Rules for a fifteen-minute notebook


def few_claims(nb, path):
    """Its claims stand in one cell, and are few."""
    counts = [len(claims_in(cell)) for cell in own_cells(nb) if claims_in(cell)]
    if len(counts) != 1 or counts[0] > MOST_CLAIMS:
        yield f"{sum(counts)} claims in {len(counts)} cells, not 1 to {MOST_CLAIMS} in one cell"


def little_code(nb, path):
    """Few lines of code, functions and classes."""
    lines = [line for cell in own_cells(nb) for line in cell.source.splitlines() if line.strip()]
    if len(lines) > MOST_CODE:
        yield f"{len(lines)} lines of code, more than {MOST_CODE}"
    defined = [node for cell in own_cells(nb) for node in tree(cell).body]
    for kind, most in ((ast.FunctionDef, MOST_FUNCTIONS), (ast.ClassDef, MOST_CLASSES)):
        names = [node.name for node in defined if isinstance(node, kind)]
        # a loss is what such a page is about, and no helper
        names = [name for name in names if not name.endswith("_loss")]
        if len(names) > most:
            yield f"more than {most} of its own: {', '.join(names)}"


def few_figures(nb, path):
    """Few figures."""
    found = len(list(figures(nb)))
    if found > MOST_FIGURES:
        yield f"{found} figures, more than {MOST_FIGURES}"


def own_model(nb, path):
    """The lines for the reader's own model have a tag, by which a test runs them."""
    tagged = [cell for cell in own_cells(nb) if "own-model" in cell.metadata.get("tags", [])]
    if "Check your own model" in headings(nb, 2) and not tagged:
        yield "no code cell with the tag `own-model`"


ALL = (title, badge, setup, predictions, executed, fresh, metadata, clean_outputs)
ALL += (links_are_absolute, figures_are_read, alternative_texts, calm, size)
ALL += (length, short_sentences, no_semicolons, controlled_claims)
RULES = {
    "companion": ALL,
    "fifteen-minute": (
        *(*ALL, sections, cell_length),
        *(few_claims, little_code, few_figures, own_model),
    ),
}


def broken(nb, path, rules=None):
    """Every sentence of every rule about one notebook."""
    rules = rules or RULES[notebooks.kind(path)]
    return [f"{rule.__name__}: {problem}" for rule in rules for problem in rule(nb, path)]

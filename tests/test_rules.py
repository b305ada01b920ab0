"""Every rule fires on a notebook that breaks it, and only then."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import links
import notebooks
import rules

FIGURE = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 640x480 with 1 Axes>"}
ALT = ["Eight pictures in a row, and all of them are black."]
PATHS = {
    "fifteen-minute": links.ROOT / "notebooks" / "98_example.ipynb",
    "companion": links.ROOT / "notebooks" / "deeper" / "98_example_more.ipynb",
}
CORE = notebooks.core_hash()
CLAIM = 'vaelab.claim("it is black", a < 1, control=b < 1)'
SECTION_TEXT = {
    "See it": "What is $n!$ here, and is `a; b != c` so?",
    "Exercises": "![a black image](https://example.org/a.png)",
}


def code(source, *tags, **output):
    """A code cell with one output, if any."""
    outputs = [new_output(**output)] if output else []
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {}, outputs=outputs)


def figure():
    """A code cell that draws, with the text for its picture."""
    cell = code("draw()", output_type="display_data", data=FIGURE)
    cell.metadata["alt"] = ALT
    return cell


def prediction():
    """A prediction and its folded answer."""
    answer = "<details><summary>Answer</summary>\n\nIt is [b](https://example.org/x).\n</details>"
    return [code("prediction = None", "prediction"), new_markdown_cell(answer)]


def example(kind):
    """A notebook of this kind that breaks no rule: title, setup, ..., and last the claim."""
    path = PATHS[kind].relative_to(links.ROOT).as_posix()
    badge = links.badge(path, *links.address())
    cells = [
        new_markdown_cell(f"# Everything is black\n\n<!-- colab-badge -->\n{badge}"),
        code(links.setup_cell(links.address()[0]), "setup"),
        *prediction(),
        figure(),
        new_markdown_cell("Read it from left to right.\n\n| a | b; c |\n| --- | --- |"),
    ]
    if kind == "fifteen-minute":
        for name in rules.SECTIONS:
            cells.append(new_markdown_cell(f"## {name}\n\n{SECTION_TEXT.get(name, 'Text.')}"))
        cells.insert(-3, code("vaelab.checkup(my_model, my_images, my_loss)", "own-model"))
    cells.append(code(CLAIM, output_type="stream", text="holds: 1\n"))
    return finished(new_notebook(cells=cells))


def finished(nb):
    """The notebook as if it had been executed and stamped."""
    for count, cell in enumerate(rules.code_cells(nb), 1):
        cell.execution_count = count
    notebooks.clean(nb)
    nb.metadata["vaelab"] = notebooks.hashes(nb) | {"sources": [{"name": "mnist", "real": True}]}
    return nb


@pytest.mark.parametrize("kind", PATHS)
def test_a_good_notebook_breaks_no_rule(kind):
    nb = example(kind)
    assert notebooks.kind(PATHS[kind]) == kind
    assert rules.broken(nb, PATHS[kind]) == []


# What breaks a rule: each of these changes a good notebook.


def source(index, text):
    return lambda nb: nb.cells[index].update(source=text)


def tags(index, *names):
    return lambda nb: nb.cells[index].metadata.update(tags=list(names))


def prose(text):
    return lambda nb: nb.cells.append(new_markdown_cell(text))


def more_code(*sources):
    return lambda nb: nb.cells.extend(code(text) for text in sources)


def outputs(**output):
    return lambda nb: nb.cells[-1].outputs.append(new_output(**output))


def prints(text):
    return outputs(output_type="stream", text=text)


def shows(**data):
    return outputs(output_type="display_data", data=data)


def meta(**values):
    return lambda nb: nb.metadata.update(values)


def move(index, to):
    return lambda nb: nb.cells.insert(to, nb.cells.pop(index))


def figures(count):
    def change(nb):
        for _ in range(count):
            nb.cells += [figure(), new_markdown_cell("Read.")]

    return change


def lines(count):
    return "\n".join(f"a{number} = {number}" for number in range(count))


LONG = "word " * rules.MOST_SENTENCE + "word."
CASES = [
    ("title", source(0, "Everything is black")),
    ("title", prose("# Another title")),
    ("badge", source(0, "# A title")),
    ("badge", source(0, "# A\n\n<!-- colab-badge -->\n[![Open in Colab](https://y)](https://z)")),
    ("badge", move(0, 4)),
    ("setup", tags(1)),
    ("setup", source(1, "import vaelab")),
    ("predictions", source(3, "It is b.")),
    ("cell_length", more_code(lines(21))),
    ("cell_length", more_code(f"for i in range(3):\n    pass\n{lines(21)}")),
    ("cell_length", more_code(f"class A:\n    pass\nclass B:\n    pass\n{lines(21)}")),
    ("cell_length", more_code(*[lines(9)] * 9)),
    ("clean_outputs", prints("read /home/ann/.cache/vaelab\n")),
    ("clean_outputs", prints("in '/tmp/x'\n")),
    ("clean_outputs", prints("read C:\\Users\\ann\n")),
    ("clean_outputs", prints("on 2026-03-01\n")),
    ("clean_outputs", prints("at 12:03:04\n")),
    ("clean_outputs", prints(" 40%|####      | 2/5\n")),
    ("clean_outputs", prints("training:  40%, about 3 s left\n")),
    ("clean_outputs", shows(**{"text/plain": "starting"})),
    ("clean_outputs", prints("<function f at 0x7f00dead>\n")),
    ("links_are_absolute", prose("see [the next one](01_loss_scale.ipynb)")),
    ("links_are_absolute", prose("![a](../figures/a.png)")),
    ("links_are_absolute", prose('<img alt="a" src="figures/a.png">')),
    ("links_are_absolute", prose("see [it]\n\n[it]: ../README.md")),
    ("figures_are_read", lambda nb: nb.cells.pop(5)),
    ("alternative_texts", lambda nb: nb.cells[4].metadata.pop("alt")),
    ("alternative_texts", lambda nb: nb.cells[4].metadata.update(alt=["a picture"])),
    ("alternative_texts", lambda nb: nb.cells[4].metadata.update(alt=ALT * 2)),
    ("alternative_texts", lambda nb: nb.cells[2].metadata.update(alt=ALT)),
    ("calm", prose("It works! Now the next.")),
    ("calm", prose("**Never!**")),
    ("length", prose("word. " * 2_500)),
    ("short_sentences", prose(LONG)),
    ("short_sentences", prose(f"- {LONG}")),
    ("no_semicolons", prose("It works; now the next.")),
    ("controlled_claims", source(-1, 'vaelab.claim("it is black", True)')),
    ("predictions", tags(2)),
]
FIFTEEN_CASES = [
    ("predictions", source(2, "prediction = 'a'")),
    ("few_claims", source(-1, "a = 1")),
    ("few_claims", more_code(CLAIM)),
    ("few_claims", source(-1, "\n".join([CLAIM] * 5))),
    ("little_code", more_code(*[lines(20)] * 8)),
    ("little_code", more_code("def f():\n    pass\ndef g():\n    pass\ndef h():\n    pass")),
    ("little_code", more_code("class A:\n    pass\nclass B:\n    pass")),
    ("few_figures", figures(6)),
    ("own_model", lambda nb: nb.cells.pop(-5)),
    ("sections", prose("## One more")),
    ("sections", move(-3, 2)),
    ("length", prose("| word " * 1_300)),
]
AFTER_RUN = [
    ("clean_outputs", shows(**{notebooks.WIDGET: {}})),
    ("executed", lambda nb: nb.cells[4].update(execution_count=7)),
    ("executed", lambda nb: nb.cells[4].update(execution_count=None)),
    ("executed", outputs(output_type="error", ename="E", evalue="v", traceback=[])),
    ("executed", outputs(output_type="stream", name="stderr", text="warning")),
    ("fresh", source(4, "draw(2)")),
    ("fresh", lambda nb: nb.metadata["vaelab"].update(core="0")),
    ("fresh", lambda nb: nb.metadata.pop("vaelab")),
    ("fresh", lambda nb: nb.metadata["vaelab"]["sources"][0].update(real=False)),
    ("metadata", lambda nb: nb.metadata["kernelspec"].update(name="venv")),
    ("metadata", meta(widgets={})),
    ("metadata", meta(colab={})),
    ("metadata", lambda nb: nb.cells[1].metadata.update(execution={})),
]


@pytest.fixture(autouse=True)
def core_hash(monkeypatch):
    """The core is hashed once for all cases."""
    monkeypatch.setattr(notebooks, "core_hash", lambda: CORE)


def named(kinds, cases):
    """A test case for each kind and change, with a name that can be read in pytest's output."""
    for kind in kinds:
        for number, (rule, change) in enumerate(cases):
            yield pytest.param(kind, rule, change, id=f"{kind}-{rule}-{number}")


@pytest.mark.parametrize(
    "kind, rule, change",
    [
        *named(["fifteen-minute"], CASES),
        *named(["companion"], [case for case in CASES if case[0] != "cell_length"]),
        *named(["fifteen-minute"], FIFTEEN_CASES),
    ],
)
def test_a_rule_fires(kind, rule, change):
    """The notebook is changed, then executed and stamped: this rule fires and no other."""
    nb = example(kind)
    change(nb)
    found = {problem.partition(":")[0] for problem in rules.broken(finished(nb), PATHS[kind])}
    assert rule in found
    assert found - {rule} <= {"badge", "setup", "figures_are_read", "cell_length", "little_code"}


@pytest.mark.parametrize("rule, change", AFTER_RUN)
def test_a_rule_fires_on_what_was_executed(rule, change):
    nb = example("fifteen-minute")
    change(nb)
    problems = rules.broken(nb, PATHS["fifteen-minute"])
    assert any(problem.startswith(f"{rule}: ") for problem in problems), problems


def test_size(tmp_path):
    big = tmp_path / "99_example.ipynb"
    big.write_bytes(b" " * rules.MOST_BYTES)
    assert list(rules.size(None, big))


def test_some_notebooks_may_leave_out_sections():
    path = PATHS["fifteen-minute"].with_name("00_example.ipynb")
    left = [name for name in rules.SECTIONS if name != "What people try instead"]
    text = "\n\n".join(f"## {name}" for name in left)
    assert list(rules.sections(new_notebook(cells=[new_markdown_cell(text)]), path)) == []
    for name in ("See it", "In one minute"):
        other = text.replace(f"## {name}", "## Somewhere else")
        assert list(rules.sections(new_notebook(cells=[new_markdown_cell(other)]), path))
    without = text.replace("## In one minute", "")  # nobody may leave out this one
    assert list(rules.sections(new_notebook(cells=[new_markdown_cell(without)]), path))


def test_one_class_or_one_training_loop_may_be_long():
    loop = "for epoch in range(2):\n    for batch in data:\n        loss(batch).backward()\n"
    assert rules.is_one_class_or_loop(code("class A:\n    pass\n"))
    assert rules.is_one_class_or_loop(code(loop))
    assert not rules.is_one_class_or_loop(code(loop + loop))
    assert not rules.is_one_class_or_loop(code("%env A=1\nfor i in range(3):\n    print(i)\n"))


# Words and sentences


@pytest.mark.parametrize(
    "text, count",
    [
        ("One two, three.", 3),
        ("The KL of 0.85 nats is 1,300 times `x = y` or $a + b$.", 11),
        ("[a link](https://example.org/of/many/words) here", 3),
        ("| a cell | another |\n| --- | --- |\n", 3),
        ("```python\nx = 1\n```\nIt is <b>so</b>. <!-- not this -->", 3),
        ("the reader's own x &lt; y", 5),
    ],
)
def test_words(text, count):
    assert len(rules.words(rules.prose(text))) == count


def test_sentences():
    text = """# A heading; no sentence

One is here. Is **two?** Three
goes on.
- an item
- another

1. first

| a row; of a table |

![a picture; of it](https://x)

Last, e.g. `a; b`."""
    found = [" ".join(rules.words(sentence)) for sentence in rules.sentences(rules.prose(text))]
    found = [sentence.strip(".") for sentence in found if sentence]
    wanted = ["One is here", "Is two", "Three goes on", "an item", "another", "first"]
    assert found == [*wanted, "Last, e.g", "code"]


def test_claims_are_found_however_they_are_called():
    nb = nbformat.v4.new_notebook(
        cells=[code("claim('a', b)"), code("%env A=1\nvaelab.claim('c', d)")]
    )
    assert [len(rules.claims_in(cell)) for cell in rules.own_cells(nb)] == [1, 1]
    assert len(list(rules.controlled_claims(nb, None))) == 2

"""What this course adds to nbgrader: a hand-in cannot switch its tests off, or stop the others.

Feedback pages leave the hidden tests out.
nbgrader_config.py puts these steps into nbgrader. They run on the teacher's machine only.
"""

import ast
import inspect
import json
import re
import secrets
from textwrap import dedent

from nbclient.util import run_sync
from nbformat.v4 import new_output
from nbgrader import utils
from nbgrader.preprocessors import Execute, NbGraderPreprocessor

START = """
import builtins as {place}
{place}_names = dict(vars({place}))
exec({guard!r}, {place}_names)
{place}.{place} = {place}_names["Guard"](globals())
del {place}_names, {place}
"""
REPLACED = (
    "This notebook replaces {names}, which the tests of this part use. The part gets no marks. "
    "Give your own functions and variables other names."
)

INNER = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)  # own names
HIDDEN = re.compile(r"(?ms)^[^\n]*BEGIN HIDDEN TESTS.*?END HIDDEN TESTS[^\n]*\n?")
COLOUR = re.compile(r"\\u001b\[[0-9;]*m")  # as JSON writes it
LEFT_OUT = "This output is left out, because it shows a hidden test."


class Guard:
    """Every function that the tests rely on, as it was before a hand-in's first cell.

    Its source runs in the kernel of a hand-in, where it is given a copy of Python's own functions,
    since a hand-in can replace those too. So it uses nothing else of this file.
    """

    def __init__(self, namespace):
        import builtins
        import json

        # IPython and torch put others of their own into these places.
        self.moving = {"get_ipython", "input", "display", "manual_seed"}
        self.namespace = namespace
        self.as_text = json.dumps
        self.of_locked_cells = {}  # name -> what a locked cell bound to it
        self.code_of = {}  # function -> its code and its defaults
        public = {name for name in vars(builtins) if not name.startswith("_")}
        hidden = {"__import__", "__build_class__"}
        self.of_python = (public | hidden) - self.moving - set(namespace)
        self.kept = [(owner, *self.snapshot(owner)) for owner in self.owners()]
        for owner, functions, _ in self.kept:
            home = getattr(owner, "__module__", getattr(owner, "__name__", ""))
            if home.startswith("vaelab"):
                self.remember_code(functions.values())

    def owners(self):
        """The modules and classes whose functions are watched, each once."""
        import builtins
        import contextlib
        import io
        import json
        import math
        import secrets
        import sys
        from unittest import mock

        import numpy
        import torch

        import vaelab.plots  # noqa: F401 - it is imported late, and has to be in sys.modules

        own = [module for name, module in sys.modules.items() if name.split(".")[0] == "vaelab"]
        others = [builtins, contextlib, io, json, math, secrets, mock, numpy, torch]
        others += [torch.linalg, torch.nn, torch.nn.functional, torch.nn.init]
        others += [torch.distributions, torch.optim]
        others += [torch.Tensor, torch.nn.Module, torch.Generator]
        for module in own:
            others += [kind for kind in vars(module).values() if isinstance(kind, type)]
        return list({id(owner): owner for owner in [*own, *others]}.values())

    def snapshot(self, owner):
        """The functions of a module or a class, and the names that a class could hide."""
        functions = {name: value for name, value in vars(owner).items() if self.is_trusted(value)}
        functions = {name: value for name, value in functions.items() if name not in self.moving}
        bases = owner.__mro__[1:] if isinstance(owner, type) else ()
        inherited = {name for base in bases for name in vars(base)} - set(vars(owner))
        return functions, inherited

    def is_trusted(self, value):
        """Whether a value is of the kind that tests rely on: something to call, or a module."""
        return callable(value) or type(value).__name__ == "module"

    def remember_code(self, values):
        """A function can be replaced from within, by another code object."""
        for value in values:
            if type(value).__name__ == "function":
                self.code_of[value] = (value.__code__, value.__defaults__, value.__kwdefaults__)

    def learn(self, names):
        """The functions and the data that a locked cell has just made."""
        made = {name: self.namespace[name] for name in names if name in self.namespace}
        self.of_locked_cells.update(made)
        self.remember_code(made.values())
        return ""

    def changed(self):
        """Names of what was replaced, as JSON. All is put back, data of locked cells silently."""
        found = []
        for owner, functions, inherited in self.kept:
            found += self.put_back_in(owner, functions, inherited)
        found += self.put_back_names()
        found += self.put_back_code()
        return self.as_text(found)

    def put_back_in(self, owner, functions, inherited):
        """Put back the functions of one module or class; return the names of those replaced."""
        title = getattr(owner, "__name__", str(owner))
        replaced = [name for name, value in functions.items() if vars(owner).get(name) is not value]
        for name in replaced:
            try:
                setattr(owner, name, functions[name])
            except (AttributeError, TypeError):
                pass
        added = inherited & set(vars(owner))
        for name in added:
            delattr(owner, name)
        return [f"{title}.{name}" for name in [*replaced, *added]]

    def put_back_names(self):
        """Put back what the notebook itself calls otherwise; return the names of functions."""
        found = []
        for name, value in self.of_locked_cells.items():
            if self.namespace.get(name) is not value and self.is_trusted(value):
                found.append(name)
            self.namespace[name] = value
        shadowed = (self.of_python & set(self.namespace)) - set(self.of_locked_cells)
        for name in shadowed:
            if self.is_trusted(self.namespace.pop(name)):
                found.append(name)
        return found

    def put_back_code(self):
        """Put back the code of functions that were changed from within; return their names."""
        found = []
        for function, parts in self.code_of.items():
            if (function.__code__, function.__defaults__, function.__kwdefaults__) != parts:
                found.append(function.__qualname__)
                function.__code__, function.__defaults__, function.__kwdefaults__ = parts
        return found


class DropCopies(NbGraderPreprocessor):
    """Make a plain cell of a copied one.

    nbgrader keeps the last of several cells with one id, and leaves an empty entry in the others,
    on which its later steps stop: for this student, and for all that come after.
    """

    def preprocess_cell(self, cell, resources, cell_index):
        if cell.metadata.get("nbgrader") == {}:
            del cell.metadata["nbgrader"]
            cell.metadata.pop("deletable", None)
            cell.metadata.pop("editable", None)
        return cell, resources


class GuardedExecute(Execute):
    """Run a hand-in, and give no marks for a test whose own functions were replaced."""

    def preprocess(self, nb, resources, km=None):
        self.place = f"guard_{secrets.token_hex(8)}"
        self.guarded = False
        self.found = []
        return super().preprocess(nb, resources, km)

    def preprocess_cell(self, cell, resources, index):
        if not self.guarded:
            self.tell(START.format(place=self.place, guard=inspect.getsource(Guard)))
            self.guarded = True
        if utils.is_grade(cell) and cell.cell_type == "code":
            return self.test_cell(cell, resources, index)
        if not (utils.is_locked(cell) and cell.cell_type == "code"):
            return super().preprocess_cell(cell, resources, index)
        self.found += self.replaced()
        cell, resources = super().preprocess_cell(cell, resources, index)
        self.ask(f"{self.place}.learn({sorted(bound_names(cell.source))})")
        return cell, resources

    def test_cell(self, cell, resources, index):
        """Run a test, unless something that it uses was replaced before or by it."""
        before, self.found = self.found + self.replaced(), []
        if before:
            cell.outputs, cell.execution_count = [refusal(before)], None
            return cell, resources
        cell, resources = super().preprocess_cell(cell, resources, index)
        cell.outputs = in_order(cell.outputs)
        after = self.replaced()
        if after:
            cell.outputs.insert(0, refusal(after))
        return cell, resources

    def replaced(self):
        """The names of what the hand-in has replaced, which is put back."""
        return json.loads(self.ask(f"{self.place}.changed()"))

    def tell(self, code):
        """Run code in the hand-in's kernel, without a trace in its notebook."""
        reply = run_sync(self.reply)(code, {})
        if reply["status"] != "ok":
            raise RuntimeError(f"the grader's own code failed: {reply.get('evalue', reply)}")

    def ask(self, expression):
        """The value of an expression, a text, in the hand-in's kernel."""
        reply = run_sync(self.reply)("", {"answer": expression})
        answer = reply["user_expressions"]["answer"]
        if answer["status"] != "ok":
            raise RuntimeError(f"the grader's own code failed: {answer.get('evalue', answer)}")
        return ast.literal_eval(answer["data"]["text/plain"])

    async def reply(self, code, expressions):
        """What the kernel answers to a request that leaves no trace."""
        request = self.kc.execute(
            code, silent=True, store_history=False, user_expressions=expressions
        )
        while True:
            reply = await self.kc.shell_channel.get_msg(timeout=self.timeout)
            if reply["parent_header"].get("msg_id") == request:
                return reply["content"]


def bound_names(source):
    """The names that a cell's top level defines, imports or assigns."""
    names, waiting = set(), [ast.parse(dedent(source))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
            continue
        if isinstance(node, INNER):
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        waiting += ast.iter_child_nodes(node)
    return names


def in_order(outputs):
    """Errors first, and of several results the last one: nbgrader counts what it meets first."""
    results = [place for place, one in enumerate(outputs) if one.output_type == "execute_result"]
    outputs = [one for place, one in enumerate(outputs) if place not in results[:-1]]
    return sorted(outputs, key=lambda output: output.output_type != "error")


def refusal(names):
    """The output of a test that was refused, which nbgrader counts as a failure."""
    text = REPLACED.format(names=", ".join(sorted(set(names))))
    return new_output("error", ename="ReplacedByTheHandIn", evalue=text, traceback=[text])


class HideTests(NbGraderPreprocessor):
    """Take the hidden tests out of a feedback page: their source, and where they failed.

    Of a test's error only the message is left, since the traceback shows the lines around it.
    """

    def preprocess(self, nb, resources):
        hidden = {line for cell in nb.cells if is_test(cell) for line in hidden_lines(cell.source)}
        for cell in nb.cells:
            if cell.cell_type != "code":
                continue
            if is_test(cell):
                cell.source = HIDDEN.sub("", cell.source)
                cell.outputs = [only_message(output) for output in cell.outputs]
            cell.outputs = [without(hidden, output) for output in cell.outputs]
        return nb, resources


def is_test(cell):
    """Whether this is a cell of tests."""
    return utils.is_grade(cell) and cell.cell_type == "code"


def hidden_lines(source):
    """The lines of a test that a student has not seen, long enough to be known again."""
    lines = [line.strip() for region in HIDDEN.findall(source) for line in region.split("\n")]
    return [line for line in lines if len(line) > 25]


def only_message(output):
    """An error without the lines of code around it."""
    if output.output_type == "error":
        last = (output.evalue.strip() or "no message").split("\n")[-1]
        output.traceback = [f"{output.ename}: {last}"]
        output.evalue = last
    return output


def without(hidden, output):
    """The output, unless it shows a hidden line, for example of a test printed by a student."""
    text = COLOUR.sub("", json.dumps(output, ensure_ascii=False))
    if any(json.dumps(line, ensure_ascii=False)[1:-1] in text for line in hidden):
        return new_output("stream", name="stdout", text=LEFT_OUT)
    return output

"""A copy of a model, and functions that mean the copy where they meant the model."""

import copy
import functools
import types

import torch

LEVELS = 8  # of closures, globals, attributes and containers that are looked into
MOST_VALUES = 1000  # of a container that is looked into


def twin_of(model, *functions):
    """[copy, *functions]: a deep copy of the model, and the functions bound to the copy.

    Of a function its closure, its defaults and the globals that it names are looked into, of other
    things the attributes and items. What does not know the model is given back as it is.
    Raises ValueError if the model cannot be copied.
    """
    known = _tensors_left_by_a_forward(model)
    try:
        twin = copy.deepcopy(model, known)
    except Exception as error:
        raise ValueError(
            "model must be one that copy.deepcopy copies, because a copy is trained. It raised "
            f"{type(error).__name__}: {error}. Delete what the last forward left in the model, or "
            "build a new one: rehearse(build_model(), x, loss)"
        ) from error
    rebinding = _Rebinding(known)
    return [twin, *map(rebinding.of, functions)]


def _tensors_left_by_a_forward(model):
    """id -> a detached copy, of attributes that hang on a graph: deepcopy refuses those."""
    found = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                found[id(value)] = value.detach().clone()
    return found


class _Rebinding:
    """Puts the copy in the place of the model. known: id of a thing -> what stands for it."""

    def __init__(self, known):
        self.known, self.alive = known, []

    def of(self, thing, depth=0):
        """What stands for a thing: the thing itself, if nothing in it knows the model."""
        if id(thing) in self.known:
            return self.known[id(thing)]
        if depth > LEVELS:
            return thing
        self.alive.append(thing)  # an id is of use as long as its thing is there
        self.known[id(thing)] = thing
        self.known[id(thing)] = found = self._rebuilt(thing, depth + 1)
        return found

    def _rebuilt(self, thing, depth):
        if isinstance(thing, types.FunctionType):
            return self._function(thing, depth)
        if isinstance(thing, types.CellType):
            return self._cell(thing, depth)
        if isinstance(thing, types.MethodType):
            owner = self.of(thing.__self__, depth)
            return thing if owner is thing.__self__ else types.MethodType(thing.__func__, owner)
        if isinstance(thing, functools.partial):
            return self._partial(thing, depth)
        if type(thing) in (list, tuple):
            return self._items(thing, depth)
        if isinstance(thing, dict):
            return self._dictionary(thing, depth)
        return self._object(thing, depth)

    def _items(self, things, depth):
        """A list or a tuple, the same one where nothing in it changes."""
        if len(things) > MOST_VALUES:
            return things
        found = [self.of(thing, depth) for thing in things]
        same = all(new is old for new, old in zip(found, things, strict=True))
        return things if same else type(things)(found)

    def _dictionary(self, values, depth):
        """A dictionary, the same one where nothing in it changes."""
        if len(values) > MOST_VALUES:
            return values
        found = {name: self.of(value, depth) for name, value in values.items()}
        changed = {name: new for name, new in found.items() if new is not values[name]}
        return {**values, **changed} if changed else values

    def _partial(self, partial, depth):
        before = (partial.func, partial.args, partial.keywords)
        after = self._items(before, depth)
        if after is before:
            return partial
        function, values, named = after
        return functools.partial(function, *values, **named)

    def _function(self, function, depth):
        code, everything = function.__code__, function.__globals__
        used = {name: everything[name] for name in code.co_names if name in everything}
        before = (used, function.__closure__ or (), function.__defaults__ or ())
        after = self._items(before, depth)
        if after is before:
            return function
        used, closure, defaults = after
        names = {**everything, **used}
        new = types.FunctionType(code, names, function.__name__, defaults or None, closure or None)
        new.__kwdefaults__ = function.__kwdefaults__
        return new

    def _cell(self, cell, depth):
        try:
            contents = cell.cell_contents
        except ValueError:  # a name that is not bound yet
            return cell
        new = self.of(contents, depth)
        return cell if new is contents else types.CellType(new)

    def _object(self, thing, depth):
        """A shallow copy of a thing that holds the model; the thing itself, if it does not."""
        attributes = getattr(thing, "__dict__", None)
        if isinstance(thing, (type, types.ModuleType)) or not isinstance(attributes, dict):
            return thing
        changed = self._dictionary(attributes, depth)
        if changed is attributes:
            return thing
        new = copy.copy(thing)
        new.__dict__.update(changed)
        return new

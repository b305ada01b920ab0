"""Measuring changes nothing: whatever a block of measurements touches is put back, bit by bit."""

import contextlib
import functools
import random
import types

import numpy as np
import torch

DEEPEST = 4  # levels of closures, attributes and partial arguments that are looked into
MOST_VALUES_LOOKED_INTO = 1000  # of a list or a dictionary
CALLABLES = (functools.partial, types.MethodType, types.FunctionType)
LARGEST_TENSOR = 1_000_000  # values; a larger one outside a module is data, not a memory


@contextlib.contextmanager
def measuring(*owners, seed=None):
    """After the block all owners and random states are as before, on exceptions and Ctrl-C too.

    owners: modules, and functions or objects with a memory, such as a loss. Kept of a module: the
    mode of every submodule, parameters, buffers, gradients, hooks and plain attributes. Kept of a
    function: what its closure, its defaults and its `functools.partial` hold. Random states:
    torch, numpy, Python, and generators that an owner holds. seed: sets torch's state in the block.
    Not kept: what an owner changes in a module's globals, in files, or deeper than four levels.
    """
    kept = _Kept()
    for owner in owners:
        kept.keep(owner)
    with keeping_random_states():
        try:
            if seed is not None:
                torch.manual_seed(seed)
            yield
        finally:
            kept.restore()


@contextlib.contextmanager
def keeping_random_states():
    """After the block the random states of torch, numpy and Python are as before."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    mps_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if mps_state is not None:
            torch.mps.set_rng_state(mps_state)


@contextlib.contextmanager
def evaluating(model, *owners, seed=0):
    """`measuring`, with the model in evaluation mode and no gradients."""
    with measuring(model, *owners, seed=seed), torch.no_grad():
        model.eval()
        yield


class _Kept:
    """What was there before: a list of functions, each of which puts one thing back."""

    def __init__(self):
        self.restorers, self.seen, self.modules = [], set(), set()

    def restore(self):
        for put_back in reversed(self.restorers):
            # What cannot be put back must not hide a measurement, nor stop the rest.
            with contextlib.suppress(Exception):
                put_back()

    def keep(self, thing, depth=0):
        """Remember one thing, and what it holds."""
        if thing is None or id(thing) in self.seen or depth > DEEPEST:
            return
        self.seen.add(id(thing))
        if isinstance(thing, torch.nn.Module):
            for module in thing.modules():
                self._keep_module(module, depth)
        elif isinstance(thing, (torch.Tensor, np.ndarray)):
            self._keep_values(thing)
        elif isinstance(thing, (torch.Generator, np.random.Generator, random.Random)):
            self.restorers.append(_restorer_of_generator(thing))
        elif isinstance(thing, CALLABLES):
            self._keep_callable(thing, depth)
        elif isinstance(thing, tuple):
            self._keep_all(thing[:MOST_VALUES_LOOKED_INTO], depth)
        elif isinstance(thing, (dict, list, set)):
            self._keep_container(thing, depth)
        elif not isinstance(thing, (type, types.ModuleType)):
            self._keep_attributes(thing, depth)

    def _keep_all(self, things, depth):
        for thing in things:
            self.keep(thing, depth + 1)

    def _keep_values(self, values):
        if isinstance(values, np.ndarray) and values.size <= LARGEST_TENSOR:
            self.restorers.append(functools.partial(np.copyto, values, values.copy()))
        elif isinstance(values, torch.Tensor) and values.numel() <= LARGEST_TENSOR:
            self.restorers.append(_restorer_of_tensor(values))

    def _keep_module(self, module, depth):
        if id(module) in self.modules:
            return
        self.modules.add(id(module))
        mode = module.training
        self.restorers.append(lambda: setattr(module, "training", mode))
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            self.seen.add(id(tensor))
            self.restorers.append(_restorer_of_tensor(tensor))
        if not isinstance(module, torch.jit.ScriptModule):
            self._keep_attributes(module, depth)

    def _keep_attributes(self, thing, depth):
        attributes = getattr(thing, "__dict__", None)
        if not isinstance(attributes, dict):
            return
        before = dict(attributes)

        def put_back():
            attributes.clear()
            attributes.update(before)

        self.restorers.append(put_back)
        self._keep_all(before.values(), depth)

    def _keep_container(self, container, depth):
        plain = next(kind for kind in (dict, list, set) if isinstance(container, kind))
        before = plain(container)

        def put_back():
            if isinstance(container, list):
                container[:] = before
                return
            container.clear()
            container.update(before)

        self.restorers.append(put_back)
        if len(before) <= MOST_VALUES_LOOKED_INTO:
            self._keep_all(before.values() if isinstance(before, dict) else before, depth)

    def _keep_callable(self, thing, depth):
        if isinstance(thing, functools.partial):
            self._keep_all([thing.func, *thing.args, *thing.keywords.values()], depth)
        elif isinstance(thing, types.MethodType):
            self._keep_all([thing.__self__, thing.__func__], depth)
        else:
            self._keep_function(thing, depth)

    def _keep_function(self, function, depth):
        self._keep_all([*(function.__defaults__ or ()), function.__dict__], depth)
        self._keep_all((function.__kwdefaults__ or {}).values(), depth)
        for cell in function.__closure__ or ():
            try:
                contents = cell.cell_contents
            except ValueError:  # a name that is not bound yet
                continue
            self.restorers.append(functools.partial(setattr, cell, "cell_contents", contents))
            self.keep(contents, depth + 1)


def _restorer_of_tensor(tensor):
    """What puts back a tensor's values and its gradient."""
    if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
        return lambda: None
    value, gradient = tensor.detach().clone(), tensor.grad if tensor.is_leaf else None
    gradient_value = None if gradient is None else gradient.detach().clone()

    def put_back():
        _write(tensor, value)
        if tensor.is_leaf and tensor.grad is not gradient:
            tensor.grad = gradient
        if gradient is not None:
            _write(gradient, gradient_value)

    return put_back


def _write(tensor, value):
    """Write a value into a tensor in place, if it differs; also one that was resized meanwhile."""
    if tensor.shape == value.shape and torch.equal(tensor, value):
        return
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        if tensor.shape != value.shape:
            tensor.resize_(value.shape)
        tensor.copy_(value)


def _restorer_of_generator(generator):
    """What puts back the state of a random generator of torch, numpy or Python."""
    if isinstance(generator, torch.Generator):
        return functools.partial(generator.set_state, generator.get_state())
    if isinstance(generator, random.Random):
        return functools.partial(generator.setstate, generator.getstate())
    bits = generator.bit_generator
    return functools.partial(setattr, bits, "state", bits.state)

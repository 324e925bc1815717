"""Floating-point operations in a function's matrix products, counted in its jaxpr.

A product counts as often as its loop turns. What no output needs does not count, and
what is asked twice counts once, as XLA computes it once. A sum that is written as a
product with a column of ones, 1^T dy, the gradient of a bias, counts as the sum it is.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Literal, jaxprs_in_params
from jax.interpreters import partial_eval

LOOPS = ("scan", "while", "cond")  # all else with a jaxpr inside is a call


def operations(function: Callable, *args: Any, turns: int | None = None) -> int:
    """Operations in the matrix products and convolutions of `function(*args)`.

    Args:
        args: arrays, or their shapes.
        turns: of every `while` loop; a jaxpr does not say it.
    Raises:
        ValueError: a `while` loop has products inside, and no turns are given.
    """
    traced = jax.make_jaxpr(function)(*args).jaxpr
    used, _ = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
    return count(used, turns)


def count(jaxpr: Jaxpr, turns: int | None) -> int:
    """Operations of a jaxpr whose inputs are all different."""
    inputs = range(len(jaxpr.invars))
    return evaluate(jaxpr, inputs, dict.fromkeys(inputs), turns)[1]


def evaluate(
    jaxpr: Jaxpr, inputs: Sequence[int], known: dict[Any, Any], turns: int | None
) -> tuple[list[int], int]:
    """Names the values of a jaxpr by numbers, equal for what is computed alike.

    Args:
        inputs: their numbers.
        known: numbers of all values so far, by how they are computed; grows.
    Returns:
        the outputs' numbers, and the operations that find what was not known.
    """

    def number(value: Any) -> int:
        return known.setdefault(value, len(known))

    numbers = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> int:
        if isinstance(atom, Literal):
            return number((str(atom.val), str(atom.aval)))
        return numbers[atom] if atom in numbers else number(atom)  # a constant

    total = 0
    for eqn in jaxpr.eqns:
        given = [read(atom) for atom in eqn.invars]
        inner = list(jaxprs_in_params(eqn.params))
        if inner and eqn.primitive.name not in LOOPS:
            outputs, found = evaluate(inner[0], given, known, turns)
        else:
            identity = (eqn.primitive.name, str(eqn.params), *given)
            found = 0 if (identity, 0) in known else cost(eqn, inner, turns)
            outputs = [number((identity, at)) for at in range(len(eqn.outvars))]
        numbers |= zip(eqn.outvars, outputs, strict=True)
        total += found
    return [read(atom) for atom in jaxpr.outvars], total


def cost(eqn: JaxprEqn, inner: Sequence[Jaxpr], turns: int | None) -> int:
    """Operations of one equation, and of the jaxprs inside it."""
    name = eqn.primitive.name
    if name == "dot_general":
        return of_product(eqn)
    if name == "conv_general_dilated":
        kernel, dims = eqn.invars[1].aval, eqn.params["dimension_numbers"]
        each = kernel.size // kernel.shape[dims.rhs_spec[0]]
        return 2 * each * eqn.outvars[0].aval.size
    counts = [count(jaxpr, turns) for jaxpr in inner]
    if name == "cond":
        return max(counts)
    if name == "scan":
        return eqn.params["length"] * sum(counts)
    if name == "while" and sum(counts):
        if turns is None:
            raise ValueError("products in a `while` loop: give its turns")
        return turns * sum(counts)
    return 0


def of_product(eqn: JaxprEqn) -> int:
    """2 B M K N of a product [B, M, K] x [B, K, N]; none of a sum over rows."""
    left, ((contracted, _), _) = eqn.invars[0].aval, eqn.params["dimension_numbers"]
    if left.shape[-1] == 1 and left.ndim - 1 not in contracted:
        return 0
    inner = math.prod(left.shape[axis] for axis in contracted)
    return 2 * inner * eqn.outvars[0].aval.size

"""What fields of configs take, and in which words they refuse the rest."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import fields
from o2ojax.errors import UserError

INF, NAN = float("inf"), float("nan")


def taken(declared, value):
    """What a field makes of a value."""
    return fields.parse(field_of(declared), "config.it", value)


def refusal(declared, value):
    """The sentence with which a field refuses a value."""
    with pytest.raises(UserError) as refused:
        taken(declared, value)
    return str(refused.value)


def field_of(declared):
    return declared.metadata["field"]


def same(found, expected):
    assert found == expected and type(found) is type(expected)


# Numbers


@pytest.mark.parametrize(
    "value",
    [
        0.5,
        "0.5",
        ".5",
        "5e-1",
        np.float32(0.5),
        np.float64(0.5),
        np.array(0.5),
        jnp.float32(0.5),
        Fraction(1, 2),
    ],
)
def test_a_number_is_what_it_plainly_means(value):
    same(taken(fields.number(1.0), value), 0.5)


@pytest.mark.parametrize("value", [3, "3", np.int8(3), np.uint64(3), 3.0])
def test_a_whole_one_is_a_number_too(value):
    same(taken(fields.number(1.0), value), 3.0)


@pytest.mark.parametrize(
    "value",
    [
        True,
        np.bool_(True),
        None,
        "half",
        "",
        " 0.5",
        "1_000",
        1 + 0j,
        (0.5,),
        [0.5],
        np.array([0.5]),
        {},
        NAN,
        "nan",
        INF,
        -INF,
        10**400,
    ],
)
def test_what_is_no_finite_number_is_refused(value):
    assert refusal(fields.number(1.0), value).endswith("; it must be a finite number")


@pytest.mark.parametrize(
    "field, inside, outside, words",
    [
        (fields.positive(1.0), (1e-30, 3e38), (0, -1), "a finite number above 0"),
        (
            fields.non_negative(1.0),
            (0, 3e38),
            (-1e-30,),
            "a finite number of at least 0",
        ),
        (
            fields.fraction(1.0),
            (0, 0.5, 1),
            (-0.1, 1.1, INF),
            "a number of at least 0 and at most 1",
        ),
        (
            fields.number(0.7, above=0, below=1),
            (1e-30, 0.999),
            (0, 1, 1.5),
            "a number above 0 and below 1",
        ),
        (
            fields.number(1.0, at_least=1, whole=True),
            (1, 6.0),
            (0, 1.5),
            "a whole number of at least 1",
        ),
        (
            fields.positive(1.0, infinite=True),
            (1, INF, "inf"),
            (0, -INF, NAN),
            "a number above 0",
        ),
    ],
)
def test_a_number_has_a_range(field, inside, outside, words):
    for value in inside:
        same(taken(field, value), float(value))
    for value in outside:
        said = refusal(field, value)
        assert said == f"config.it is {value!r}; it must be {words}"


@pytest.mark.parametrize(
    "field, value, why",
    [
        (fields.positive(1.0), 1e-46, ", which is 0 in float32"),
        (fields.number(0.5, below=1), 1 - 1e-12, ", which is 1 in float32"),
        (fields.number(0.5), 1e39, ", beyond float32"),
        (fields.positive(1.0, infinite=True), 1e39, ", beyond float32"),
    ],
)
def test_what_float32_makes_of_a_number_counts(field, value, why):
    assert refusal(field, value).startswith(f"config.it is {value!r}{why}; it must be")


@pytest.mark.parametrize("value", [1.1, -0.1])
def test_a_number_out_of_range_by_itself_is_not_blamed_on_float32(value):
    assert "float32" not in refusal(fields.number(0.7, above=0, below=1), value)


def test_a_number_is_not_rounded():
    """What a user gave is what `config.json` says; programs round it themselves."""
    same(taken(fields.positive(1.0), 3e-4), 3e-4)


# Whole numbers


@pytest.mark.parametrize("value", [8, 8.0, "8", "8.0", np.int64(8), np.float32(8)])
def test_a_whole_number_is_what_it_plainly_means(value):
    same(taken(fields.count(1), value), 8)


@pytest.mark.parametrize("value", [0, -1, 1.5, "1.5", True, None, "many", (8,), INF])
def test_what_is_no_count_is_refused(value):
    words = f"config.it is {value!r}; it must be a whole number of at least 1"
    assert refusal(fields.count(1), value) == words


def test_programs_count_in_int32():
    same(taken(fields.whole(0), 2**31 - 1), 2**31 - 1)
    for value in (2**31, 10**30):
        said = refusal(fields.whole(0), value)
        assert said.startswith(f"config.it is {value}, beyond 2,147,483,647; it must")


def test_a_whole_number_may_have_another_end():
    field = fields.whole(0, at_most=2**32 - 1)
    same(taken(field, 2**32 - 1), 2**32 - 1)
    assert refusal(field, 2**32).endswith("at least 0 and at most 4294967295")


# Sizes, flags, choices, text


@pytest.mark.parametrize(
    "value, expected",
    [
        ((256, 128), (256, 128)),
        ([256, 128.0], (256, 128)),
        ("256,128", (256, 128)),
        ("(256, 128)", (256, 128)),
        (np.array([256, 128]), (256, 128)),
        (64, (64,)),
        ("64", (64,)),
    ],
)
def test_sizes_are_what_they_plainly_mean(value, expected):
    found = taken(fields.sizes(8), value)
    assert found == expected and {type(size) for size in found} == {int}


@pytest.mark.parametrize(
    "value", [(), [], "", "wide", (0,), (8, -8), (8.5,), (True,), ((8,),), None, 2**31]
)
def test_what_sizes_no_layer_is_refused(value):
    said = refusal(fields.sizes(8), value)
    assert said.endswith("; it must be positive whole numbers, as 256,256")


@pytest.mark.parametrize(
    "yes, no", [(True, False), ("True", "false"), (1, 0), (np.True_, np.False_)]
)
def test_a_flag_is_what_it_plainly_means(yes, no):
    assert taken(fields.flag(False), yes) is True
    assert taken(fields.flag(True), no) is False


@pytest.mark.parametrize("value", [None, "yes", 2, 1.0, "", [True]])
def test_what_is_no_flag_is_refused(value):
    assert refusal(fields.flag(False), value).endswith("it must be True or False")


def test_a_choice_is_one_of_its_words():
    field = fields.choice("relu", "softplus", "none")
    same(taken(field, "softplus"), "softplus")
    for value in ("Relu", "rel", "", None, 1, ["relu"]):
        said = refusal(field, value)
        assert said == f"config.it is {value!r}; it must be relu, softplus or none"


def test_text_is_a_name_or_a_path():
    field = fields.text("", "a run directory")
    same(taken(field, "runs/a"), "runs/a")
    same(taken(field, Path("runs/a")), "runs/a")
    same(taken(field, None), "")
    assert refusal(field, 5) == "config.it is 5; it must be a run directory"
    assert "with a null character in it; it must be a run" in refusal(field, "a\0b")


def test_a_rule_of_its_own():
    def even(value):
        if value % 2:
            raise ValueError
        return value

    field = fields.special(2, "an even number", even)
    assert taken(field, 4) == 4
    assert refusal(field, 3) == "config.it is 3; it must be an even number"
    assert refusal(field, None) == "config.it is None; it must be an even number"


# How a value is shown


class Shy:
    def __repr__(self):
        raise RuntimeError("no")


def test_a_refused_value_is_shown_in_one_short_line():
    long = refusal(fields.count(1), list(range(1000)))
    assert long.startswith("config.it is [0, 1, 2,") and len(long) < 150
    several = refusal(fields.count(1), np.zeros((2, 2)))
    assert "\n" not in several and several.startswith("config.it is array([[0., 0.],")
    assert refusal(fields.count(1), Shy()).startswith("config.it is a Shy; it must")


# Classes of fields


@fields.config
class Inner:
    size: int = fields.count(3)


@fields.config
class Example:
    lr: float = fields.positive(3e-4)
    dropout: float = fields.fraction(0.0, traced=False)
    widths: tuple[int, ...] = fields.sizes(8, 8)
    source: str = fields.text("", "a place", name="from")
    inner: Inner = fields.special(Inner(), "an Inner", lambda value: value)


@fields.config
class Plain:
    """Declared by defaults alone."""

    rate: float = 0.5
    size: int = 3
    wide: bool = False
    name: str = "a"
    widths: tuple[int, ...] = (8, 8)


def declared(kind, name):
    return {field.name: field for field in dataclasses.fields(kind)}[name]


def test_numbers_are_leaves_and_all_else_is_compiled_in():
    assert jax.tree.leaves(Example(lr=0.5, dropout=0.25)) == [0.5]
    traced = [f.name for f in dataclasses.fields(Example) if fields.is_traced(f)]
    assert traced == ["lr"]
    doubled = jax.tree.map(lambda x: 2 * x, Example(lr=0.5, widths=(4,)))
    assert doubled == Example(lr=1.0, widths=(4,))


def test_a_config_is_built_of_parsed_values():
    given = {"lr": "0.5", "widths": [4], "from": Path("there")}
    built = fields.build(Example, "config.agent", given, "field")
    assert built == Example(lr=0.5, widths=(4,), source="there")
    assert fields.build(Example, "config.agent", {}, "field") == Example()


def test_a_config_that_cannot_be_built_says_which_field():
    with pytest.raises(UserError, match="config.agent.lr is -1; it must be a finite"):
        fields.build(Example, "config.agent", {"lr": -1}, "field")
    with pytest.raises(UserError, match="config.run.from is 5; it must be a place"):
        fields.build(Example, "config.run", {"from": 5}, "field")
    with pytest.raises(UserError) as refused:
        fields.build(Example, "config.agent", {"width": 4}, "hyper-parameter of x")
    assert str(refused.value).startswith(
        "unknown hyper-parameter of x 'width'; did you mean 'widths'? Known: dropout,"
    )
    with pytest.raises(UserError, match="unknown field 'source'"):  # it is "from"
        fields.build(Example, "config.agent", {"source": "there"}, "field")


def test_values_have_the_names_that_a_user_knows():
    assert fields.values(Example(source="there")) == {
        "lr": 3e-4,
        "dropout": 0.0,
        "widths": (8, 8),
        "from": "there",
        "inner": {"size": 3},
    }


@pytest.mark.parametrize(
    "name, value, expected, wrong",
    [
        ("rate", "0.25", 0.25, "fast"),
        ("size", 4.0, 4, 4.5),
        ("wide", "true", True, "very"),
        ("name", "b", "b", 3),
        ("widths", "4,4", (4, 4), "wide"),
    ],
)
def test_a_field_may_be_declared_by_its_default(name, value, expected, wrong):
    field = fields.field_of(declared(Plain, name))
    same(fields.parse(field, "config.it", value), expected)
    with pytest.raises(UserError, match="config.it is"):
        fields.parse(field, "config.it", wrong)


# Command lines


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("lr", "0.5", 0.5),
        ("lr", "1/2", None),
        ("lr", "5e-1", 0.5),
        ("lr", "True", None),
        ("widths", "16,16", (16, 16)),
        ("widths", "(16,)", (16,)),
        ("widths", "16", (16,)),
        ("widths", "[16, 8]", (16, 8)),
        ("widths", "16,", (16,)),
        ("widths", "16;8", None),
        ("from", "16,16", "16,16"),  # text is what it is
        ("from", "None", "None"),
        ("from", "", ""),
    ],
)
def test_the_text_of_a_command_line(name, text, expected):
    by_name = {fields.known_as(field): field for field in dataclasses.fields(Example)}
    field = fields.field_of(by_name[name])
    if expected is None:
        with pytest.raises(UserError, match="config.it is"):
            fields.from_text(field, "config.it", text)
    else:
        same(fields.from_text(field, "config.it", text), expected)


@pytest.mark.parametrize("text", ["(" * 10_000, "1 +", "a b", "\0", "\\"])
def test_what_is_no_literal_is_text(text):
    assert fields.literal(text) == text

"""What a user reads of an error."""

from o2ojax.errors import TOO_LONG, UserError


def test_a_message_is_one_line_whatever_is_in_it():
    assert str(UserError("no file 'a\nb\u2028c'")) == r"no file 'a\nb\u2028c'"


def test_of_a_long_message_the_beginning_and_the_end_are_told():
    message = f"config.x is {'9' * 5000}, and must be a number below 7"
    told = str(UserError(message))
    assert len(told) < TOO_LONG
    assert told.startswith("config.x is 999") and told.endswith("a number below 7")
    assert str(UserError("9" * TOO_LONG)) == "9" * TOO_LONG

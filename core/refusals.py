"""What pydantic finds wrong with a value, in the words in which everything is refused."""

from typing import Final

from pydantic_core import ErrorDetails

_REASONS: Final = {
    "missing": "is required",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "uuid_parsing": "must be a whole id",
    "string_pattern_mismatch": "must match {pattern}",
    "path_not_file": "must be the path of a file",
    "value_error": "{error}",
}


def reason(problem: ErrorDetails) -> str:
    """The reason and the limit, without the value, which may be a secret."""
    said = _REASONS.get(problem["type"])
    return said.format(**problem.get("ctx", {})) if said else problem["msg"]

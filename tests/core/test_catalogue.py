from pathlib import Path

import pytest

from core.catalogue import load_catalogue
from core.errors import ConfigurationError

ENTRY = """
[[model]]
id = "m"
name = "M"
description = "d"
license = "MIT"
family = "sd1"
source = {{ kind = "hub", repository = "a/b", revision = "{revision}" }}
defaults = {{ width = {width}, height = 512, steps = 20, guidance_scale = 7.5, scheduler = "DDIM" }}
[model.limits]
min_size = 256
max_size = 768
max_steps = 50
max_guidance_scale = 20.0
max_count = 4
max_prompt_length = 1000
"""


def test_the_shipped_catalogue_is_good_and_its_first_model_is_the_default() -> None:
    catalogue = load_catalogue()
    assert catalogue.default is catalogue.models[0]
    assert catalogue.get(catalogue.default.id) is catalogue.default
    assert catalogue.get("no-such-model") is None


def test_a_catalogue_of_ones_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(ENTRY.format(revision="a" * 40, width=512))
    assert load_catalogue(path).default.id == "m"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (ENTRY.format(revision="main", width=512), "revision"),
        (ENTRY.format(revision="a" * 39, width=512), "revision"),
        (ENTRY.format(revision="a" * 40, width=500), "width"),
        (ENTRY.format(revision="a" * 40, width=1024), "default size 1024"),
        ("", "model"),
        ("[[model", "models.toml"),
    ],
)
def test_a_catalogue_that_breaks_a_rule_names_file_and_field(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=named) as refused:
        load_catalogue(path)
    assert str(path) in str(refused.value)


def test_a_missing_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.toml"):
        load_catalogue(tmp_path / "absent.toml")

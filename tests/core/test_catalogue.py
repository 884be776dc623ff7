import tomllib
from pathlib import Path

import pytest

from core.catalogue import HubSource, load_catalogue, offered_models
from core.errors import ConfigurationError
from core.pins import Pin, Pins, RemoteFile, lock_path, read_pins, write_pins
from core.settings import CatalogueSettings

REVISION = "a" * 40
FILE = RemoteFile("model_index.json", 2, "b" * 40)
ENTRY = """
[[model]]
id = "{id}"
name = "M"
description = "d"
license = "MIT"
family = "sd1"
source = {{ kind = "hub", repository = "a/b"{source} }}
defaults = {{ width = {width}, height = 512, steps = 20, guidance_scale = 7.5, scheduler = "DDIM" }}
[model.limits]
min_size = 256
max_size = 768
max_steps = 50
max_guidance_scale = 20.0
max_count = 4
max_prompt_length = 1000
"""


def entry(*, model_id: str = "m", revision: str | None = REVISION, width: int = 512, more: str = "") -> str:
    source = (f', revision = "{revision}"' if revision else "") + more
    return ENTRY.format(id=model_id, source=source, width=width)


def pin(**fields: object) -> Pin:
    return Pin.model_validate(
        {"id": "m", "repository": "a/b", "revision": REVISION, "files": (FILE,), **fields}
    )


def offer(path: Path, text: str, *pins: Pin, models: tuple[str, ...] = ()) -> list[HubSource]:
    """The sources of what a deployment with this catalogue and these pins offers."""
    path.write_text(text)
    if pins:
        write_pins(lock_path(path), Pins(model=pins))
    offered = offered_models(CatalogueSettings(catalogue=path, models=models)).models
    return [model.source for model in offered if isinstance(model.source, HubSource)]


def test_the_shipped_catalogue_is_good_and_its_first_model_is_the_default() -> None:
    catalogue = load_catalogue()
    assert catalogue.default is catalogue.models[0]
    assert catalogue.get(catalogue.default.id) is catalogue.default
    assert catalogue.get("no-such-model") is None


def test_the_shipped_catalogue_names_no_commit_itself() -> None:
    revisions = {
        model.id: model.source.revision
        for model in load_catalogue().models
        if isinstance(model.source, HubSource)
    }
    assert revisions == dict.fromkeys(
        ("stable-diffusion-v1-5", "sd-turbo", "sdxl-base-1.0", "sdxl-turbo"), None
    )


def test_the_turbo_models_are_offered_as_they_were_distilled() -> None:
    for model_id in ("sd-turbo", "sdxl-turbo"):
        model = load_catalogue().get(model_id)
        assert model is not None
        assert model.defaults.guidance_scale == 0
        assert 1 <= model.defaults.steps <= model.limits.max_steps <= 4


def test_a_catalogue_of_ones_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(entry())
    assert load_catalogue(path).default.id == "m"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (entry(revision="main"), "revision"),
        (entry(revision="a" * 39), "revision"),
        (entry(width=500), "width"),
        (entry(width=1024), "default size 1024"),
        (entry() + entry(), "same id"),
        (entry(more=f', files = [{{ path = "x", size = 1, digest = "{"b" * 40}" }}]'), "files"),
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


def test_the_models_that_are_named_are_offered_in_that_order(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text("".join(entry(model_id=name) for name in ("a", "b", "c")))
    settings = CatalogueSettings(catalogue=path, models=("c", "a"))
    assert [model.id for model in offered_models(settings).models] == ["c", "a"]
    assert offered_models(settings).default.id == "c"


def test_an_unknown_model_is_refused_with_the_setting_and_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"DARKROOM_MODELS: there is no model nonesuch, only m$"):
        offer(tmp_path / "models.toml", entry(), models=("m", "nonesuch"))


def test_a_model_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="DARKROOM_MODELS: a model is named twice"):
        offer(tmp_path / "models.toml", entry(), models=("m", "m"))


def test_a_pin_gives_its_model_the_commit_and_the_files(tmp_path: Path) -> None:
    [source] = offer(tmp_path / "models.toml", entry(revision=None), pin())
    assert (source.revision, source.files) == (REVISION, (FILE,))
    assert (tmp_path / "models.lock.toml").exists()


def test_a_revision_in_the_catalogue_needs_no_pin_and_may_have_one(tmp_path: Path) -> None:
    [alone] = offer(tmp_path / "models.toml", entry())
    assert (alone.revision, alone.files) == (REVISION, ())
    [pinned] = offer(tmp_path / "models.toml", entry(), pin())
    assert (pinned.revision, pinned.files) == (REVISION, (FILE,))


@pytest.mark.parametrize(
    ("text", "pins"),
    [
        (entry(revision=None), ()),
        (entry(revision=None), (pin(id="other"),)),
        (entry(revision=None), (pin(repository="a/c"),)),
        (entry(revision=None), (pin(variant="fp16"),)),
        (entry(), (pin(revision="c" * 40),)),
    ],
)
def test_a_model_without_a_pin_that_fits_is_refused_with_what_to_do(
    tmp_path: Path, text: str, pins: tuple[Pin, ...]
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        offer(tmp_path / "models.toml", text + entry(model_id="good"), *pins)
    told = str(refused.value)
    assert "not pinned: m." in told
    assert str(tmp_path / "models.lock.toml") in told
    assert "`make pin`" in told
    assert "`python -m gpu_worker.pin m`" in told
    assert "DARKROOM_MODELS='[\"good\"]'" in told


def test_a_model_that_is_not_offered_needs_no_pin(tmp_path: Path) -> None:
    text = entry(revision=None) + entry(model_id="good")
    [source] = offer(tmp_path / "models.toml", text, models=("good",))
    assert source.revision == REVISION


def test_a_lock_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    pins = Pins(model=(pin(id="sdxl-base-1.0", variant="fp16"),)).including(pin())
    path = tmp_path / "models.lock.toml"
    write_pins(path, pins)
    assert read_pins(path) == pins
    assert [each["id"] for each in tomllib.loads(path.read_text())["model"]] == ["m", "sdxl-base-1.0"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("written", "instead", "named"),
    [
        (REVISION, "main", "revision"),
        ("b" * 40, "b" * 41, "digest"),
        ('"model_index.json"', '"../model_index.json"', "path"),
        ("size = 2", "size = -2", "size"),
        ("[[model]]", "<<<<<<<", "models.lock.toml"),
    ],
)
def test_a_damaged_lock_file_is_refused_by_its_name(
    tmp_path: Path, written: str, instead: str, named: str
) -> None:
    path = tmp_path / "models.lock.toml"
    write_pins(path, Pins(model=(pin(),)))
    path.write_text(path.read_text().replace(written, instead))
    with pytest.raises(ConfigurationError, match=named) as refused:
        read_pins(path)
    assert str(path) in str(refused.value)


def test_a_lock_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent/models\.lock\.toml"):
        write_pins(tmp_path / "absent" / "models.lock.toml", Pins())

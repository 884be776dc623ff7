"""What a person might ask for to get a given scene: sentences, phrases and lists, with things left unsaid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gpu_worker.demo_model.scenes import Colour, Disc, Ground, Place, Scene, Size, Subject, Time

_SUBJECTS: Final = {
    Subject.HOUSE: ("house", "house", "house", "cottage", "cabin"),
    Subject.BOAT: ("boat", "boat", "sailboat", "sailing boat", "ship"),
    Subject.TREE: ("tree",),
    Subject.BALLOON: ("balloon", "hot air balloon", "hot-air balloon"),
    Subject.CAR: ("car", "car", "car", "automobile"),
    Subject.LIGHTHOUSE: ("lighthouse",),
    Subject.TENT: ("tent",),
    Subject.WINDMILL: ("windmill", "windmill", "mill"),
}
_COLOURS: Final = {
    Colour.RED: ("red", "red", "red", "bright red", "crimson", "scarlet"),
    Colour.ORANGE: ("orange", "orange", "bright orange"),
    Colour.YELLOW: ("yellow", "yellow", "bright yellow", "golden"),
    Colour.GREEN: ("green", "green", "bright green", "emerald"),
    Colour.TURQUOISE: ("turquoise", "turquoise", "teal", "cyan"),
    Colour.BLUE: ("blue", "blue", "blue", "bright blue"),
    Colour.PURPLE: ("purple", "purple", "violet"),
    Colour.PINK: ("pink", "pink", "bright pink", "magenta"),
}
_SIZES: Final = {
    Size.SMALL: ("small", "small", "tiny", "little"),
    Size.LARGE: ("big", "large", "huge"),
}
_TIME_PHRASES: Final = {
    Time.DAY: ("by day", "during the day", "in daylight", "at noon", "on a bright day", "under a blue sky"),
    Time.SUNSET: ("at sunset", "at sunset", "at sunset", "at dusk", "in the evening", "at sundown"),
    Time.NIGHT: ("at night", "at night", "at night", "by night", "at midnight", "under the stars"),
}
_TIME_WORDS: Final = {
    Time.DAY: ("day", "daytime", "daylight", "noon", "blue sky"),
    Time.SUNSET: ("sunset", "sunset", "dusk", "evening", "sundown"),
    Time.NIGHT: ("night", "night", "nighttime", "midnight", "starry sky"),
}
_GROUND_PHRASES: Final = {
    Ground.GRASS: ("on the grass", "on grass", "in a meadow", "in a green field", "on a lawn", "in a field"),
    Ground.SAND: ("on the sand", "on sand", "on a beach", "on the beach", "in the desert", "among dunes"),
    Ground.SNOW: ("in the snow", "in the snow", "on snow", "in winter", "on a snowy field"),
    Ground.SEA: ("by the sea", "on the water", "by a lake", "beside a lake", "in the ocean", "at the sea"),
}
_AT_SEA: Final = {
    Subject.BOAT: ("on the sea", "on a lake", "on the water", "at sea", "sailing on the ocean"),
    Subject.BALLOON: ("over the sea", "above the water", "over a lake", "above the ocean"),
}
_GROUND_WORDS: Final = {
    Ground.GRASS: ("grass", "grass", "meadow", "green field", "lawn"),
    Ground.SAND: ("sand", "sand", "beach", "desert", "dunes"),
    Ground.SNOW: ("snow", "snow", "winter", "snowy field"),
    Ground.SEA: ("sea", "sea", "water", "lake", "ocean"),
}
_PLACE_PHRASES: Final = {
    Place.LEFT: ("on the left", "on the left side", "to the left", "at the left"),
    Place.MIDDLE: ("in the middle", "in the center", "in the centre"),
    Place.RIGHT: ("on the right", "on the right side", "to the right", "at the right"),
}
_PLACE_WORDS: Final = {
    Place.LEFT: ("left", "on the left"),
    Place.MIDDLE: ("middle", "center", "in the middle"),
    Place.RIGHT: ("right", "on the right"),
}
_DISC_WORDS: Final = {
    Disc.SUN: ("sun", "the sun"),
    Disc.FULL_MOON: ("full moon", "a full moon", "moon", "the moon"),
    Disc.CRESCENT: ("crescent moon", "a crescent moon", "moon", "the moon"),
}
_MOUNTAIN_WORDS: Final = ("mountains", "mountains", "high mountains", "distant mountains")
_CLOUD_WORDS: Final = ("clouds", "clouds", "white clouds", "a cloudy sky")
_LEADS: Final = (
    "a picture of",
    "a painting of",
    "an illustration of",
    "a landscape with",
    "a view of",
    "there is",
)
_TRAILS: Final = (
    "flat design",
    "vector art",
    "minimalist",
    "highly detailed",
    "beautiful landscape",
    "high quality",
    "digital art",
    "peaceful",
)
# Letters without meaning: a word that the model does not know must not spoil the words that it does.
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class _Said:
    """What of a scene is put into words; an empty string is left unsaid. ``thing`` has colour and size."""

    thing: str
    time: str
    ground: str
    place: str
    extras: tuple[str, ...]


def caption(scene: Scene, random: np.random.Generator) -> str:
    """One of the many ways to ask for ``scene``; any part of it may be left out."""
    style = random.choice(("sentence", "time first", "list", "terse"), p=(0.45, 0.2, 0.25, 0.1))
    in_words = style in {"list", "terse"}
    said = _Said(
        thing=_thing(scene, random, article=not in_words),
        time=_maybe(0.85, (_TIME_WORDS if in_words else _TIME_PHRASES)[scene.time], random),
        ground=_maybe(0.85, _grounds(scene, in_words=in_words), random),
        place=_maybe(0.65, (_PLACE_WORDS if in_words else _PLACE_PHRASES)[scene.place], random),
        extras=_extras(scene, random),
    )
    match style:
        case "sentence":
            text = _sentence(said, random)
        case "time first":
            text = _time_first(said, random)
        case "list":
            text = ", ".join(_shuffled(_parts(said), random))
        case _:
            text = " ".join(_shuffled(_parts(said)[:3], random))
    return _dressed(text, random)


def full_caption(scene: Scene, random: np.random.Generator) -> str:
    """A way to ask for ``scene`` that leaves out neither thing, colour, time, ground nor place."""
    said = _Said(
        thing=_with_article(
            f"{_pick(_COLOURS[scene.colour], random)} {_pick(_SUBJECTS[scene.subject], random)}"
        ),
        time=_pick(_TIME_PHRASES[scene.time], random),
        ground=_pick(_grounds(scene, in_words=False), random),
        place=_pick(_PLACE_PHRASES[scene.place], random),
        extras=_extras(scene, random),
    )
    return _sentence(said, random) if random.random() < 0.5 else ", ".join(_shuffled(_parts(said), random))


def _thing(scene: Scene, random: np.random.Generator, *, article: bool) -> str:
    subject = _maybe(0.95, _SUBJECTS[scene.subject], random)
    colour = _maybe(0.92 if subject else 1.0, _COLOURS[scene.colour], random)
    size = _maybe(0.6, _SIZES.get(scene.size, ("",)), random)
    words = " ".join(word for word in (size, colour, subject or "thing") if word)
    return _with_article(words) if article else words


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _grounds(scene: Scene, *, in_words: bool) -> Sequence[str]:
    if in_words:
        return _GROUND_WORDS[scene.ground]
    if scene.ground is Ground.SEA and scene.subject in _AT_SEA:
        return _AT_SEA[scene.subject]
    if scene.subject is Subject.BALLOON:
        return tuple(f"over the {word}" for word in _GROUND_WORDS[scene.ground])
    return _GROUND_PHRASES[scene.ground]


def _extras(scene: Scene, random: np.random.Generator) -> tuple[str, ...]:
    found = [
        _maybe(0.5, _DISC_WORDS.get(scene.disc, ("",)), random),
        _maybe(0.7, _MOUNTAIN_WORDS if scene.mountains else ("",), random),
        _maybe(0.6, _CLOUD_WORDS if scene.clouds else ("",), random),
    ]
    return tuple(one for one in found if one)


def _sentence(said: _Said, random: np.random.Generator) -> str:
    where = _shuffled([said.ground, said.place, said.time], random)
    text = " ".join(part for part in (said.thing, *where) if part)
    return text + _with_extras(said, random)


def _time_first(said: _Said, random: np.random.Generator) -> str:
    rest = " ".join(part for part in (said.thing, *_shuffled([said.ground, said.place], random)) if part)
    return ", ".join(part for part in (said.time, rest) if part) + _with_extras(said, random)


def _with_extras(said: _Said, random: np.random.Generator) -> str:
    if not said.extras:
        return ""
    return f"{_pick((', with ', ' with ', ', '), random)}{' and '.join(said.extras)}"


def _parts(said: _Said) -> list[str]:
    return [part for part in (said.thing, said.time, said.ground, said.place, *said.extras) if part]


def _dressed(text: str, random: np.random.Generator) -> str:
    if random.random() < 0.15:
        text = f"{_pick(_LEADS, random)} {text}"
    if random.random() < 0.12:
        text = f"{text}, {_pick(_TRAILS, random)}"
    if random.random() < 0.06:
        text = f"{text} {''.join(_pick(_LETTERS, random) for _ in range(int(random.integers(3, 9))))}"
    return f"{text}." if random.random() < 0.1 else text


def _pick(choices: Sequence[str], random: np.random.Generator) -> str:
    return choices[int(random.integers(len(choices)))]


def _maybe(probability: float, choices: Sequence[str], random: np.random.Generator) -> str:
    return _pick(choices, random) if random.random() < probability else ""


def _shuffled(parts: Sequence[str], random: np.random.Generator) -> list[str]:
    return [parts[int(index)] for index in random.permutation(len(parts))]

"""Writes the schema's SDL: ``python -m schema`` brings ``schema/schema.graphql`` up to date."""

from pathlib import Path

from core.settings import DocumentSettings
from schema.schema import build_schema

SDL_PATH = Path(__file__).with_name("schema.graphql")


def sdl() -> str:
    """The schema in the schema definition language, with a newline at its end."""
    return build_schema(DocumentSettings()).as_str().rstrip() + "\n"


if __name__ == "__main__":
    SDL_PATH.write_text(sdl())

"""Models that texts are explained by."""

import pytest

import tiny_language_models as tiny
from relprop.models.language import load_language_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of each kind, by name."""
    root = tmp_path_factory.mktemp("models")
    loaded = {}

    def get(name):
        if name not in loaded:
            loaded[name] = load_language_model(f"hf:{tiny.MAKERS[name](root / name)}")
        return loaded[name]

    return get

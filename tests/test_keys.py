"""Keys are part of the file format: changing one breaks saved data."""

from __future__ import annotations

from scjepa._keys import Keys


def test_written_names() -> None:
    assert Keys.obsm.latent == "X_jepa"
    assert (Keys.obs.source, Keys.obs.kind) == ("source", "jepa_prediction")
    assert (Keys.uns.root, Keys.uns.prediction, Keys.uns.scores) == ("jepa", "prediction", "scores")


def test_names_do_not_collide() -> None:
    for group in (Keys.obs, Keys.obsm, Keys.uns, Keys.registry):
        assert len(set(group)) == len(group)

"""The package's front door."""

import pytest

import qdgs_jax


def test_every_name_leads_to_its_module():
    assert all(getattr(qdgs_jax, name).__name__ == name for name in qdgs_jax.__all__)
    with pytest.raises(AttributeError, match="'Serach'"):
        _ = qdgs_jax.Serach

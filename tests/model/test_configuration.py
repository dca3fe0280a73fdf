"""What a configuration accepts, and what older ones without newer entries mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unibiomed.model.configuration import UniBiomedConfig


def test_a_configuration_with_one_finding_threshold(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unibiomed", "finding_threshold": -0.98}))
    config = UniBiomedConfig.from_pretrained(tmp_path)
    assert config.finding_threshold_in("OCT") == config.finding_threshold_in(None) == -0.98


def test_finding_thresholds_by_modality_are_kept(tmp_path: Path) -> None:
    UniBiomedConfig(finding_threshold=1.0, finding_thresholds={"OCT": -3.5, "MRI": 2}).save_pretrained(tmp_path)
    config = UniBiomedConfig.from_pretrained(tmp_path)
    assert [config.finding_threshold_in(name) for name in ("OCT", "MRI", "CT", None)] == [-3.5, 2, 1.0, 1.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "-3.5", None])
def test_a_finding_threshold_that_is_no_number(value: object) -> None:
    with pytest.raises(ValueError, match="finding_thresholds of 'OCT'"):
        UniBiomedConfig(finding_thresholds={"OCT": value})  # type: ignore[dict-item]

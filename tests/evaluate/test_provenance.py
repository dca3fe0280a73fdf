from __future__ import annotations

import json
from types import SimpleNamespace

from unibiomed.evaluate.provenance import model_provenance, run_provenance
from unibiomed.evaluate.suite import Suite


def test_provenance_has_no_absolute_paths(tmp_path):
    for name in ("sets", "out", "model", "answers"):
        (tmp_path / name).mkdir()
    command = ["unibiomed", "evaluate", "shared", "--data", str(tmp_path / "sets"), f"--out={tmp_path}/out"]
    command += ["--model", f"nano={tmp_path}/model/", "--model", f"files:{tmp_path}/answers", "--limit", "24"]
    command += ["--model", "sam:facebook/sam-vit-base"]
    found = run_provenance(Suite("shared", limit=24), command)
    assert str(tmp_path) not in json.dumps(found)
    assert found["run"]["command"] == (
        "unibiomed evaluate shared --data sets --out=out --model nano=model --model files:answers --limit 24 "
        "--model sam:facebook/sam-vit-base"
    )
    assert found["run"]["date"].startswith("20") and "numpy" in found["run"]["libraries"]
    assert (found["split"], found["limit"], found["seed"]) == ("test", 24, 42) and "segment" in found["tasks"]


def test_selection_is_described():
    assert run_provenance(Suite("s"), [])["selection"] == "All images of the test split."
    few = run_provenance(Suite("s", limit=24, split="val", seed=7), [])
    assert few["selection"] == "At most 24 images of each data set, sampled from the val split (seed 7)."
    assert few["run"]["command"] is None


def test_model_provenance_omits_unknown_values():
    found = model_provenance(SimpleNamespace(fingerprint="ab12", device="cuda:3"))
    assert found == {"fingerprint": "ab12", "device": "cuda"}
    assert model_provenance(SimpleNamespace()) == {}

"""What reports tell of the 14 findings: sentences by hand, and real reports against the terms that people gave them."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.errors import InputError
from unibiomed.metrics import chest_findings, chest_label_agreement, label_chest_report

POSITIVE, UNCERTAIN, NEGATIVE, NOT = "positive", "uncertain", "negative", "not mentioned"

SENTENCES = [
    # plain mentions
    ("There is a small left pleural effusion.", "Pleural Effusion", POSITIVE),
    ("Mild cardiomegaly is present.", "Cardiomegaly", POSITIVE),
    ("The heart is mildly enlarged.", "Cardiomegaly", POSITIVE),
    ("Heart size is persistently enlarged.", "Cardiomegaly", POSITIVE),
    ("Widened mediastinum.", "Enlarged Cardiomediastinum", POSITIVE),
    ("Patchy airspace disease in the right base.", "Lung Opacity", POSITIVE),
    ("A 5 mm nodule in the left apex.", "Lung Lesion", POSITIVE),
    ("Pulmonary vascular congestion.", "Edema", POSITIVE),
    ("Right upper lobe consolidation.", "Consolidation", POSITIVE),
    ("Bibasilar atelectatic change.", "Atelectasis", POSITIVE),
    ("Bilateral pneumothoraces.", "Pneumothorax", POSITIVE),
    ("Blunting of the left costophrenic angle.", "Pleural Effusion", POSITIVE),
    ("Apical pleural thickening.", "Pleural Other", POSITIVE),
    ("Old healed rib fractures.", "Fracture", POSITIVE),
    ("A right-sided PICC line ends in the SVC.", "Support Devices", POSITIVE),
    ("Sternotomy wires are intact.", "Support Devices", POSITIVE),
    # denials
    ("No pleural effusion or pneumothorax.", "Pneumothorax", NEGATIVE),
    ("The lungs are clear without focal consolidation, effusion, or pneumothorax.", "Pneumothorax", NEGATIVE),
    ("There is no evidence of pulmonary edema.", "Edema", NEGATIVE),
    ("Negative for acute fracture.", "Fracture", NEGATIVE),
    ("Lungs are free of focal airspace disease.", "Lung Opacity", NEGATIVE),
    ("The heart is not enlarged.", "Cardiomegaly", NEGATIVE),
    ("Heart size is within normal limits.", "Cardiomegaly", NEGATIVE),
    ("The cardiomediastinal silhouette is unremarkable.", "Enlarged Cardiomediastinum", NEGATIVE),
    ("A pneumothorax is not seen.", "Pneumothorax", NEGATIVE),
    ("The effusion has resolved.", "Pleural Effusion", NEGATIVE),
    ("Interval removal of the endotracheal tube.", "Support Devices", NEGATIVE),
    # doubts
    ("Possible small right effusion.", "Pleural Effusion", UNCERTAIN),
    ("Opacity that may represent pneumonia.", "Pneumonia", UNCERTAIN),
    ("No change; pneumonia cannot be excluded.", "Pneumonia", UNCERTAIN),
    ("Cannot exclude a small pneumothorax.", "Pneumothorax", UNCERTAIN),
    ("Atelectasis versus infiltrate.", "Atelectasis", UNCERTAIN),
    ("Atelectasis vs. infiltrate.", "Lung Opacity", UNCERTAIN),
    ("Findings concerning for edema.", "Edema", UNCERTAIN),
    ("Borderline enlarged heart.", "Cardiomegaly", UNCERTAIN),
    # where a denial or doubt ends
    ("No pneumothorax, but a large effusion is seen.", "Pleural Effusion", POSITIVE),
    ("No consolidation. Small effusion.", "Pleural Effusion", POSITIVE),
    ("No acute disease.Small effusion.", "Pleural Effusion", POSITIVE),
    ("No significant change in the left effusion.", "Pleural Effusion", POSITIVE),
    ("No focal opacity except for atelectasis.", "Atelectasis", POSITIVE),
    ("Possible nodule; there is an effusion.", "Pleural Effusion", POSITIVE),
    # other words that hold these
    ("A pericardial effusion was seen by echo.", "Pleural Effusion", NOT),
    ("Soft tissue edema of the ankle.", "Edema", NOT),
    ("The lungs are well expanded.", "Pneumonia", NOT),
]


@pytest.mark.parametrize(("text", "finding", "state"), SENTENCES, ids=[text for text, _, _ in SENTENCES])
def test_sentences(text: str, finding: str, state: str) -> None:
    assert label_chest_report(text)[finding] == state
    assert label_chest_report(text.upper())[finding] == state


def test_findings_are_those_of_chexpert() -> None:
    findings = chest_findings()
    assert len(findings) == 14 and findings[0] == "No Finding" and findings[-1] == "Support Devices"
    assert tuple(label_chest_report("Normal chest.")) == findings


def test_precedence_of_mentions() -> None:
    text = "No effusion on the right. {} effusion on the left."
    assert label_chest_report(text.format("Small"))["Pleural Effusion"] == POSITIVE
    assert label_chest_report(text.format("Possible"))["Pleural Effusion"] == UNCERTAIN
    assert label_chest_report(text.format("No"))["Pleural Effusion"] == NEGATIVE


def test_no_finding() -> None:
    assert label_chest_report("Normal chest.")["No Finding"] == POSITIVE
    assert label_chest_report("No effusion. A pacemaker is seen.")["No Finding"] == POSITIVE
    assert label_chest_report("Possible effusion.")["No Finding"] == NOT
    # an answer that says nothing finds nothing, not even that
    assert set(label_chest_report(" ").values()) == {NOT}


def test_agreement_by_hand() -> None:
    references = ["Cardiomegaly. Effusion.", "Pneumothorax.", "Normal."]
    answers = ["Cardiomegaly. Possible edema.", "Pneumothorax.", "Effusion."]
    found = chest_label_agreement(answers, references)
    # correct: cardiomegaly, pneumothorax; predicted: these, edema, effusion; true: these two, effusion, no finding
    assert found.micro_f1 == pytest.approx(2 * 2 / (4 + 4))
    assert found.macro_f1 == pytest.approx((1 + 1 + 0 + 0 + 0) / 5)
    assert found.findings["Cardiomegaly"].f1 == 1.0 and found.findings["Pleural Effusion"].recall == 0.0
    assert math.isnan(found.findings["Fracture"].f1) and found.findings["Edema"].precision == 0.0
    sure = chest_label_agreement(answers, references, uncertain_counts=False)
    assert sure.micro_f1 == pytest.approx(2 * 2 / (3 + 4)) and math.isnan(sure.findings["Edema"].f1)


@given(st.lists(st.lists(st.sampled_from([text for text, _, _ in SENTENCES]), min_size=1).map(" ".join), min_size=1))
def test_a_report_agrees_with_itself(reports: list[str]) -> None:
    found = chest_label_agreement(reports, reports)
    assert found.micro_f1 == found.macro_f1 == 1.0
    assert chest_label_agreement(reports, [""] * len(reports)).micro_f1 == 0.0


@given(st.text(max_size=80))
def test_any_text_is_labelled(text: str) -> None:
    assert set(label_chest_report(text).values()) <= {POSITIVE, UNCERTAIN, NEGATIVE, NOT}


def test_invalid_arguments() -> None:
    with pytest.raises(InputError, match="1 hypotheses, 2 references"):
        chest_label_agreement(["a"], ["a", "b"])
    with pytest.raises(InputError, match="is not a string"):
        label_chest_report(float("nan"))  # type: ignore[arg-type]
    assert math.isnan(chest_label_agreement([], []).micro_f1) and math.isnan(chest_label_agreement([], []).macro_f1)


def test_real_reports_against_manual_labels(shared_data: Path) -> None:
    terms = {
        "Cardiomegaly": ({"Cardiomegaly"}, 0.9),
        "Pleural Effusion": ({"Pleural Effusion", "Costophrenic Angle"}, 0.9),
        "Atelectasis": ({"Pulmonary Atelectasis"}, 0.85),
        "Lung Opacity": ({"Opacity", "Infiltrate", "Airspace Disease", "Density", "Markings"}, 0.85),
        "Pneumothorax": ({"Pneumothorax", "Hydropneumothorax"}, 0.8),
        "Consolidation": ({"Consolidation"}, 0.8),
        "Fracture": ({"Fractures, Bone"}, 0.75),
    }
    with (shared_data / "iu_xray_reports" / "indiana_reports.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["findings"] + row["impression"]).strip()]
    labels = [label_chest_report(f"{row['findings']} {row['impression']}") for row in rows]
    for finding, (names, least) in terms.items():
        found = [one[finding] in (POSITIVE, UNCERTAIN) for one in labels]
        true = [bool(names & {name.strip() for name in row["Problems"].split(";")}) for row in rows]
        both = sum(a and b for a, b in zip(found, true, strict=True))
        assert 2 * both / (sum(found) + sum(true)) > least, finding

"""The committed schema says exactly what records are."""

import copy
import json
from importlib.resources import files

import numpy as np
import pytest
from jsonschema import Draft202012Validator, ValidationError

import genzqa


@pytest.fixture(scope="session")
def validator():
    schema = json.loads((files("genzqa") / "schema" / "genzqa-1.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.fixture(scope="session")
def both_kinds(small_scorer):
    """A record of a scored photo with notes, and one of a failed input, as JSON gives them back."""
    scorer = genzqa.load(f"local-dir:{small_scorer}")
    sources = [np.tile(np.arange(90, dtype=np.uint8), (60, 1)), "missing.jpg"]
    return [json.loads(json.dumps(result.to_dict())) for result in scorer.score_many(sources)]


def test_real_records_are_valid(validator, both_kinds):
    assert [record["status"] for record in both_kinds] == ["ok", "error"]
    assert both_kinds[0]["notes"]
    for record in both_kinds:
        validator.validate(record)


def test_every_field_is_required_and_no_other_is_allowed(validator, both_kinds):
    for record in both_kinds:
        for field in record:
            with pytest.raises(ValidationError):
                validator.validate({key: value for key, value in record.items() if key != field})
        with pytest.raises(ValidationError):
            validator.validate(record | {"extra": 1})


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        (0, ["schema"], "genzqa/2"),
        (0, ["kind"], "audio"),
        (0, ["status"], "error"),
        (0, ["score"], 101),
        (0, ["score"], None),
        (0, ["interval"], [1, 2, 3]),
        (0, ["interval", 0], -1),
        (0, ["grade"], "great"),
        (0, ["weights_sha256"], "abc"),
        (0, ["timesteps"], [1000]),
        (0, ["width"], 0),
        (0, ["notes", 0, "code"], "Not A Code"),
        (0, ["notes", 0], {"code": "grey_scale"}),
        (0, ["seconds"], -1),
        (1, ["error", "code"], "oops"),
        (1, ["error"], {"code": "corrupt"}),
        (1, ["status"], "ok"),
    ],
)
def test_wrong_records_are_refused(validator, both_kinds, kind, path, value):
    record = copy.deepcopy(both_kinds[kind])
    inner = record
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(ValidationError):
        validator.validate(record)


def test_error_codes_are_those_of_the_error_tree(validator):
    codes = validator.schema["$defs"]["error"]["properties"]["error"]["properties"]["code"]["enum"]
    tree = {genzqa.InputError, *genzqa.InputError.__subclasses__()}
    assert set(codes) == {kind.code for kind in tree}

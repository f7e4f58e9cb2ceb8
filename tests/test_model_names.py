import json
import subprocess
import sys

import pytest

from genzqa.errors import ConfigError
from genzqa.model.names import ModelName, parse_name
from genzqa.model.registry import NO_CHECKSUM, embedded_folder, list_models, lookup


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mini", ModelName("registry", "mini")),
        ("sd-turbo", ModelName("registry", "sd-turbo")),
        ("hf-hub:org/repo", ModelName("hf-hub", "org/repo")),
        ("hf-hub:org/my.repo-2@v1.0", ModelName("hf-hub", "org/my.repo-2", "v1.0")),
        ("hf-hub:org/repo@refs/pr/3", ModelName("hf-hub", "org/repo", "refs/pr/3")),
        ("local-dir:./my run", ModelName("local-dir", "./my run")),
        ("local-dir:C:\\models\\x", ModelName("local-dir", "C:\\models\\x")),
        ("local-dir:~/a@b", ModelName("local-dir", "~/a@b")),
        ("file:x.safetensors", ModelName("file", "x.safetensors")),
    ],
)
def test_spellings_are_read_and_written_back(text, expected):
    assert parse_name(text) == expected
    assert str(parse_name(text)) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("./my-run", "write local-dir:./my-run"),
        ("~/my-run", "write local-dir:~/my-run"),
        ("/abs/path/x", "write local-dir:/abs/path/x"),
        ("a\\b", "write local-dir:a\\b"),
        ("C:\\models", "write local-dir:C:\\models"),
        ("model.safetensors", "write file:model.safetensors"),
        ("dir/Model.SafeTensors", "write file:dir/Model.SafeTensors"),
        ("x.ckpt", "convert it to safetensors"),
        ("x.bin", "convert it to safetensors"),
        ("x.pt", "convert it to safetensors"),
        ("file:x.ckpt", "convert it to safetensors"),
        ("file:x.SAFETENSORS", "convert it to safetensors"),
        ("org/repo", "write hf-hub:org/repo for the repository, local-dir:org/repo for a folder"),
        ("sd2.1", "did you mean sd21? registered models: mini, mini-student, sd15, sd21, sd-turbo"),
        ("zzz", "registered models: mini, mini-student, sd15, sd21, sd-turbo"),
        ("MINI", "did you mean mini?"),
        ("", "hf-hub:ORG/REPO"),
        ("   ", "hf-hub:ORG/REPO"),
        ("a\0b", "hf-hub:ORG/REPO"),
        ("x" * 5000, "registered models"),
        ("hub:org/repo", "hf-hub:ORG/REPO"),
        ("https://host/model", "hf-hub:ORG/REPO"),
        ("local-dir:", "local-dir:FOLDER"),
        ("file:", "file:CHECKPOINT"),
        ("hf-hub:repo", "hf-hub:ORG/REPO"),
        ("hf-hub:a/b/c", "hf-hub:ORG/REPO"),
        ("hf-hub:../x", "hf-hub:ORG/REPO"),
        ("hf-hub:org/repo@", "hf-hub:ORG/REPO@REVISION"),
        ("hf-hub:org/repo@../../etc", "hf-hub:ORG/REPO@REVISION"),
        ("hf-hub:org/repo\n", "hf-hub:ORG/REPO"),
    ],
)
def test_malformed_names_say_the_right_spelling(text, hint):
    with pytest.raises(ConfigError) as error:
        parse_name(text)
    assert hint in error.value.hint


def test_a_bare_name_on_disk_is_not_guessed_to_be_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("my-run", "mini", "org/repo"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ConfigError, match="write local-dir:my-run"):
        parse_name("my-run")
    with pytest.raises(ConfigError, match=r"write local-dir:org/repo\)"):
        parse_name("org/repo")
    assert parse_name("mini").kind == "registry"


def test_registry_facts():
    assert [model.name for model in list_models()] == [
        "mini",
        "mini-student",
        "sd15",
        "sd21",
        "sd-turbo",
        "slowfast-r50",
    ]
    assert [model.name for model in list_models() if model.kind == "scorer"] == ["mini"]
    assert [model.text_width for model in list_models()] == [64, 0, 768, 1024, 1024, 0]
    assert "November 2025" in lookup("sd21").notes
    assert len(lookup("sd21").sources) == 2
    for model in list_models():
        assert model.licence.url.startswith("https://")
        assert model.embedded == (embedded_folder(model.name) is not None)
        assert model.embedded or model.sha256 or NO_CHECKSUM in model.notes
    with pytest.raises(ConfigError, match="did you mean sd15"):
        lookup("sd1.5")


@pytest.mark.parametrize("module", ["genzqa.cli.models", "genzqa.model.hub", "genzqa.model.checksums"])
def test_importing_costs_no_heavy_library(module):
    code = f"import sys, json, {module}; print(json.dumps(list(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert not {"torch", "diffusers", "transformers", "huggingface_hub"} & set(loaded)

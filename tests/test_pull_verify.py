import fnmatch
import json
import shutil
import socket
from pathlib import Path

import huggingface_hub
import pytest
import typer
from huggingface_hub import errors
from typer.testing import CliRunner

from genzqa.cli.models import models_command, pull_command, verify_command
from genzqa.errors import ConfigError, ModelCorruptError, ModelNotFoundError, OfflineError, OutputError
from genzqa.model import registry
from genzqa.model.base import load_base, locate_base
from genzqa.model.checksums import verify
from genzqa.model.folder import file_digests
from genzqa.model.hub import pull

COMMIT = "0123456789abcdef0123456789abcdef01234567"
UNET = "unet/diffusion_pytorch_model.safetensors"
FIRST, SECOND = registry.lookup("sd21").sources

app = typer.Typer()
app.command("models")(models_command)
app.command("pull")(pull_command)
app.command("verify")(verify_command)


class Hub:
    """Stands in for `snapshot_download` alone: repositories are folders, the cache is a folder."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.repos: dict[str, Path | Exception] = {}
        self.fetched: list[str] = []

    def snapshot_download(
        self, repo_id, *, revision=None, allow_patterns, local_files_only=False, force_download=False
    ):
        snapshot = self.cache / repo_id.replace("/", "--") / COMMIT
        if local_files_only:
            if not snapshot.is_dir():
                raise errors.LocalEntryNotFoundError("not cached")
            return str(snapshot)
        source = self.repos.get(repo_id, errors.LocalEntryNotFoundError("no connection"))
        if isinstance(source, Exception):
            raise source
        assert revision in (None, "main", COMMIT)
        for file in sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()):
            target = snapshot / file
            wanted = any(fnmatch.fnmatch(file, pattern) for pattern in allow_patterns)
            if wanted and (force_download or not target.exists()):
                self.fetched.append(file)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / file, target)
        return str(snapshot)


def hub_error(kind):
    """The client builds these from an HTTP response, whose class differs between its versions."""
    error = kind.__new__(kind)
    error.args = (kind.__name__,)
    return error


@pytest.fixture
def hub(tmp_path, monkeypatch, sd15_small_base):
    monkeypatch.setenv("GENZQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("GENZQA_OFFLINE", raising=False)
    hub = Hub(tmp_path / "hub")
    hub.repos = {"org/repo": sd15_small_base, FIRST: sd15_small_base}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


@pytest.fixture
def no_connections(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.fixture
def mini(tmp_path, monkeypatch, sd15_small_base):
    """An embedded model: the package's folder stands elsewhere, its manifest is written as for a release."""
    monkeypatch.setattr(registry, "PACKAGE_FOLDER", tmp_path / "package")
    folder = tmp_path / "package" / "embedded" / "mini"
    shutil.copytree(sd15_small_base, folder / "base")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "config.json").write_text("{}")
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    (folder / "manifest.json").write_text(json.dumps(file_digests(folder, files)))
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


# pull


def test_pull_fetches_what_a_score_needs_and_nothing_else(hub, base_copy):
    (base_copy / "model_index.json").write_text("{}")
    (base_copy / "README.md").write_text("unneeded")
    (base_copy / "v1-5-pruned.ckpt").write_bytes(b"unneeded")
    (base_copy / "unet/diffusion_pytorch_model.bin").write_bytes(b"unneeded")
    (base_copy / "unet/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"unneeded")
    (base_copy / "text_encoder/model.fp16.safetensors").write_bytes(b"unneeded")
    hub.repos["org/repo"] = base_copy
    pulled = pull("hf-hub:org/repo@main")
    assert pulled.repo == "org/repo"
    assert pulled.failed == {}
    assert set(hub.fetched) == {*pulled.files, "model_index.json"}
    assert {UNET, "tokenizer/vocab.json", "scheduler/scheduler_config.json"} <= set(pulled.files)
    assert locate_base("hf-hub:org/repo@main") == pulled.folder
    assert load_base("hf-hub:org/repo@main").name == "hf-hub:org/repo@main"


def test_pull_takes_half_precision_only_where_there_is_nothing_else(hub, base_copy):
    (base_copy / UNET).rename(base_copy / "unet/diffusion_pytorch_model.fp16.safetensors")
    shutil.copyfile(base_copy / "text_encoder/model.safetensors", base_copy / "text_encoder/model.fp16.safetensors")
    hub.repos["org/repo"] = base_copy
    files = pull("hf-hub:org/repo").files
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in files
    assert "text_encoder/model.fp16.safetensors" not in hub.fetched


def test_another_family_is_refused_before_its_weights_come(hub, base_copy):
    config = base_copy / "unet/config.json"
    content = json.loads(config.read_text()) | {"addition_embed_type": "text_time"}
    config.unlink()
    config.write_text(json.dumps(content))
    hub.repos["org/repo"] = base_copy
    with pytest.raises(ModelCorruptError, match="Stable Diffusion XL"):
        pull("hf-hub:org/repo")
    assert not [file for file in hub.fetched if file.endswith(".safetensors")]


def test_mirrors_are_tried_in_order_and_each_failure_is_told(hub, sd15_small_base):
    hub.repos = {FIRST: hub_error(errors.RepositoryNotFoundError), SECOND: sd15_small_base}
    pulled = pull("sd21")
    assert pulled.repo == SECOND
    assert list(pulled.failed) == [FIRST]
    assert "no such repository" in pulled.failed[FIRST]


def test_when_all_sources_fail_the_error_lists_them(hub, base_copy):
    (base_copy / UNET).rename(base_copy / "unet/diffusion_pytorch_model.bin")
    hub.repos = {FIRST: base_copy, SECOND: OSError("No space left on device")}
    with pytest.raises(ModelNotFoundError) as error:
        pull("sd21")
    assert FIRST in error.value.reason
    assert f"{FIRST}: {UNET} is missing" in error.value.reason
    assert f"{SECOND}: No space left on device" in error.value.reason


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (errors.GatedRepoError, "licence accepted"),
        (errors.RevisionNotFoundError, "no such revision"),
        (errors.LocalEntryNotFoundError, "no connection"),
    ],
)
def test_download_errors_are_said_in_words(hub, kind, reason):
    hub.repos["org/repo"] = hub_error(kind)
    with pytest.raises(ModelNotFoundError, match=reason) as error:
        pull("hf-hub:org/repo")
    assert ("hf auth login" in error.value.hint) == (kind is errors.GatedRepoError)


def test_local_names_are_not_pulled(hub, tmp_path):
    for name in (f"local-dir:{tmp_path}", "file:x.safetensors"):
        with pytest.raises(ConfigError):
            pull(name)
        with pytest.raises(ConfigError):
            verify(name)


def test_a_record_that_cannot_be_written_is_said(hub, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="checksums"):
        pull("hf-hub:org/repo")


def test_what_is_here_is_not_downloaded_again(hub):
    pull("hf-hub:org/repo")
    hub.repos.clear()
    assert locate_base("hf-hub:org/repo").is_dir()
    # Found in the hub's own cache as well, as other programs leave it, when nothing was recorded.
    shutil.rmtree(hub.cache.parent / "cache")
    assert locate_base("hf-hub:org/repo").is_dir()


def test_loading_downloads_what_is_not_here(hub):
    load_base("hf-hub:org/repo")
    assert UNET in hub.fetched


# offline


@pytest.mark.parametrize("variable", [None, "HF_HUB_OFFLINE", "GENZQA_OFFLINE"])
@pytest.mark.parametrize("name", ["sd21", "hf-hub:org/repo"])
def test_offline_never_opens_a_connection(tmp_path, monkeypatch, no_connections, variable, name):
    """With the real client and an empty cache."""
    monkeypatch.setenv("GENZQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    if variable:
        monkeypatch.setenv(variable, "1")
    with pytest.raises(OfflineError) as error:
        load_base(name, offline=variable is None)
    assert f"genzqa pull {name}" in error.value.hint
    with pytest.raises(OfflineError):
        pull(name, offline=variable is None)


def test_offline_loads_what_was_pulled(hub, monkeypatch, no_connections):
    pull("sd21")
    monkeypatch.setenv("GENZQA_OFFLINE", "1")
    assert load_base("sd21").name == "sd21"


def test_offline_takes_no_half_download(hub):
    folder = pull("sd21").folder
    (folder / UNET).unlink()
    with pytest.raises(OfflineError):
        locate_base("sd21", offline=True)


# verify


def test_verify_finds_damage_and_pull_repairs_it(hub):
    folder = pull("sd21").folder
    assert all(check.ok for check in verify("sd21"))
    flip(folder / UNET)
    (folder / "tokenizer/merges.txt").unlink()
    damaged = {check.file: check for check in verify("sd21") if not check.ok}
    assert set(damaged) == {UNET, "tokenizer/merges.txt"}
    assert damaged["tokenizer/merges.txt"].got == ""
    assert len(damaged[UNET].got) == len(damaged[UNET].expected) == 64
    pull("sd21")
    assert all(check.ok for check in verify("sd21"))


def test_loading_refuses_changed_weights(hub):
    folder = pull("sd21").folder
    flip(folder / UNET)
    with pytest.raises(ModelCorruptError, match="recorded checksum") as error:
        load_base("sd21")
    assert "genzqa pull sd21" in error.value.hint


def test_a_source_that_changed_under_the_same_commit_is_refused(hub, sd15_small_base, tmp_path):
    folder = pull("hf-hub:org/repo").folder
    hub.repos["org/repo"] = Path(shutil.copytree(sd15_small_base, tmp_path / "changed"))
    flip(tmp_path / "changed" / UNET)
    flip(folder / UNET)
    with pytest.raises(ModelCorruptError, match="recorded checksum"):
        pull("hf-hub:org/repo")


def test_published_checksums_win_over_recorded_ones(hub, monkeypatch):
    model = registry.lookup("sd15")
    hub.repos[model.sources[0]] = hub.repos["org/repo"]
    monkeypatch.setitem(model.sha256, UNET, "0" * 64)
    with pytest.raises(ModelCorruptError, match="recorded checksum"):
        pull("sd15")


def test_what_was_never_pulled_cannot_be_verified(hub):
    with pytest.raises(ModelNotFoundError, match="genzqa pull sd15"):
        verify("sd15")


@pytest.mark.parametrize("content", ["", "[]", '{"folder": 3}', '{"folder": "x", "files": 3}'])
def test_a_broken_record_counts_as_none(hub, content):
    pull("sd21")
    next((hub.cache.parent / "cache").rglob("*.json")).write_text(content)
    with pytest.raises(ModelNotFoundError):
        verify("sd21")
    assert locate_base("sd21").is_dir()


# the model inside the package


def test_embedded_model_needs_no_download(mini, hub, no_connections):
    assert locate_base("mini", offline=True) == mini / "base"
    assert pull("mini", offline=True).repo == ""
    assert load_base("mini", offline=True).name == "mini"
    assert all(check.ok for check in verify("mini"))
    assert hub.fetched == []


def test_embedded_model_is_checked_against_its_manifest(mini):
    flip(mini / "base" / UNET)
    (mini / "adapter" / "config.json").write_text("{ }")
    assert [check.file for check in verify("mini") if not check.ok] == ["adapter/config.json", f"base/{UNET}"]
    with pytest.raises(ModelCorruptError, match="reinstall"):
        load_base("mini")


def test_an_installation_without_the_embedded_model_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "PACKAGE_FOLDER", tmp_path)
    for action in (locate_base, pull, verify):
        with pytest.raises(ModelNotFoundError, match="reinstall"):
            action("mini")


# the commands


def test_models_command(hub, mini):
    pull("sd21")
    listed = json.loads(CliRunner().invoke(app, ["models", "--json"]).output)["models"]
    by_name = {row["name"]: row for row in listed}
    assert by_name["mini"]["trained"] is True
    assert by_name["mini"]["folder"] == str(mini / "base")
    assert by_name["sd21"]["folder"]
    assert by_name["sd15"]["folder"] is None
    assert by_name["sd-turbo"]["licence"]["name"] == "Stability AI Community License"
    table = CliRunner().invoke(app, ["models"], env={"COLUMNS": "120"})
    assert table.exit_code == 0
    for word in ("mini", "sd21", "CreativeML OpenRAIL++-M", "5.2 GB", "November 2025"):
        assert word in " ".join(table.output.split())


def test_pull_command(hub, mini):
    result = CliRunner().invoke(app, ["pull", "sd21"])
    assert result.exit_code == 0
    assert FIRST in result.output
    assert "no published checksum recorded" in result.output
    assert "nothing to download" in CliRunner().invoke(app, ["pull", "mini"]).output
    assert isinstance(CliRunner().invoke(app, ["pull", "./x"]).exception, ConfigError)


def test_verify_command_exits_with_1_on_damage(hub):
    folder = pull("sd21").folder
    good = CliRunner().invoke(app, ["verify", "sd21"])
    assert good.exit_code == 0
    assert "files ok" in good.output
    flip(folder / UNET)
    (folder / "vae/config.json").unlink()
    bad = CliRunner().invoke(app, ["verify", "sd21"])
    assert bad.exit_code == 1
    assert f"{UNET}: expected" in bad.output
    assert "vae/config.json: missing" in bad.output

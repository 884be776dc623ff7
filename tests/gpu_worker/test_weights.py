import json
import threading
import traceback
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import structlog
import structlog.testing
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from core.catalogue import BundledSource, DirectorySource, HubSource, ModelEntry
from core.errors import WeightsError
from core.pins import RemoteFile
from gpu_worker.demo_model import WEIGHTS
from gpu_worker.hub import Hub, needed_files
from gpu_worker.weights import WeightsStore
from tests.hub_server import REVISION, HubServer, git_hash

TOKEN = "hf_madeup"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def hub_entry(demo_entry: ModelEntry) -> ModelEntry:
    source = HubSource(kind="hub", repository="studio/model", revision=REVISION)
    return demo_entry.model_copy(update={"source": source})


def _store(root: Path, hub: HubServer, *, attempts: int = 3) -> WeightsStore:
    return WeightsStore(root, hub=Hub(endpoint=hub.address, token=TOKEN, attempts=attempts, first_delay=0.01))


def _directory(entry: ModelEntry, folder: Path) -> ModelEntry:
    return entry.model_copy(update={"source": DirectorySource(kind="directory", path=folder)})


def test_the_bundled_model_is_used_where_it_is_installed(demo_entry: ModelEntry, tmp_path: Path) -> None:
    assert WeightsStore(tmp_path).ensure(demo_entry) == WEIGHTS
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_bundled_model_is_an_error_that_names_it(demo_entry: ModelEntry, tmp_path: Path) -> None:
    entry = demo_entry.model_copy(update={"source": BundledSource(kind="bundled", name="nonesuch")})
    with pytest.raises(WeightsError, match=r"darkroom-demo.*nonesuch"):
        WeightsStore(tmp_path).ensure(entry)


def test_a_directory_is_used_where_it_lies(
    demo_entry: ModelEntry, model_folder: Path, tmp_path: Path
) -> None:
    assert WeightsStore(tmp_path).ensure(_directory(demo_entry, model_folder)) == model_folder
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), r"model_index\.json is missing"),
        (lambda folder: (folder / "model_index.json").write_text("{"), r"model_index\.json is not JSON"),
        (lambda folder: (folder / "model_index.json").write_text("[]"), "not a JSON object"),
        (lambda folder: (folder / "model_index.json").write_text("{}"), "names no text_encoder, unet, vae"),
        (
            lambda folder: (folder / "model_index.json").write_text('{"..": ["diffusers", "UNet"]}'),
            r"names '\.\.', which is no component",
        ),
        (lambda folder: (folder / "tokenizer").rename(folder / "elsewhere"), "tokenizer is missing"),
        (lambda folder: (folder / "vae" / "config.json").unlink(), r"vae/config\.json is missing"),
        (lambda folder: (folder / UNET).unlink(), "unet holds no safetensors file"),
        (
            lambda folder: (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.bin"),
            r"diffusion_pytorch_model\.bin could run code",
        ),
        (lambda folder: (folder / UNET).write_bytes((folder / UNET).read_bytes()[:-1]), "not a whole"),
        (lambda folder: (folder / UNET).write_bytes(b"\x80\x04pickle"), "not a whole safetensors file"),
        (lambda folder: save_file({}, folder / UNET), "holds no tensors"),
        (
            lambda folder: (folder / f"{UNET}.index.json").write_text('{"weight_map": {"a": "gone-1-of-2"}}'),
            "gone-1-of-2 is missing",
        ),
        (lambda folder: (folder / f"{UNET}.index.json").write_text("{}"), "has no weight_map"),
    ],
)
def test_a_directory_with_something_wrong_is_refused_by_name(
    spoil: Callable[[Path], object],
    message: str,
    demo_entry: ModelEntry,
    own_model_folder: Path,
    tmp_path: Path,
) -> None:
    spoil(own_model_folder)
    with pytest.raises(WeightsError, match=rf"model darkroom-demo: .*{message}"):
        WeightsStore(tmp_path).ensure(_directory(demo_entry, own_model_folder))


def test_a_model_of_another_family_is_refused(
    demo_entry: ModelEntry, own_model_folder: Path, tmp_path: Path
) -> None:
    entry = _directory(demo_entry, own_model_folder)
    with pytest.raises(WeightsError, match="names no text_encoder_2, which sdxl needs"):
        WeightsStore(tmp_path).ensure(entry.model_copy(update={"family": "sdxl"}))
    index = json.loads((own_model_folder / "model_index.json").read_text())
    index["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
    (own_model_folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="not of family sd1"):
        WeightsStore(tmp_path).ensure(entry)


def test_a_hub_model_is_downloaded_with_what_inference_needs_and_no_more(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A fresh logger: one that was used before may be bound to another test's settings.
    monkeypatch.setattr("gpu_worker.hub._log", structlog.get_logger())
    with structlog.testing.capture_logs() as lines:
        folder = _store(tmp_path, hub_server).ensure(hub_entry)
    names = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert names == set(hub_server.fetched)
    assert hub_server.tokens == {f"Bearer {TOKEN}"}
    assert {name for name in names if name.endswith(".safetensors")} == {
        UNET,
        "text_encoder/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert all((folder / name).read_bytes() == hub_server.files[name] for name in names)
    StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    [told] = [line for line in lines if line["event"] == "weights.download" and line["files"] > 1]
    assert told["bytes"] == sum(len(hub_server.files[name]) for name in names)


def test_a_downloaded_model_needs_no_network_again(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    folder = _store(tmp_path, hub_server).ensure(hub_entry)
    hub_server.requests.clear()
    assert _store(tmp_path, hub_server).ensure(hub_entry) == folder
    assert hub_server.requests == []


def test_a_missing_revision_is_an_error_at_once(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    hub_server.revision = "f" * 40
    with pytest.raises(WeightsError, match=rf"darkroom-demo: studio/model@{REVISION}: 404.*"):
        _store(tmp_path, hub_server).ensure(hub_entry)
    assert len(hub_server.requests) == 1


def test_a_repository_that_is_not_there_is_an_error_at_once(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    hub_server.repository = "studio/other"
    with pytest.raises(WeightsError, match=r"studio/model@.*401"):
        _store(tmp_path, hub_server).ensure(hub_entry)
    assert len(hub_server.requests) == 1


def test_a_repository_without_an_index_is_an_error(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    del hub_server.files["model_index.json"]
    with pytest.raises(WeightsError, match=r"has no model_index\.json"):
        _store(tmp_path, hub_server).ensure(hub_entry)


def test_a_repository_with_pickles_alone_is_refused(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    del hub_server.files[UNET]
    with pytest.raises(WeightsError, match="unet holds no safetensors file"):
        _store(tmp_path, hub_server).ensure(hub_entry)
    assert not [name for name in hub_server.fetched if name.endswith(".bin")]


def test_a_broken_off_file_is_taken_up_where_it_stopped(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    hub_server.cuts[UNET] = 1_000_000
    folder = _store(tmp_path, hub_server).ensure(hub_entry)
    assert (folder / UNET).read_bytes() == hub_server.files[UNET]
    [_, (_, second)] = [request for request in hub_server.requests if request[0].endswith(UNET)]
    assert second == "bytes=1000000-"


def test_a_restarted_worker_takes_a_download_up_where_it_stopped(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    hub_server.cuts[UNET] = 1_000_000
    with pytest.raises(WeightsError, match=rf"{UNET}: given up after 1 attempts"):
        _store(tmp_path, hub_server, attempts=1).ensure(hub_entry)
    hub_server.requests.clear()
    folder = _store(tmp_path, hub_server, attempts=1).ensure(hub_entry)
    assert (folder / UNET).read_bytes() == hub_server.files[UNET]
    assert [span for path, span in hub_server.requests if path.endswith(UNET)] == ["bytes=1000000-"]
    assert "model_index.json" not in hub_server.fetched


def test_a_busy_hub_is_asked_again(hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path) -> None:
    hub_server.failures[UNET] = [HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS]
    assert _store(tmp_path, hub_server).ensure(hub_entry).is_dir()
    assert hub_server.fetched.count(UNET) == 3


def test_a_hub_that_stays_broken_is_given_up(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    hub_server.failures[UNET] = [HTTPStatus.BAD_GATEWAY] * 9
    with pytest.raises(
        WeightsError, match=rf"studio/model@{REVISION}/{UNET}: given up after 3 attempts: .*502"
    ):
        _store(tmp_path, hub_server).ensure(hub_entry)
    assert hub_server.fetched.count(UNET) == 3


def test_a_hub_out_of_reach_is_given_up(hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path) -> None:
    nowhere = Hub(endpoint="http://127.0.0.1:1", token=TOKEN, attempts=2, first_delay=0.01)
    with pytest.raises(WeightsError, match=r"studio/model@.*given up after 2 attempts"):
        WeightsStore(tmp_path, hub=nowhere).ensure(hub_entry)
    assert hub_server.requests == []


def test_a_malformed_token_is_an_error_that_does_not_show_it(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    hub = Hub(endpoint=hub_server.address, token="sec\nret", attempts=2, first_delay=0.01)
    with pytest.raises(WeightsError, match="token is malformed") as caught:
        WeightsStore(tmp_path, hub=hub).ensure(hub_entry)
    assert "ret'" not in "".join(traceback.format_exception(caught.value))


def test_a_file_with_a_wrong_byte_is_fetched_anew(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    hub_server.corrupted |= {UNET, "vae/config.json"}
    folder = _store(tmp_path, hub_server).ensure(hub_entry)
    for name in (UNET, "vae/config.json"):
        assert (folder / name).read_bytes() == hub_server.files[name]
        assert hub_server.fetched.count(name) == 2


def test_a_file_that_arrives_wrong_twice_in_the_same_way_is_refused_with_both_hashes(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    store = _store(tmp_path, hub_server, attempts=9)
    listed = hub_server.listing()
    hub_server.files["vae/config.json"] += b" "
    [file] = [entry for entry in listed if entry["path"] == "vae/config.json"]
    hub_server.listed = listed
    found = git_hash(hub_server.files["vae/config.json"])
    with pytest.raises(
        WeightsError, match=rf"vae/config\.json: expected the hash {file['oid']}, found {found}"
    ):
        store.ensure(hub_entry)
    assert hub_server.fetched.count("vae/config.json") == 2


def test_a_spoilt_file_of_an_unfinished_download_is_fetched_anew(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    hub_server.cuts[UNET] = 1_000_000
    with pytest.raises(WeightsError, match="given up"):
        _store(tmp_path, hub_server, attempts=1).ensure(hub_entry)
    [text_encoder] = tmp_path.rglob("*.partial/text_encoder/model.safetensors")
    text_encoder.write_bytes(b"spoilt")
    folder = _store(tmp_path, hub_server).ensure(hub_entry)
    name = "text_encoder/model.safetensors"
    assert (folder / name).read_bytes() == hub_server.files[name]


def test_a_hub_model_without_a_revision_is_refused(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    source = HubSource(kind="hub", repository="studio/model")
    with pytest.raises(WeightsError, match="studio/model is not pinned"):
        _store(tmp_path, hub_server).ensure(hub_entry.model_copy(update={"source": source}))
    assert hub_server.requests == []


def test_only_one_of_several_workers_downloads(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    folders: list[Path] = []
    workers = [
        threading.Thread(target=lambda: folders.append(_store(tmp_path, hub_server).ensure(hub_entry)))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(folders) == 3
    assert len(set(folders)) == 1
    assert len(hub_server.fetched) == len(set(hub_server.fetched))


def test_a_variant_is_taken_where_there_is_one(
    hub_server: HubServer, hub_entry: ModelEntry, tmp_path: Path
) -> None:
    half = "unet/diffusion_pytorch_model.fp16.safetensors"
    save_file(
        {name: tensor.half() for name, tensor in _tensors(hub_server, UNET, tmp_path).items()},
        tmp_path / "half",
    )
    hub_server.files[half] = (tmp_path / "half").read_bytes()
    source = HubSource(kind="hub", repository="studio/model", revision=REVISION, variant="fp16")
    folder = _store(tmp_path, hub_server).ensure(hub_entry.model_copy(update={"source": source}))
    assert half in hub_server.fetched
    assert UNET not in hub_server.fetched
    assert "text_encoder/model.safetensors" in hub_server.fetched
    StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, variant="fp16")


def _tensors(hub: HubServer, name: str, folder: Path) -> dict[str, Any]:
    (folder / "full").write_bytes(hub.files[name])
    return dict(load_file(folder / "full"))


def test_shards_of_the_variant_asked_for_are_chosen_and_nothing_outside_a_component() -> None:
    listing = [
        RemoteFile(path, 1, "0" * 40)
        for path in (
            "unet/m-00001-of-00002.safetensors",
            "unet/m.fp16-00001-of-00002.safetensors",
            "unet/m.safetensors.index.fp16.json",
            "unet/deeper/m.safetensors",
            "unet/../../m.safetensors",
            "unet/flax_model.msgpack",
            "m.safetensors",
        )
    ]
    plain = [file.path for file in needed_files(listing, {"unet"}, None)]
    assert plain == ["unet/m.safetensors.index.fp16.json", "unet/m-00001-of-00002.safetensors"]
    half = [file.path for file in needed_files(listing, {"unet"}, "fp16")]
    assert half == ["unet/m.safetensors.index.fp16.json", "unet/m.fp16-00001-of-00002.safetensors"]

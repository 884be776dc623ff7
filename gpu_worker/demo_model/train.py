"""``python -m gpu_worker.demo_model.train``: makes the bundled model from nothing but its seed.

Draws the scenes, learns the tokenizer, trains the autoencoder, the text encoder and then the U-Net, and
writes the model. Every stage is kept in the working folder: a run that was stopped goes on where it was.
"""

import argparse
import shutil
from pathlib import Path
from typing import Final

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.logging import disable_progress_bar
from transformers import CLIPTokenizer

from gpu_worker.demo_model import architecture
from gpu_worker.demo_model.dataset import Dataset, drawn
from gpu_worker.demo_model.saving import save_half
from gpu_worker.demo_model.sheet import PROMPTS, write_sheet
from gpu_worker.demo_model.train_text import train_text
from gpu_worker.demo_model.train_unet import train_unet
from gpu_worker.demo_model.train_vae import train_vae
from gpu_worker.demo_model.training import Schedule
from gpu_worker.pipeline import use_cores

_FOR_TOKENIZER: Final = 20_000
_SHEET_EVERY: Final = 1000


def main() -> None:
    """Train with what the command line says."""
    options = _options()
    torch.manual_seed(options.seed)
    disable_progress_bar()
    if options.device == "cpu":
        use_cores()
    else:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    options.folder.mkdir(parents=True, exist_ok=True)
    datasets = drawn(options.folder / "scenes", scenes=options.scenes, seed=options.seed)
    pipeline = _trained(options, datasets)
    target = options.folder / "model"
    shutil.rmtree(target, ignore_errors=True)
    save_half(pipeline, target)
    print(f"The model is {target}.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_worker.demo_model.train", description=__doc__)
    parser.add_argument("folder", type=Path, help="working folder; a run that was stopped goes on from it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=300_000, help="how many to draw (60 KB each on disk)")
    parser.add_argument("--vae-steps", type=int, default=10_000)
    parser.add_argument("--vae-batch", type=int, default=64)
    parser.add_argument("--text-steps", type=int, default=1500)
    parser.add_argument("--text-batch", type=int, default=256)
    parser.add_argument("--unet-steps", type=int, default=24_000)
    parser.add_argument("--unet-batch", type=int, default=256)
    parser.add_argument("--unet-rate", type=float, default=1e-3, help="the highest learning rate")
    parser.add_argument("--sheet", type=int, default=len(PROMPTS), help="pictures on a sheet, at most")
    parser.add_argument("--start", type=Path, help="go on from this model's weights; only its U-Net changes")
    return parser.parse_args()


def _trained(options: argparse.Namespace, datasets: list[Dataset]) -> StableDiffusionPipeline:
    device = torch.device(options.device)
    pipeline = (
        StableDiffusionPipeline.from_pretrained(options.start, use_safetensors=True).to(device)
        if options.start
        else _begun(options, datasets[0], device)
    )

    def show(step: int) -> None:
        if step % _SHEET_EVERY == 0 or step == options.unet_steps:
            prompts = PROMPTS[: options.sheet]
            write_sheet(pipeline, options.folder / f"unet-{step:06d}.png", prompts=prompts)

    train_unet(
        pipeline,
        datasets,
        Schedule(options.unet_steps, options.unet_batch, options.unet_rate, warm_up=200, average=0.999),
        options.folder,
        show,
    )
    return pipeline


def _begun(options: argparse.Namespace, dataset: Dataset, device: torch.device) -> StableDiffusionPipeline:
    """A model with a trained autoencoder and text encoder, and an untrained U-Net."""
    tokenizer = _tokenizer(options.folder / "tokenizer", dataset)
    vae = architecture.new_vae().to(device)
    schedule = Schedule(options.vae_steps, options.vae_batch, learning_rate=8e-4, warm_up=200, average=0.999)
    train_vae(vae, dataset, schedule, options.folder, device)
    text_encoder = architecture.new_text_encoder(tokenizer).to(device)
    schedule = Schedule(options.text_steps, options.text_batch, learning_rate=1e-3, warm_up=50, average=0.99)
    train_text(text_encoder, tokenizer, dataset, schedule, options.folder)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=architecture.new_unet().to(device),
        scheduler=architecture.new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _tokenizer(folder: Path, dataset: Dataset) -> CLIPTokenizer:
    """The tokenizer kept in ``folder``, learned first where there is none: weights depend on its ids."""
    if not folder.exists():
        texts = [text for captions in dataset.captions[:_FOR_TOKENIZER] for text in captions]
        architecture.learn_tokenizer(texts).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


if __name__ == "__main__":
    main()

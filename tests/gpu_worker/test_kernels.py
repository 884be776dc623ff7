"""The Triton kernels: on the GPU where there is one, else by Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gpu_worker.engine import fp8, operations

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["single", "half"])


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    pytest.importorskip("triton", reason="there is no Triton for this system")
    from gpu_worker.engine import kernels  # noqa: PLC0415 - Triton is not everywhere

    return kernels


def drawn(*shape: int, dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return (2 * numbers + 3).to(DEVICE, dtype)


def assert_as_good(ours: torch.Tensor, plain: torch.Tensor, exact: torch.Tensor) -> None:
    """Ours is at most as far from the exact result as torch's own, but for single roundings."""
    rounding = torch.finfo(ours.dtype).eps * exact.abs().max()
    worst = (plain.double() - exact).abs().max()
    assert (ours.double() - exact).abs().max() <= worst + rounding


@PRECISIONS
@pytest.mark.parametrize("shape", [(2, 64, 8, 8), (3, 96, 5, 7), (1, 20, 40, 33)], ids=str)
@pytest.mark.parametrize("shifts", [0, 1, "each"])
def test_group_norm(
    kernels: ModuleType, dtype: torch.dtype, shape: tuple[int, ...], shifts: int | str
) -> None:
    pixels = drawn(*shape, dtype=dtype).to(memory_format=torch.channels_last)
    weight, bias = drawn(shape[1], dtype=dtype, seed=2), drawn(shape[1], dtype=dtype, seed=3)
    shift = None
    if shifts:
        shift = drawn(shape[0] if shifts == "each" else 1, shape[1], dtype=dtype, seed=4)

    def plain(precision: torch.dtype, *, silu: bool) -> torch.Tensor:
        given = pixels.to(precision)
        if shift is not None:
            given = given + shift.to(precision)[:, :, None, None]
        normal = torch.nn.functional.group_norm(given, 4, weight.to(precision), bias.to(precision), 1e-5)
        return torch.nn.functional.silu(normal) if silu else normal

    for silu in (True, False):
        ours = kernels.group_norm(pixels, weight, bias, groups=4, eps=1e-5, shift=shift, silu=silu)
        assert ours.is_contiguous(memory_format=torch.channels_last)
        assert_as_good(ours, plain(dtype, silu=silu), plain(torch.float64, silu=silu))


@PRECISIONS
def test_group_norm_keeps_a_small_spread_about_a_large_mean(kernels: ModuleType, dtype: torch.dtype) -> None:
    pixels = (torch.randn(1, 8, 64, 64, generator=torch.Generator().manual_seed(1)) + 500).to(DEVICE, dtype)
    one, zero = torch.ones(8, device=DEVICE, dtype=dtype), torch.zeros(8, device=DEVICE, dtype=dtype)
    ours = kernels.group_norm(pixels, one, zero, groups=2, eps=1e-5)
    exact = torch.nn.functional.group_norm(pixels.double(), 2, eps=1e-5)
    torch.testing.assert_close(ours.double(), exact, atol=4e-3, rtol=2e-3)


@PRECISIONS
@pytest.mark.parametrize("biased", [True, False])
def test_add(kernels: ModuleType, dtype: torch.dtype, *, biased: bool) -> None:
    first, second = (drawn(2, 70, 9, 5, dtype=dtype, seed=seed) for seed in (1, 2))
    bias = drawn(70, dtype=dtype, seed=3) if biased else None
    ours = kernels.add(first, second, bias)
    exact = first.double() + second.double()
    exact = exact if bias is None else exact + bias.double()[:, None, None]
    assert_as_good(
        ours,
        operations.add(first.cpu(), second.cpu(), None if bias is None else bias.cpu()).to(DEVICE),
        exact,
    )


@PRECISIONS
@pytest.mark.parametrize(("channels", "rows", "columns"), [(8, 4, 2), (70, 6, 10)])
def test_interleave(kernels: ModuleType, dtype: torch.dtype, channels: int, rows: int, columns: int) -> None:
    quarters = drawn(2, 4 * channels, rows // 2 + 1, columns // 2 + 1, dtype=dtype)
    bias = drawn(channels, dtype=dtype, seed=2)
    ours = kernels.interleave(quarters, bias)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert ours.shape == (2, channels, rows, columns)
    torch.testing.assert_close(ours, operations.interleave(quarters.cpu(), bias.cpu()).to(DEVICE))


@PRECISIONS
@pytest.mark.parametrize("channels", [16, 40, 320])
def test_layer_norm_of_a_sum_and_alone(kernels: ModuleType, dtype: torch.dtype, channels: int) -> None:
    first, second = (drawn(2, 6, channels, dtype=dtype, seed=seed) for seed in (1, 2))
    weight, bias = (drawn(channels, dtype=dtype, seed=seed) for seed in (3, 4))
    total, normal = kernels.add_layer_norm(first, second, weight, bias, eps=1e-5)
    torch.testing.assert_close(total, first + second)
    plain = torch.nn.functional.layer_norm(total, (channels,), weight, bias, 1e-5)
    exact = torch.nn.functional.layer_norm(total.double(), (channels,), weight.double(), bias.double(), 1e-5)
    assert_as_good(normal, plain, exact)
    assert torch.equal(kernels.layer_norm(total, weight, bias, eps=1e-5), normal)


@PRECISIONS
@pytest.mark.parametrize("channels", [8, 1300])
def test_geglu(kernels: ModuleType, dtype: torch.dtype, channels: int) -> None:
    tokens = drawn(2, 3, 2 * channels, dtype=dtype) - 3
    wanted, gate = tokens.double().chunk(2, dim=-1)
    exact = wanted * torch.nn.functional.gelu(gate)
    plain = operations.geglu(tokens.cpu())
    assert isinstance(plain, torch.Tensor)
    assert_as_good(kernels.geglu(tokens), plain.to(DEVICE), exact)


def assert_scaled(ours: fp8.Scaled, exact: torch.Tensor) -> None:
    """Each row's largest number is the greatest, and every number is the next one that eight bits have."""
    assert ours.values.dtype is torch.float8_e4m3fn
    values = ours.values.double()
    torch.testing.assert_close(values.abs().amax(-1), torch.full_like(values[..., 0], fp8.GREATEST))
    # Three bits of mantissa, and 2 ** -9 at the least.
    scales = ours.scales.double()
    near = (values * scales - exact).abs() <= (exact.abs() / 16 + 2**-10 * scales) * 1.01
    if DEVICE == "cpu":
        # Triton's interpreter loses the carry of a number that is rounded up to a power of two, and bits of
        # those that are smaller than any with an exponent.
        near |= torch.frexp(exact / scales).mantissa.abs() >= 1 - 2**-5
        near |= (exact / scales).abs() < 2**-6
    assert near.all()


@PRECISIONS
@pytest.mark.parametrize("channels", [16, 1300])
def test_eight_bits_of_each_kind(kernels: ModuleType, dtype: torch.dtype, channels: int) -> None:
    first, second = (drawn(2, 3, channels, dtype=dtype, seed=seed) for seed in (1, 2))
    weight, bias = (drawn(channels, dtype=dtype, seed=seed) for seed in (3, 4))
    assert_scaled(kernels.scale(first), first.double())
    total, normal = kernels.add_layer_norm(first, second, weight, bias, eps=1e-5, scaled=True)
    exact = torch.nn.functional.layer_norm(total.double(), (channels,), weight.double(), bias.double(), 1e-5)
    assert_scaled(normal, exact)
    assert_scaled(kernels.layer_norm(total, weight, bias, eps=1e-5, scaled=True), exact)
    wide = drawn(2, 3, 2 * channels, dtype=dtype) - 3
    wanted, gate = wide.double().chunk(2, dim=-1)
    assert_scaled(kernels.geglu(wide, scaled=True), wanted * torch.nn.functional.gelu(gate))


def test_a_product_in_eight_bits_is_off_by_little(kernels: ModuleType) -> None:
    dtype = torch.float16 if DEVICE == "cuda" else torch.float32
    layer = torch.nn.Linear(64, 32).to(DEVICE, dtype)
    tokens = drawn(2, 16, 64, dtype=dtype)
    exact = layer(tokens)
    ours = fp8.Fp8Linear(layer.weight, layer.bias)(tokens)
    assert ours.dtype is dtype
    assert (ours - exact).norm() / exact.norm() < 0.06


def test_every_kernel_can_be_built_for_a_gpu(kernels: ModuleType, tmp_path: Path) -> None:
    """The interpreter runs much that the compiler refuses."""
    from triton.runtime import KernelInterface  # noqa: PLC0415 - Triton is not everywhere

    env = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    built = subprocess.run(
        [sys.executable, "-m", "tests.gpu_worker.building"],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    everything = {name for name, value in vars(kernels).items() if isinstance(value, KernelInterface)}
    assert {*built.stdout.split()} == everything - {"_scaled"}

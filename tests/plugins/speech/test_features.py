"""Log-mel features: the maths of torchaudio, no leaks, nothing that depends on how loud a sound is."""

from __future__ import annotations

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.speech.speech_made import RATE, sounds

from modelwright_speech.features import LogMel, hop_of, inside, usual_mels, window_of
from modelwright_speech.masks import blanked


@pytest.mark.parametrize(("rate", "mels"), [(16000, 80), (8000, 40), (8000, 80), (22050, 80), (44100, 64)])
def test_the_power_in_each_band_is_torchaudios(rate, mels):
    features, samples = LogMel(rate, mels), sounds((rate,))[0]
    reference = torchaudio.transforms.MelSpectrogram(
        rate, n_fft=features.bins, win_length=features.window, hop_length=features.hop, n_mels=mels, center=False
    )
    wanted = reference(samples).transpose(1, 2)
    # torchaudio puts the window in the middle of the transform's frame.
    found = features._power(samples[:, (features.bins - features.window) // 2 :])[:, : wanted.shape[1]]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5 * float(wanted.max()))


@pytest.mark.parametrize(("rate", "mels"), [(16000, 80), (8000, 40), (11025, 64), (22050, 80)])
def test_the_transform_in_two_steps_is_the_same(rate, mels):
    features, samples = LogMel(rate, mels), sounds((rate + 77,))[0]
    torch.testing.assert_close(
        features._in_steps(samples), features._power(samples), rtol=1e-4, atol=1e-5 * float(samples.abs().max())
    )


def test_no_band_is_without_a_frequency():
    for rate, mels in ((8000, 40), (8000, 80), (16000, 80), (16000, 128)):
        assert bool((LogMel(rate, mels).bands.amax(dim=0) > 0).all())


def test_sizes_follow_the_rate():
    assert (window_of(16000), hop_of(16000), usual_mels(16000)) == (400, 160, 80)
    assert (window_of(8000), hop_of(8000), usual_mels(8000)) == (200, 80, 40)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 12000), min_size=1, max_size=4))
def test_nothing_leaks_between_neighbours(lengths):
    features = LogMel(RATE, 40)
    lengths = [*lengths, 4000]
    samples, sizes = sounds(tuple(lengths))
    together, frames = features(samples, sizes)
    for row, length in enumerate(lengths):
        alone = torch.zeros(1, max(length, features.window))
        alone[0, :length] = samples[row, :length]
        own, count = features(alone, sizes[row : row + 1])
        assert int(count) == int(frames[row])
        torch.testing.assert_close(own[0, : int(count)], together[row, : int(count)], rtol=0, atol=1e-4)
        assert not together[row, int(frames[row]) :].any()


def test_how_loud_a_sound_is_does_not_matter():
    samples, sizes = sounds((8000,))
    features = LogMel(RATE, 40)
    torch.testing.assert_close(features(samples, sizes)[0], features(3 * samples, sizes)[0], rtol=0, atol=0.02)


def test_silence_is_zero():
    found, _ = LogMel(RATE, 40)(torch.zeros(1, 4000), torch.tensor([4000]))
    assert float(found.abs().max()) < 1e-3


def test_masks_blank_features():
    samples, sizes = sounds((8000, 6000))
    features = LogMel(RATE, 40)
    frames, bands = torch.ones(2, 98, dtype=torch.bool), torch.ones(2, 40, dtype=torch.bool)
    frames[0, 10:20] = bands[1, :5] = False
    found, _ = features(samples, sizes, frames, bands)
    plain, _ = features(samples, sizes)
    assert not found[0, 10:20].any()
    assert not found[1, :, :5].any()
    torch.testing.assert_close(found[0, 20:], plain[0, 20:])


def test_a_mask_is_no_wider_than_asked_and_within_the_row():
    draws = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)).double().numpy()
    sizes = torch.arange(51, 101)
    found = blanked(draws, sizes, size=100, width=0.2)
    assert found.shape == (50, 100)
    assert bool((found.sum(dim=1) <= 0.4 * sizes + 2).all())
    assert not (found & ~inside(sizes, 100)).any()
    assert not blanked(draws, sizes, size=100, width=0.0).any()


def test_a_rows_masks_do_not_depend_on_its_neighbours():
    draws = torch.rand(4, 2, generator=torch.Generator().manual_seed(1)).double().numpy()
    together = blanked(draws, torch.tensor([60, 70, 80, 90]), size=90, width=0.3)
    alone = blanked(draws[1:2], torch.tensor([70]), size=70, width=0.3)
    assert torch.equal(together[1, :70], alone[0])


@pytest.mark.once
def test_no_quantizer_finds_the_transform_in_the_graph(tmp_path):
    import onnx

    samples, sizes = sounds((8000, 4000, 2000))
    dims = ({0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("samples", min=800)},)
    dims = (*dims, {0: torch.export.Dim("batch", min=1)})
    torch.onnx.export(LogMel(RATE, 40).eval(), (samples, sizes), dynamo=True, dynamic_shapes=dims, verbose=False).save(
        tmp_path / "model.onnx"
    )
    operators = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert "Einsum" in operators
    assert not operators & {"MatMul", "Gemm", "Conv"}

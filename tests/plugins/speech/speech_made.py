"""Recognizers, batches and checkpoints made for the tests. Knows no data on disk but what it writes itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from modelwright_speech.features import LogMel

RATE = 8000
LENGTHS = (8000, 4711, 16000, 199)


def sounds(lengths=LENGTHS, *, seed=0):
    """Noise that swells and fades, (B, S) with noise beyond the lengths too, and the lengths."""
    rng = np.random.default_rng(seed)
    swell = 1 + np.sin(np.arange(max(lengths)) / 700)
    samples = torch.from_numpy((0.1 * swell * rng.standard_normal((len(lengths), max(lengths)))).astype(np.float32))
    return samples, torch.tensor(lengths)


def leak(model, *, lengths=LENGTHS, least=800):
    """How far the logits of utterances alone lie from those beside others, in their own frames."""
    samples, sizes = sounds(lengths)
    model.eval()
    with torch.no_grad():
        together = model(samples, sizes)
        worst = 0.0
        for row, length in enumerate(lengths):
            alone = torch.zeros(1, max(length, least))
            alone[0, :length] = samples[row, :length]
            found = model(alone, sizes[row : row + 1])
            frames = int(found["frames"])
            assert frames == int(together["frames"][row])
            gap = found["logits"][0, :frames] - together["logits"][row, :frames]
            worst = max(worst, float(gap.abs().max()))
    return worst


def features(mels=40):
    return LogMel(RATE, mels)


def exported(model, tmp_path, *, least=800):
    """The largest gap between a model and its ONNX graph, as a share of the largest logit, at three sizes."""
    import onnxruntime

    model.eval()
    batch, size = torch.export.Dim("batch", min=1), torch.export.Dim("samples", min=least)
    example = sounds((8000, 6000, 4000))
    names = {"input_names": ["samples", "lengths"], "output_names": ["logits", "frames"]}
    program = torch.onnx.export(
        model, example, dynamo=True, dynamic_shapes=({0: batch, 1: size}, {0: batch}), verbose=False, **names
    )
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    gap = 0.0
    for lengths in ((8000, 6000, 4000), (5000,), (12345, 900)):
        samples, sizes = sounds(lengths)
        logits, frames = session.run(None, {"samples": samples.numpy(), "lengths": sizes.numpy()})
        with torch.no_grad():
            wanted = model(samples, sizes)
        assert frames.tolist() == wanted["frames"].tolist()
        scale = float(wanted["logits"].abs().max())
        gap = max(gap, float(np.abs(logits - wanted["logits"].numpy()).max()) / scale)
    return gap


def tiny_wav2vec(folder: Path, *, norm="group"):
    """A folder as save_pretrained of transformers writes it."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = Wav2Vec2Config(
        **sizes,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        vocab_size=20,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    return folder


def tiny_whisper(folder: Path, *, seconds=2, multilingual=True):
    """The same of a Whisper that hears `seconds`, with a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: place for place, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    tokenizer.add_special_tokens(special)
    end, start = (tokenizer.token_to_id(each) for each in special[:2])
    sizes = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    config = WhisperConfig(
        **sizes,
        vocab_size=tokenizer.get_vocab_size(),
        d_model=32,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=50 * seconds,
        max_target_positions=32,
        eos_token_id=end,
        bos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
    )
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "generation_config.json").write_text(json.dumps({"is_multilingual": multilingual}))
    return folder

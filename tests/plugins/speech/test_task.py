"""The task: batches, hints, losses and order, on sounds that the tests write themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.plugins.speech.sounds_made import tone
from tests.plugins.speech.speech_made import tiny_whisper

from modelwright.config import build_config
from modelwright.data import Example, Facts
from modelwright.errors import ConfigError
from modelwright.task import Progress
from modelwright.training.randomness import KeyedNumbers
from modelwright_speech.config import SpeechConfig
from modelwright_speech.task import SpeechTask
from modelwright_speech.tokens import Tokens

RATE = 8000
TEXTS = ("one two", "three", "", "two  ONE")
START = Progress(0, 100, 0, 2)


def made(**settings):
    usual = {"data.rate": RATE, "model.width": 32, "model.blocks": 1}
    task = SpeechTask(build_config(SpeechConfig, layers=[{**usual, **settings}]))
    words = sorted({word for text in TEXTS for word in text.lower().split()})
    task.facts = Facts({"tokens": Tokens.characters([text.lower() for text in TEXTS]).settings(), "words": words})
    return task


def batch(task, rows=(0, 1, 2, 3)):
    examples = [
        Example(tone(0.5 + 0.3 * row, number=row, rate=RATE), {"text": TEXTS[row], "speaker": f"s{row}"})
        for row in rows
    ]
    return task.collate(examples, np.array(rows))


def keyed(ids, *, epoch=0):
    return KeyedNumbers(seed=0, epoch=epoch, ids=np.array(ids))


def test_a_batch_holds_samples_lengths_tokens_and_texts():
    task = made()
    found = batch(task)
    samples, lengths = found.inputs
    assert samples.shape == (4, round(1.4 * RATE))
    assert lengths.tolist() == [round((0.5 + 0.3 * row) * RATE) for row in range(4)]
    assert not samples[0, int(lengths[0]) :].any()
    assert found.targets["counts"].tolist() == [7, 5, 0, 7]
    tokens = Tokens.of(task.facts.values["tokens"])
    assert tokens.decode(found.targets["tokens"][3, :7].tolist()) == "two one"
    assert task.truths(found)["text"] == list(TEXTS)
    assert task.truths(found)["speaker"] == ["s0", "s1", "s2", "s3"]


def test_letters_that_training_lacks_are_left_out_of_the_tokens_but_not_of_the_truth():
    task = made()
    found = task.collate([Example(tone(rate=RATE), {"text": "Xone", "speaker": ""})], np.array([0]))
    assert found.targets["counts"].tolist() == [3]
    assert task.truths(found)["text"] == ["Xone"]


def test_a_long_utterance_of_the_data_is_one_sample():
    found = made(**{"data.longest": 1.0}).collate(
        [Example(tone(9.0, rate=RATE), {"text": "one", "speaker": ""})], np.array([5])
    )
    assert found.ids.tolist() == [5]
    assert found.inputs[1].tolist() == [9 * RATE]


def test_what_is_longer_than_all_that_training_heard_is_cut():
    task = made(**{"data.longest": 12.0, "evaluate.window": 20.0})
    assert (task.codec.longest, task.codec.window) == (12.0, 12.0)
    task.facts = Facts({**task.facts.values, "longest": 3.5})
    assert (task.codec.longest, task.codec.window) == (3.5, 12.0)


def test_masks_are_hints_that_depend_on_seed_epoch_and_utterance_alone():
    task = made(**{"augment.time_width": 0.3, "augment.mel_width": 0.3})
    whole = task.augment(batch(task), keyed([0, 1, 2, 3]), START)
    part = task.augment(batch(task, (1,)), keyed([1]), START)
    width = part.hints["keep_frames"].shape[1]
    assert torch.equal(whole.hints["keep_frames"][1, :width], part.hints["keep_frames"][0])
    assert torch.equal(whole.hints["keep_mels"][1], part.hints["keep_mels"][0])
    later = task.augment(batch(task), keyed([0, 1, 2, 3], epoch=1), START)
    assert not torch.equal(whole.hints["keep_frames"], later.hints["keep_frames"])
    assert batch(task).hints == {}


def test_masks_fit_the_model_and_can_be_left_out():
    task = made()
    torch.manual_seed(0)
    model = task.model().train()
    found = task.augment(batch(task), keyed([0, 1, 2, 3]), START)
    assert model(*found.inputs, **found.hints)["logits"].isfinite().all()
    without = made(**{"augment.time_masks": 0, "augment.mel_masks": 0})
    assert without.augment(batch(without), keyed([0, 1, 2, 3]), START).hints == {}


def test_the_loss_is_a_sum_over_utterances():
    task = made()
    torch.manual_seed(0)
    model = task.model().eval()
    whole = batch(task)
    each = [batch(task, (row,)) for row in range(4)]
    with torch.no_grad():
        total = task.loss(None, model(*whole.inputs), whole, START)
        parts = [task.loss(None, model(*part.inputs), part, START) for part in each]
    assert float(total.sum) == pytest.approx(sum(float(part.sum) for part in parts), rel=1e-4)
    assert total.weight == 4.0


def test_a_text_that_does_not_fit_costs_nothing():
    task = made()
    long = Example(tone(0.2, rate=RATE), {"text": "one two three one two three", "speaker": ""})
    found = task.collate([long], np.array([0]))
    with torch.no_grad():
        assert float(task.loss(None, task.model()(*found.inputs), found, START).sum) == 0.0


def test_the_wide_layers_are_prunable():
    task = made(**{"model.blocks": 3})
    assert len(list(task.prunable(task.model()))) == 3
    recurrent = made(**{"model.name": "bilstm-ctc"})
    assert recurrent.prunable(recurrent.model()) is None


def test_the_codec_follows_the_settings():
    assert made().codec.decoder == "greedy"
    task = made(**{"evaluate.decoder": "beam", "evaluate.lexicon": "training", "evaluate.hotwords": {"six": 2.0}})
    assert task.codec.lexicon == ("one", "three", "two")
    assert task.codec.hotwords == (("six", 2.0),)
    assert (task.codec.stride, task.codec.least) == (320, 800)


def test_unknown_networks_are_refused_at_once():
    with pytest.raises(ConfigError, match="there is no network 'conv'"):
        made(**{"model.name": "conv"})


def test_silence_is_a_sample_with_nothing_to_find():
    task = made()
    found = task.collate([task.empty()], np.array([0]))
    loss = task.loss(None, task.model()(*found.inputs), found, START)
    assert math.isfinite(float(loss.sum))
    assert task.measure(task.perfect(task.truths(found)), task.truths(found)).rows == 1


def test_whisper_is_taught_token_by_token(tmp_path):
    folder = tiny_whisper(tmp_path / "published")
    task = made(**{"model.name": "whisper", "model.pretrained": str(folder), "data.rate": 16000})
    from modelwright_speech.model import published

    task.facts = Facts(published(task.settings.model))
    found = batch(task, (0, 1))
    model = task.model().eval()
    assert task.initialize(model) is not None
    losses = task.loss(None, model(*found.inputs, **found.hints), found, START)
    assert float(losses.sum) > 0
    assert task.distill_loss({}, {}, found, START, temperature=1.0) is None
    assert task.prunable(model) is None
    with torch.no_grad():
        outputs = {name: value.numpy() for name, value in model(*found.inputs).items()}
    assert task.codec.decode(outputs, found.context).rows == 2


def test_adapters_are_merged_into_what_is_served(tmp_path):
    folder = tiny_whisper(tmp_path / "published")
    task = made(**{"model.name": "whisper", "model.pretrained": str(folder), "model.lora": 2, "data.rate": 16000})
    from modelwright_speech.model import published

    task.facts = Facts(published(task.settings.model))
    model = task.model()
    served = task.served(model)
    assert [name for name, _ in model.named_parameters() if "lora" in name]
    assert not [name for name, _ in served.named_parameters() if "lora" in name]

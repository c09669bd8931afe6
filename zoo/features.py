"""What the trained audio models are fed: windows, spectra and features of the spoken clip, in NumPy.

Each function follows the published front end of its model closely enough to give the values that the model
meets in use (same windows, scales and normalisation); none claims to match it bit for bit.
"""

from __future__ import annotations

import wave
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.entries import ROOT

CLIP = ROOT / "examples" / "speech.wav"
RATE = 16000
F32 = npt.NDArray[np.float32]


@lru_cache
def clip(path: Path = CLIP) -> F32:
    """Samples of a 16 kHz mono 16-bit WAV file, in [-1, 1)."""
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            raise ValueError(f"{path} is not 16 kHz mono 16 bit")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    signal = (samples / 32768).astype(np.float32)
    signal.flags.writeable = False
    return signal


def frames(signal: F32, length: int, hop: int) -> F32:
    """Overlapping pieces of a signal: [count, length]; what does not fill a last piece is left out."""
    view: F32 = np.lib.stride_tricks.sliding_window_view(signal, length)
    return view[::hop].copy()


def silero_frames(signal: F32) -> F32:
    """[count, 576]: 512 new samples after the last 64 of the frame before, zeros before the first."""
    return frames(np.concatenate([np.zeros(64, np.float32), signal]), 576, 512)


def nsnet2_features(signal: F32) -> F32:
    """[frames, 161]: log10 power of 20 ms frames every 10 ms, root-Hann window."""
    window = np.sqrt(np.hanning(320))
    power = np.abs(np.fft.rfft(frames(signal, 320, 160) * window)) ** 2
    feature: F32 = np.log10(np.maximum(power, 1e-12)).astype(np.float32)
    return feature


def dtln_blocks(signal: F32) -> F32:
    """[count, 512]: blocks of 32 ms every 8 ms, no window."""
    return frames(signal, 512, 128)


def dtln_magnitudes(signal: F32) -> F32:
    """[count, 257]: magnitude spectra of the blocks."""
    return np.abs(np.fft.rfft(dtln_blocks(signal))).astype(np.float32)


def mel_filters(bands: int, fft: int, rate: int) -> npt.NDArray[np.float64]:
    """[fft // 2 + 1, bands]: triangles evenly spaced on the mel scale 2595 log10(1 + f / 700), peak 1."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(fft, 1 / rate)[:, None]
    rising = (bins - corners[:-2]) / np.diff(corners)[:-1]
    falling = (corners[2:] - bins) / np.diff(corners)[1:]
    filters: npt.NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    return filters


def log_mel(window: F32) -> F32:
    """[64, 21] of 3200 samples (200 ms): pre-emphasis, 25 ms frames every 10 ms, each band normalised."""
    emphasised = np.append(window[:1], window[1:] - 0.97 * window[:-1])
    emphasised = (emphasised - emphasised.mean()) / (emphasised.std() + 1e-5)
    pieces = frames(np.pad(emphasised, 256, mode="reflect").astype(np.float32), 512, 160)
    hann = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400), 56)
    power = np.abs(np.fft.rfft(pieces * hann)) ** 2
    log = np.log(power @ mel_filters(64, 512, RATE) + 1e-5).T
    log = (log - log.mean(1, keepdims=True)) / (log.std(1, keepdims=True) + 1e-5)
    feature: F32 = log.astype(np.float32)
    return feature


def pulsevad_windows(signal: F32) -> F32:
    """[count, 64, 21]: log-mel windows of 200 ms every 100 ms."""
    return np.stack([log_mel(w) for w in frames(signal, 3200, 1600)])


def to_48k(signal: F32) -> F32:
    """Band-limited threefold upsampling of a whole clip."""
    return (3 * np.fft.irfft(np.fft.rfft(signal), 3 * len(signal))).astype(np.float32)


def erb_widths(bands: int = 32, fft: int = 960, rate: int = 48000) -> list[int]:
    """Bins per band: even on the scale 9.265 log(1 + f / 228.8), at least two, fft/2 + 1 in all."""
    top = np.log(1 + rate / 2 / (24.7 * 9.265))
    edges = 24.7 * 9.265 * np.expm1(top * np.arange(1, bands + 1) / bands) * fft / rate
    widths: list[int] = []
    for edge in edges:
        widths.append(max(2, round(edge) - sum(widths)))
    widths[-1] += fft // 2 + 1 - sum(widths)
    return widths


def dfn3_features(signal: F32) -> tuple[F32, F32]:
    """([frames, 32], [2, frames, 96]) of a 16 kHz signal: levels per ERB band, and unit-normalised spectrum.

    48 kHz, 20 ms frames every 10 ms, Vorbis window; both normalised by running means with a one-second
    constant (DeepFilterNet3, arXiv 2305.08227).
    """
    ramp = np.sin(np.pi * (np.arange(960) + 0.5) / 960)
    spectrum = np.fft.rfft(frames(to_48k(signal), 960, 480) * np.sin(np.pi / 2 * ramp**2)) / 960
    starts = np.concatenate([[0], np.cumsum(erb_widths())[:-1]])
    power = np.add.reduceat(np.abs(spectrum) ** 2, starts, axis=1) / erb_widths()
    level = 10 * np.log10(power + 1e-10)
    low = spectrum[:, :96]
    alpha = 0.99
    mean, size = np.linspace(-60, -90, 32), np.linspace(1e-3, 1e-4, 96)
    for t in range(len(spectrum)):
        mean = alpha * mean + (1 - alpha) * level[t]
        size = alpha * size + (1 - alpha) * np.abs(low[t])
        level[t] = (level[t] - mean) / 40
        low[t] /= np.sqrt(size)
    return level.astype(np.float32), np.stack([low.real, low.imag]).astype(np.float32)


def magika_bytes(content: bytes) -> npt.NDArray[np.int32]:
    """[2048]: the first 1024 bytes after leading white space, the last 1024 before trailing, 256 for none."""
    tokens = np.full(2048, 256, np.int32)
    begin, end = content[:4096].lstrip()[:1024], content[-4096:].rstrip()[-1024:]
    tokens[: len(begin)] = list(begin)
    tokens[2048 - len(end) :] = list(end)
    return tokens

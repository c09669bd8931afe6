"""Makes speech.wav: speech, pause, noise, speech; 16 kHz, mono, 16 bit, about ten seconds.

The voice is espeak-ng 1.51 (Debian package `espeak-ng`), the noise comes from NumPy with a fixed seed.
Run it only to make the clip anew: python examples/make_speech.py
"""

from __future__ import annotations

import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

RATE = 16000
Signal = npt.NDArray[np.float64]


def speak(text: str, voice: str, words_per_minute: int) -> Signal:
    """The sentence as spoken by espeak-ng, at 16 kHz, peak 0.6."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voice.wav"
        command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "-w", str(path), text]
        subprocess.run(command, check=True)
        with wave.open(str(path)) as clip:
            rate = clip.getframerate()
            samples = np.frombuffer(clip.readframes(clip.getnframes()), "<i2") / 32768.0
    samples = resample(samples, rate)
    scaled: Signal = 0.6 * samples / np.abs(samples).max()
    return scaled


def resample(signal: Signal, rate: int) -> Signal:
    """Band-limited change of rate to 16 kHz: cut or extend the spectrum of the whole clip."""
    length = round(len(signal) * RATE / rate)
    spectrum = np.fft.rfft(signal)
    kept = np.zeros(length // 2 + 1, complex)
    n = min(len(kept), len(spectrum))
    kept[:n] = spectrum[:n]
    resampled: Signal = np.fft.irfft(kept, length) * (length / len(signal))
    return resampled


def pink_noise(seconds: float, level: float, rng: np.random.Generator) -> Signal:
    """Noise whose power falls with frequency, as wind and fans have it; `level` is its standard deviation."""
    length = int(seconds * RATE)
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 20))
    noise = np.fft.irfft(spectrum, length)
    scaled: Signal = level * noise / noise.std()
    return scaled


def main() -> None:
    rng = np.random.default_rng(2024)
    parts = [
        np.zeros(int(0.5 * RATE)),
        speak("Water runs down the head race and turns the wheel.", "en-gb", 165),
        np.zeros(int(1.0 * RATE)),
        pink_noise(1.5, 0.05, rng),
        np.zeros(int(0.3 * RATE)),
        speak("A model goes in, a small program comes out.", "en-us+f3", 165),
        np.zeros(int(0.5 * RATE)),
    ]
    clip = np.concatenate(parts)
    clip += 0.0005 * rng.standard_normal(len(clip))  # a quiet room: no microphone gives exact zeros
    with wave.open(str(Path(__file__).with_name("speech.wav")), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(np.round(clip * 32767).astype("<i2").tobytes())
    print(f"speech.wav: {len(clip) / RATE:.2f} s")


if __name__ == "__main__":
    main()

"""The agents that turn data into something to see or to hear."""

import base64
import io
import math
import wave
from itertools import pairwise
from typing import Annotated
from xml.sax.saxutils import escape

from pydantic import Field

from examples.agents.contract import Answer, Payload, Refusal, Wish
from examples.agents.documents import Material
from examples.agents.prose import ranked, syllables, terms, words

_MAX_BARS = 20
_WIDTH, _ROW, _LABEL = 480, 24, 140
_SAMPLE_RATE = 8000
_MAX_TONES = 40
_SILENCE, _LOUDNESS = 128, 80
_LOWEST_HERTZ = 220.0
_FADE_SAMPLES = 80


class ChartWish(Wish):
    """Numbers by label to draw; or a text, whose most frequent terms are drawn."""

    title: str = Field("", max_length=200)
    data: (
        Annotated[
            dict[Annotated[str, Field(max_length=100)], Annotated[float, Field(ge=0)]],
            Field(min_length=1, max_length=_MAX_BARS),
        ]
        | None
    ) = None


def create_visual(payload: Payload) -> Answer:
    """Draw a bar chart as SVG."""
    wish = ChartWish.model_validate(payload)
    bars, method = wish.data, "bar chart of the given numbers"
    if bars is None:
        top = ranked(terms(Material.model_validate(payload).read()), _MAX_BARS // 2)
        bars, method = {term: float(count) for term, count in top}, "bar chart of term counts"
    if not bars:
        raise Refusal("text: expected some English words with a subject")
    return {
        "svg": _svg(wish.title, bars),
        "media_type": "image/svg+xml",
        "bars": bars,
        "method": method,
    }


def _svg(title: str, bars: dict[str, float]) -> str:
    longest = max(bars.values()) or 1.0
    height = _ROW * (len(bars) + 1)
    size = f'width="{_WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<text x="4" y="16" font-weight="bold">{escape(title)}</text>',
    ]
    for row, (label, value) in enumerate(bars.items(), start=1):
        # Dividing first keeps the product finite for the largest of floats.
        width = round(value / longest * (_WIDTH - _LABEL - 60))
        top = row * _ROW
        parts.append(f'<text x="4" y="{top + 16}">{escape(label)}</text>')
        parts.append(f'<rect x="{_LABEL}" y="{top + 4}" width="{width}" height="16" fill="#2a6"/>')
        parts.append(f'<text x="{_LABEL + width + 4}" y="{top + 16}">{value:g}</text>')
    return "".join([*parts, "</svg>"])


class AudioWish(Material):
    """A text, and how fast its words follow each other."""

    words_per_minute: int = Field(150, ge=80, le=300)


def generate_audio(payload: Payload) -> Answer:
    """Give a text a rhythm: one tone for each word, longer and higher with its syllables."""
    wish = AudioWish.model_validate(payload)
    spoken = words(wish.read())[:_MAX_TONES]
    if not spoken:
        raise Refusal("text: expected at least one word")
    weights = [syllables(word) for word in spoken]
    unit = 60.0 * len(spoken) / wish.words_per_minute / sum(weights)
    ends = [sum(weights[:count]) * unit for count in range(len(spoken) + 1)]
    return {
        "audio_base64": base64.b64encode(_wav(weights, unit)).decode(),
        "media_type": "audio/wav",
        "sample_rate": _SAMPLE_RATE,
        "seconds": round(ends[-1], 3),
        "timing": [
            {"word": word, "start": round(start, 3), "end": round(end, 3)}
            for word, (start, end) in zip(spoken, pairwise(ends), strict=True)
        ],
        "method": f"one sine tone for each of the first {_MAX_TONES} words, timed by estimated "
        "syllables; this is no speech",
    }


def _wav(weights: list[int], unit: float) -> bytes:
    sound = bytearray()
    for weight in weights:
        sound.extend(_tone(_LOWEST_HERTZ * (1 + weight / 4), int(weight * unit * _SAMPLE_RATE)))
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 1, _SAMPLE_RATE, len(sound), "NONE", "not compressed"))
        out.writeframes(bytes(sound))
    return file.getvalue()


def _tone(hertz: float, samples: int) -> bytes:
    step = 2 * math.pi * hertz / _SAMPLE_RATE
    # The fade at both ends keeps the tones from clicking.
    fades = (min(1.0, i / _FADE_SAMPLES, (samples - i) / _FADE_SAMPLES) for i in range(samples))
    return bytes(
        _SILENCE + round(_LOUDNESS * fade * math.sin(step * i)) for i, fade in enumerate(fades)
    )

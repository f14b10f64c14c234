"""Draw the pictures of the concepts into docs/images: `make pictures`."""

from pathlib import Path
from typing import Final

_STYLE: Final = (
    "text{font:14px sans-serif;fill:currentColor}.s{font-size:12px;opacity:.75}"
    "rect,path{fill:none;stroke:currentColor;stroke-width:1.5}"
    ".p{fill:#4051b5;fill-opacity:.25}.o{fill:#e6842a;fill-opacity:.3}.m{fill:#888;fill-opacity:.3}"
    "svg{color:#555}@media(prefers-color-scheme:dark){svg{color:#bbb}}"
)


def pictures() -> dict[str, str]:
    """Return the pictures by their names."""
    return {"way.svg": _way(), "budget.svg": _budget()}


def _svg(width: int, height: int, title: str, *parts: str) -> str:
    head = "<marker id='a' markerWidth='8' markerHeight='8' refX='7' refY='4' orient='auto'>"
    arrow = f"{head}<path d='M0,0 L8,4 L0,8'/></marker>"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' role='img'>"
        f"<title>{title}</title><style>{_STYLE}</style><defs>{arrow}</defs>{''.join(parts)}</svg>"
    )


def _box(x: int, y: int, width: int, text: str, small: str = "") -> str:
    lines = f"<text x='{x + 10}' y='{y + 22}'>{text}</text>"
    lines += f"<text class='s' x='{x + 10}' y='{y + 40}'>{small}</text>"
    return f"<rect x='{x}' y='{y}' width='{width}' height='50' rx='6'/>{lines}"


def _arrow(path: str, text: str, x: int, y: int) -> str:
    words = f"<text class='s' x='{x}' y='{y}'>{text}</text>"
    return f"<path d='{path}' marker-end='url(#a)'/>{words}"


def _way() -> str:
    return _svg(
        760,
        250,
        "A request passes Envoy, which asks the service for a pool, and the answer passes back",
        _box(10, 90, 110, "client"),
        _box(200, 90, 150, "Envoy", "ext_proc filters"),
        _box(200, 10, 150, "dualpool", "estimates, chooses"),
        _box(560, 40, 190, "short pool", "8,192 tokens"),
        _box(560, 140, 190, "long pool", "65,536 tokens"),
        _arrow("M120,105 H198", "body", 140, 98),
        _arrow("M250,90 V62", "headers, body", 160, 80),
        _arrow("M300,60 V88", "x-llm-pool: short", 308, 80),
        _arrow("M350,105 C450,100 450,65 558,65", "decided", 430, 60),
        _arrow("M350,125 C450,125 450,165 558,165", "or refused by the short one", 400, 185),
        _arrow("M198,130 H122", "answer, untouched", 122, 152),
        _arrow(
            "M275,140 V200 H400 V30 H352", "usage.prompt_tokens, shown to the service", 285, 218
        ),
    )


def _budget() -> str:
    rows = (
        ("fits the short pool", 150, 40, 110),
        ("the margin does not fit: long pool", 260, 90, 90),
        ("more than a window: long pool", 330, 60, 190),
    )
    parts = ["<path d='M400,10 V200' stroke-dasharray='4'/>"]
    parts.append("<text class='s' x='406' y='20'>max_model_len of the short pool</text>")
    for index, (text, prompt, margin, output) in enumerate(rows):
        y, x = 32 + 60 * index, 10
        for kind, width in (("p", prompt), ("m", margin), ("o", output)):
            parts.append(f"<rect class='{kind}' x='{x}' y='{y}' width='{width}' height='22'/>")
            x += width
        parts.append(f"<text class='s' x='{x + 8}' y='{y + 16}'>{text}</text>")
    legend = (("p", "prompt tokens, estimated"), ("m", "margin"), ("o", "output"))
    for index, (kind, text) in enumerate(legend):
        parts.append(
            f"<rect class='{kind}' x='{10 + 220 * index}' y='215' width='16' height='16'/>"
        )
        parts.append(f"<text class='s' x='{32 + 220 * index}' y='228'>{text}</text>")
    return _svg(760, 240, "Budgets of three requests against the window of the short pool", *parts)


if __name__ == "__main__":
    for name, text in pictures().items():
        (Path(__file__).parents[1] / "images" / name).write_text(text + "\n", encoding="utf-8")

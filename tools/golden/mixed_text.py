"""Two thousand lines of mixed text: prose in several scripts, code, numbers, emoji, odd spaces, chat marks, and random characters.

Writes tests/golden/mixed_text.txt. A line feed inside of a text is written as U+2424.
"""

import random
import unicodedata

from golden import FOLDER

SEED = 2000
LINES = 2000
WORDS = {
    "latin": "the a of loss gradient Precision naïve café Übergröße façade señor L'été don't we'll I'D they've it's x' 's ŒUVRE İstanbul ſhort K Ǆ ﬁne".split(),
    "cyrillic": "привет мир Точность градиент ёлка слово Это и не на".split(),
    "greek": "μήκος λόγος Ἀθῆναι και το ΣΊΣΥΦΟΣ".split(),
    "arabic": "مرحبا بالعالم دِقَّة ١٢٣ نص".split(),
    "hebrew": "שלום עולם דיוק בְּרֵאשִׁית".split(),
    "devanagari": "नमस्ते दुनिया क्षत्रिय १२३ हिन्दी".split(),
    "thai": "สวัสดีชาวโลก ภาษาไทย ๑๒๓".split(),
    "cjk": "你好世界 混合精度训练 日本語のテキスト ひらがな カタカナ 한국어 조합 각 半精度 １２３".split(),
    "emoji": "😀 👩‍👩‍👧 🇩🇪 👍🏽 ❤️ 🏳️‍🌈 ✨ ⌚ 🤷🏾‍♂️".split(),
    "symbols": "→ ∑ ∂x/∂t ≤ ½ ² ⅷ € £5 № ™ © … — “quoted” «so» ‰ ﷽ 𝛼 𝟙 \u0301 e\u0301 \u1e0b\u0323 \ufeff \u200d".split(" "),
    "numbers": "0 7 42 1234 1234567 3.14159 1e-5 0x1F 1,000,000 2024-11-25 50% -273.15 v1.2.3 ４２ ٣٫٥".split(),
}
CODE = (
    "for (int i = 0; i < n; ++i) {␤\ty[i] = a * x[i];␤}",
    "def f(x):␤    return x ** 2  # square␤",
    "#include <vector>␤␤␤int main() { return 0; }",
    "SELECT * FROM t WHERE a >= 10 AND b != 'x';",
    '{"key": [1, 2.5, null, true], "s": "\\u00e9\\n"}',
    "<div class=\"a\">&nbsp;</div>␤<!-- no -->",
    "x->y(); a&&b||!c; ::std::move(p); //...",
    "\\documentclass{article} $\\sum_{i=1}^{n} x_i^2$",
    "if a:␤        if b:␤                pass␤  \t␤",
)
SPACES = (" ", "  ", "   ", "\t", " \t ", "\u00a0", "\u2003", "\u3000", "\u200b", "␤", "␤␤", " ␤ ", "\r␤", "\x0b", "\x0c", "\x85", "\u2028", "\u180e", "\u202f", "      ")
MARKS = ("<|im_start|>user␤", "<|im_end|>␤", "<|endoftext|>", "<s>", "</s>", "<|im_start|>", "<|im_end", "<|", "|>")


def random_char(rng):
    while True:
        c = chr(rng.choice((rng.randrange(1, 0x250), rng.randrange(0x250, 0x3000), rng.randrange(0x3000, 0x10000), rng.randrange(0x10000, 0x20000))))
        # What was assigned by Unicode 13 is the same to every library.
        if unicodedata.category(c) not in ("Cs", "Cn", "Co") and c not in "\n\r␤":
            return c


def line(rng):
    kind = rng.random()
    if kind < 0.08:
        return rng.choice(CODE) + rng.choice(SPACES) * rng.randrange(2)
    if kind < 0.18:
        return "".join(random_char(rng) for _ in range(rng.randrange(1, 25)))
    scripts = rng.sample(sorted(WORDS), rng.randrange(1, 4))
    parts = []
    for _ in range(rng.randrange(1, 14)):
        parts.append(rng.choice(WORDS[rng.choice(scripts)]))
        if rng.random() < 0.15:
            parts.append(rng.choice(",.;:!?…-_/()[]'\"*`~^"))
        if rng.random() < 0.03:
            parts.append(rng.choice(MARKS))
        parts.append(" " if rng.random() < 0.8 else rng.choice(SPACES) if rng.random() < 0.8 else "")
    return "".join(parts)[rng.randrange(3) == 0 :]


def lines():
    return FOLDER.joinpath("mixed_text.txt").read_bytes().decode().split("\n")[:LINES]


def text_of(written):
    return written.replace("␤", "\n")


def main():
    rng = random.Random(SEED)
    made = [line(rng).replace("\n", "␤") for _ in range(LINES)]
    path = FOLDER / "mixed_text.txt"
    path.write_bytes(("\n".join(made) + "\n").encode())
    assert lines() == made
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()

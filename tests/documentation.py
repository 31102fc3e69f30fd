"""Pages of the documentation as sentences, blocks and links; for tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", flags=re.MULTILINE | re.DOTALL)
END = re.compile(r"(?<=[.!?])[\"')*_]*\s+(?=[\"'(*_`]*(?:[A-Z0-9`]|anomalib\b|harness\b|timm\b|pytest\b))")
ABBREVIATION = re.compile(r"\b(?:al|e\.g|i\.e|vs)\.$")
HTML = re.compile(r"<!--.*?-->|<[^>\n]+>", flags=re.DOTALL)
ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+(?:\[[ x]\]\s+)?")


def pages() -> list[Path]:
    """README and its like, and all pages of docs/ and benchmarks/."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    beside = [ROOT / "weights" / "README.md", ROOT / "results" / "README.md"]
    return [*top, *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md")), *beside]


def prose(text: str) -> Iterator[str]:
    """Paragraphs, headings and list items, a line each; without code blocks, tables, comments and links' targets."""
    text = HTML.sub(" ", FENCE.sub("\n\n", text))
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)(?:\{[^}]*\})?", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`\n]*`", "`code`", text)
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        bare = line.strip()
        ends = not bare or bare.startswith(("|", "#", ":::", "--8<--", "???", "!!!")) or ITEM.match(line)
        if ends and block:
            yield " ".join(block)
            block = []
        if not bare or bare.startswith(("|", ":::", "options:", "members:", "--8<--", "???", "!!!")):
            continue
        if bare.startswith("#"):
            yield bare.lstrip("# ")
        else:
            block.append(ITEM.sub("", line).strip())


def sentences(text: str) -> Iterator[str]:
    """Sentences of a page; code between backticks is the word `code`."""
    for block in prose(text):
        pending = ""
        for one in END.split(block):
            pending = f"{pending} {one}".strip()
            if not ABBREVIATION.search(pending):
                yield pending
                pending = ""
        if pending:
            yield pending


def words(sentence: str) -> int:
    """Number of words; code between backticks is one word."""
    return len([one for one in sentence.split() if re.search(r"\w", one)])


def blocks(text: str, language: str) -> list[str]:
    """Code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Verb and options of every `python -m harness` on a page."""
    for verb, rest in re.findall(r"python -m harness ([a-z-]+)([^\n`#|&]*)", text):
        yield verb, re.findall(r"(?<=\s)(--[a-z-]+)", rest)


def main() -> None:
    """Print the mean words of a sentence, by page; headings and other fragments do not count."""
    total: list[int] = []
    for page in pages():
        lengths = [words(one) for one in sentences(page.read_text()) if one.rstrip("\"')*_").endswith((".", "!", "?"))]
        total += lengths
        if lengths:
            print(f"{page.relative_to(ROOT)}: {len(lengths)} sentences of {sum(lengths) / len(lengths):.1f} words")
    print(f"all: {len(total)} sentences of {sum(total) / len(total):.1f} words")


if __name__ == "__main__":
    main()

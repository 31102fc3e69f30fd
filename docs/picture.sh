#!/usr/bin/env bash
# Makes docs/models_comparing.png from a workbook: LibreOffice to PDF, poppler and ImageMagick to PNG.
#   docs/picture.sh results/patchcore/models_comparing.xlsx
set -euo pipefail
out="$(cd "$(dirname "$0")" && pwd)/models_comparing.png"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
soffice --headless --convert-to pdf --outdir "$work" "$1" >/dev/null 2>&1
pdftoppm -r 700 -png -f 1 -l 2 "$work/models_comparing.pdf" "$work/page"
for page in "$work"/page-*.png; do
    # The left part of each sheet: what one sees on opening it.
    convert "$page" -trim +repage -gravity NorthWest -crop 45%x100%+0+0 +repage -resize 1500x -bordercolor white \
        -border 8 "$page"
done
convert "$work"/page-*.png -append -colors 64 "$out"

#!/usr/bin/env bash
# Makes docs/models_comparing.png, docs/report.png and docs/demo.png from a result folder, docs/classify.png from that of a
# classification, docs/search.png from that of a search, docs/heatmaps.png from a sweep over several categories (of
# configs/padim.yaml, with backend=native): LibreOffice to PDF, poppler and ImageMagick to PNG; Chromium for reports and
# page, into which the image is dropped.
#   docs/pictures.sh results/compare part.png results/classify-smoke results/classify-search results/padim
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
results="$(cd "$1" && pwd)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
soffice "-env:UserInstallation=file://$work/profile" --headless --convert-to pdf --outdir "$work" "$results/models_comparing.xlsx" >/dev/null 2>&1
# Summary, and the sheet whose first column is "metric": a wide sheet takes several pages.
starts_pivot() { pdftotext -f "$1" -l "$1" "$work/models_comparing.pdf" - | grep -q '^metric$'; }
for number in 1 $(for page in 2 3 4; do if starts_pivot $page; then echo $page; break; fi; done); do
    pdftoppm -r 700 -png -f "$number" -l "$number" "$work/models_comparing.pdf" "$work/page"
done
for page in "$work"/page-*.png; do
    # Of a long sheet the top: what one sees on opening it.
    convert "$page" -trim +repage -resize 1500x -gravity NorthWest \
        -extent 1500x330 -trim +repage -bordercolor white -border 8 "$page"
done
convert "$work"/page-*.png -append -colors 64 "$here/models_comparing.png"
picture() {  # of a page: its folder, the height shown, where to
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size="1280,$2" --virtual-time-budget=20000 \
        --screenshot="$work/report.png" "file://$1/report.html" >/dev/null 2>&1
    convert "$work/report.png" +dither -colors 128 "$3"
}
picture "$results" 1180 "$here/report.png"
picture "$(cd "$3" && pwd)" 2900 "$here/classify.png"
python "$here/part.py" "$4" "#search" "$work/search.png"
convert "$work/search.png" +dither -colors 64 "$here/search.png"
python "$here/page.py" "$results" "$2" "$work/demo.png"
convert "$work/demo.png" -colors 128 "$here/demo.png"
python "$here/heatmaps.py" "$5" "$work/heatmaps.png"
convert "$work/heatmaps.png" -resize 768x +dither -colors 256 "$here/heatmaps.png"

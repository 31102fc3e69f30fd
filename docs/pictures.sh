#!/usr/bin/env bash
# Makes one picture of docs/ from a result folder:
#   docs/pictures.sh sheets results/compare            the first sheets of the workbook
#   docs/pictures.sh report results/patchcore          the page of a detection
#   docs/pictures.sh classify results/classify-smoke   the page of a classification
#   docs/pictures.sh search results/classify-search    the part of the page about a search
#   docs/pictures.sh demo results/compare part.png     the page of `harness demo`, with an image
#   docs/pictures.sh heatmaps results/padim            parts, heatmaps and outlines, of a sweep over several categories
# It needs LibreOffice, poppler, ImageMagick, Chromium and playwright.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
results="$(cd "$2" && pwd)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sheets() {
    soffice "-env:UserInstallation=file://$work/profile" --headless --convert-to pdf --outdir "$work" \
        "$results/models_comparing.xlsx" >/dev/null 2>&1
    local book="$work/models_comparing.pdf" number pivot=""
    # Summary, and the sheet whose first column is "metric": a wide sheet takes several pages.
    for number in $(seq 2 "$(pdfinfo "$book" | awk '/^Pages/ {print $2}')"); do
        if pdftotext -f "$number" -l "$number" "$book" - | grep -q '^metric$'; then pivot=$number; break; fi
    done
    for number in 1 $pivot; do
        pdftoppm -r 300 -png -f "$number" -l "$number" "$book" "$work/page"
    done
    local page
    for page in "$work"/page-*.png; do
        # Of a long sheet the top: what one sees on opening it.
        convert "$page" -trim +repage -resize 1500x -gravity NorthWest -extent 1500x330 -trim +repage \
            -bordercolor white -border 8 "$page"
    done
    convert "$work"/page-*.png -append -colors 64 "$here/models_comparing.png"
}

page() {  # height in pixels, file
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size="1280,$1" --virtual-time-budget=20000 \
        --screenshot="$work/page.png" "file://$results/report.html" >/dev/null 2>&1
    convert "$work/page.png" +dither -colors 128 "$2"
}

case "$1" in
    sheets) sheets ;;
    report) page 1180 "$here/report.png" ;;
    classify) page 2900 "$here/classify.png" ;;
    search)
        python "$here/part.py" "$results" "#search" "$work/search.png"
        convert "$work/search.png" +dither -colors 64 "$here/search.png"
        ;;
    demo)
        python "$here/page.py" "$results" "$3" "$work/demo.png"
        convert "$work/demo.png" -colors 128 "$here/demo.png"
        ;;
    heatmaps)
        python "$here/heatmaps.py" "$results" "$work/heatmaps.png"
        convert "$work/heatmaps.png" -resize 768x +dither -colors 256 "$here/heatmaps.png"
        ;;
    *)
        echo "picture: $1 found; expected sheets, report, classify, search, demo or heatmaps." >&2
        exit 2
        ;;
esac

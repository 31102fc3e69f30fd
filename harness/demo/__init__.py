"""The web page: a finished run judges dropped images; a few good ones make a new run. On this machine only.

launch.py    starts Streamlit with settings that keep everything here
app.py       the page that Streamlit runs: which of the two
use.py       a finished run: your images, and its test images
fit.py       a new run from uploaded images
uploads.py   what was dropped -> images, or a sentence on what is wrong with it
show.py      a result on the page
"""

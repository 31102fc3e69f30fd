"""The web page: a finished run predicts uploaded images, or some good images make a new run. On this machine only.

launch.py    starts Streamlit with settings that keep all data on this machine
server.py    the server: accepts only requests for this machine
app.py       the navigation between the two pages
use.py       first page: a finished run predicts your images, or shows its test images
fit.py       second page: a new run from uploaded images
dropped.py   images of the user on the page of a run: their predictions, and the rows as CSV
fields.py    the field for images: files, and pictures from a camera
uploads.py   uploaded files -> images, or one sentence for each problem
show.py      the prediction for one image on the page
"""

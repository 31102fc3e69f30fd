"""Execution of planned runs, and their way into the result folder.

sweep.py         one call of `sweep`: groups of runs, retries and interrupts
session.py       claims of runs, for a sweep and for a search
jobs.py          one group of runs -> records and staged files
retime.py        times that were taken on a busy machine
writer.py        finished runs -> result folder
launchers/       where jobs run: this process, worker processes, or a cluster
progress.py      the lines on the terminal
log_capture.py   the output of libraries -> sweep.log
interrupt.py     Ctrl-C and SIGTERM
"""

"""Where groups of runs are made: in this process, in worker processes, on a Ray cluster."""

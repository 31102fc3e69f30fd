"""What varies with the task: which data there is, which backend is meant, what is measured and written of a run."""

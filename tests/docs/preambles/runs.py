"""A finished run where the page has one."""

import matplotlib as mpl
from finished_run_folder import write_finished_run

mpl.use("agg")
write_finished_run()

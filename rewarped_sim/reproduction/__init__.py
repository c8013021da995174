"""Published comparisons, run again: which jobs they take, what came out, and tables and figures beside the papers'."""

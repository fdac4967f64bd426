"""What a run will cost on an accelerator that is not at hand, by the accelerator's own compiler."""

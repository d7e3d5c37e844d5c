/// Placeholder until the part exists.

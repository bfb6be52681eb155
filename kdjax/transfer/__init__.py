"""What trained features are worth: nearest neighbors and other measures of frozen networks."""

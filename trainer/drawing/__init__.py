"""Pictures of photos, masks, predictions and errors, with names and colours."""

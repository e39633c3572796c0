"""Input data: sources, preprocessing, the decoded store and the tf.data pipeline."""

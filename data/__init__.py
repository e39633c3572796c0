"""Input data of segloop: sources, preprocessing, the store and the tf.data pipeline."""

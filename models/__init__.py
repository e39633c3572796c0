"""The networks of segloop: encoders, decoders and their assembly."""

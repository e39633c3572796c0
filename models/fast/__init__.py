"""Layers that compute what Keras' do, in less time."""

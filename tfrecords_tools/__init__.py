"""Packs images into TFRecord shards and checks them: ``build`` and ``verify`` are the commands."""

"""From a run to where people are: SavedModels, TFLite files, and translating with any of them."""

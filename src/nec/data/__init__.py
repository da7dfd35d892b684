"""Images, cached activations and stored embeddings, as LightningDataModules."""

"""The recipe of the built-in model: data set, tokenizer, VAE, UNet with text encoder."""

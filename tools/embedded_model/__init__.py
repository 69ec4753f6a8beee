"""What built the embedded model: documents, tokenizer, pretraining, measures, its card. Not part of the wheel."""

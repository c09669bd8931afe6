"""What a compiled program is worth: is it right, how fast is it, how much work is in the model."""

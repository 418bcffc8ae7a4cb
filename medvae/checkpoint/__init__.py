"""What a model folder holds: named networks, named sets of arrays, settings; safetensors and JSON, never code."""

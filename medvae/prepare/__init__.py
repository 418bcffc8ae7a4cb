"""A scan <-> the model's grid."""

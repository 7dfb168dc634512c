"""Planning: memory, communication and time of pretraining on devices that are not attached."""

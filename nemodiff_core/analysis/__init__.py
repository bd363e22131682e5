"""Read-outs of trained models: the checkable task families and what is measured on them."""

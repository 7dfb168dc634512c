"""Files of models: what each format holds, and how it is read and written."""

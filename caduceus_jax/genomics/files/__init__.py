"""The field's file formats: one reader and one writer each."""

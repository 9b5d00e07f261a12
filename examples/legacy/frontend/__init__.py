"""The frontend database of a legacy system, kept up to date by events instead of a nightly batch."""

"""Commands and reports for people: the only package that prints."""

"""Words for numbers, as commands print them."""


def counted(number: int, noun: str) -> str:
    """A number with its noun, whose plural ends in s.

    >>> counted(1, "record"), counted(0, "record"), counted(12_000, "record")
    ('1 record', '0 records', '12,000 records')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

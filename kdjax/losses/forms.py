"""Losses that exist in two forms: their paper's, and Self-KD-Lib's where that is another."""

FORMS = ("paper", "library")


def is_paper(form: str) -> bool:
    """Whether `form` is 'paper'; otherwise it is 'library'.

    Raises:
      ValueError: it is neither.
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r} is unknown; use 'paper' or 'library'")
    return form == "paper"

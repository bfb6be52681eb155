"""Settings that these methods refuse."""

from kdjax.errors import UserError
from kdjax.losses.forms import FORMS


def check_form(method: str, form: str) -> None:
    """Raises `UserError` unless `config.self_distill.METHOD.form` is a form of a loss."""
    if form not in FORMS:
        raise UserError(
            f"config.self_distill.{method}.form={form!r} is unknown; "
            f"use {' or '.join(map(repr, FORMS))}"
        )


def check_share(method: str, name: str, value: float) -> None:
    """Raises `UserError` unless `config.self_distill.METHOD.NAME` leaves something of a whole."""
    if not 0 <= value < 1:
        raise UserError(
            f"config.self_distill.{method}.{name}={value}: must be at least 0 and less than 1"
        )


def check_temperature(method: str, temperature: float) -> None:
    """Raises `UserError` unless `config.self_distill.METHOD.temperature` is positive."""
    if not temperature > 0:
        raise UserError(f"config.self_distill.{method}.temperature={temperature}: must be positive")

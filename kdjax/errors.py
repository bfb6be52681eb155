"""The one exception that users are meant to read."""


class UserError(ValueError):
    """Something the user can mend: bad config, missing data, an unusable workdir.

    The message is one line that names the flag or file at fault and the way out. The command line
    prints it and exits with status 2; library callers catch it as a `ValueError`.
    """

"""The errors that relprop raises: each repeats the call, names the place and gives the remedy."""


class RelpropError(Exception):
    """Whatever relprop refuses to do. The command line prints the message without a traceback."""


class InputError(RelpropError, ValueError):
    """An input, a target or a picture that cannot be explained as it is."""


class RuleError(RelpropError, ValueError):
    """A rule, composite or preset with parameters that have no meaning."""


class ModelError(RelpropError, ValueError):
    """A model, or a name of one, that cannot be explained as it is."""


class CoverageError(RelpropError, NotImplementedError):
    """Operations on the way of relevance that no entry of the table covers. Lists all of them at once."""


class FileError(RelpropError, OSError):
    """A file that is missing, damaged, of the wrong kind or cannot be written."""


class ScoreWarning(UserWarning):
    """The explained score is one whose explanation is easily misread: negative, or behind a softmax."""

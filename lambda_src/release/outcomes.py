"""How a step of a release can end other than well. The state machine knows these errors by their names; but
`NotYet` it never sees: the step is asked again.
"""


class NotYet(Exception):
    """What the step waits for is not there yet; the message says what."""


class Late(Exception):
    """A step has waited for longer than it may."""


class Refused(Exception):
    """The version may not be released; nothing was changed. The message is for people."""


class Rejected(Exception):
    """The version did worse than it may, or did not start. The message says how, for people."""


class Unverified(Exception):
    """What answers is not what was released, whatever the service says."""

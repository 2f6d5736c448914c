"""A NATS user `pod` whose permissions a test takes away and gives back by a reload."""

ALL = ('publish: {allow: [">"]}', 'subscribe: {allow: [">"]}')


def users(publish: str = ALL[0], subscribe: str = ALL[1]) -> str:
    """A user `pod` with these permissions; who names no user may do everything."""
    return (
        'no_auth_user: all\nauthorization { users: [{ user: all, password: all }, { user: "pod", password: "pw", '
        f"permissions: {{ {publish}, {subscribe} }} }}] }}"
    )


def without(*subjects: str) -> str:
    """`pod` may subscribe to all but these."""
    return users(subscribe=f"subscribe: {{ deny: {list(subjects)} }}".replace("'", '"'))


def publishing_all_but(*subjects: str) -> str:
    """`pod` may publish to all but these."""
    return users(publish=f"publish: {{ deny: {list(subjects)} }}".replace("'", '"'))

"""How many files this process may have open: each connection is one."""

import resource


def raise_file_limit(wanted: int) -> str | None:
    """Make room for that many open files (connections and all others); say what is wrong where there is none.

    The soft limit is raised as far as the hard one allows, and never lowered.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= wanted:
        return None
    room = wanted if hard == unlimited else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))
    except (OSError, ValueError) as error:  # macOS says so above its own ceiling
        room = soft
        reason = f"the system refuses more ({error})"
    else:
        reason = f"the hard limit is {hard}"
    if room >= wanted:
        return None
    return (
        f"{wanted} open files are needed, one for each connection, but this process can have {room}: {reason}; "
        f"raise it with `ulimit -Hn {wanted}` as root, run fewer agents, or share them with --workers"
    )
